"""How fast batches leave the outbox: alarms and what is new at once, the backlog as fast as was asked for."""

from __future__ import annotations

import time

from edgecv.cloud_sync.delivery.options import SendOptions
from edgecv.cloud_sync.envelope import PRIORITIES
from edgecv.cloud_sync.outbox.database import Claim
from edgecv.cloud_sync.outbox.outbox import Outbox

_BURST_S = 1.0  # of the backlog, what may go at once


class Supply:
    """Claims the events of the next batch."""

    def __init__(self, outbox: Outbox, options: SendOptions) -> None:
        self._outbox = outbox
        self._options = options
        self._is_held = False  # whether the last claim left the backlog out
        self._may_drain = 0.0  # events of the backlog that may go now
        self._counted_s = time.monotonic()
        # A message is a little longer than its events: their nonce, and what does not compress.
        self._batch_bytes = options.batch_bytes - options.batch_bytes // 32

    def next_batch(self, *, only_alarms: bool, max_bytes: int) -> Claim:
        """The most urgent events that are unclaimed; errors as in ``Outbox.claim``."""
        may_drain = self._may_go()
        claim = self._outbox.claim(
            limit=self._options.batch_events,
            max_bytes=min(self._batch_bytes, max_bytes),
            priorities=1 if only_alarms else len(PRIORITIES),
            backlog=may_drain,
        )
        self._is_held = not may_drain
        if claim.backlog:
            self._may_drain -= len(claim.rows)
        return claim

    def held_s(self) -> float | None:
        """For how long the cap still holds the backlog up; ``None`` when it does not."""
        cap = self._options.drain_events_s
        if cap is None or not self._is_held:
            return None
        return 0.0 if self._may_go() else max(-self._may_drain / cap, 0.0) + 0.001

    def is_free_again(self) -> bool:
        """Whether the backlog was held up and may go on now."""
        return self._is_held and self._may_go()

    def _may_go(self) -> bool:
        cap = self._options.drain_events_s
        if cap is None:
            return True
        now_s = time.monotonic()
        self._may_drain = min(self._may_drain + (now_s - self._counted_s) * cap, cap * _BURST_S)
        self._counted_s = now_s
        return self._may_drain > 0.0
