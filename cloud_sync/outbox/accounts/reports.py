"""When the cloud is told of what was lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from edgecv.cloud_sync.envelope import PRIORITIES, Envelope, encode
from edgecv.cloud_sync.outbox.accounts.losses import Loss
from edgecv.cloud_sync.outbox.rows import Row

Report = Callable[[Sequence[Loss], int], Envelope]
"""Makes an event of the loss ledger and a sequence number."""

_KEY = "edgecv/sync/losses"


class LossReports:
    """The ledger as an event, when it has changed, at most once in a while; a newer one takes the place of an unsent one."""

    def __init__(self, make: Report, every_s: float) -> None:
        self._make = make
        self._every_s = every_s
        self._told: Sequence[Loss] = ()
        self._tried_s = float("-inf")

    def wait_s(self, losses: Sequence[Loss]) -> float | None:
        """How long until the ledger is to be told; ``None`` when it was."""
        if losses == self._told:
            return None
        return max(self._tried_s + self._every_s - time.monotonic(), 0.0)

    def tell(self, losses: Sequence[Loss], seq: int, store: Callable[[Row], bool]) -> bool:
        """Store a report; whether that was possible."""
        self._tried_s = time.monotonic()
        envelope = self._make(losses, seq)
        stored = store(
            Row(
                boot=envelope.boot,
                seq=seq,
                priority=PRIORITIES.index(envelope.priority),
                body=encode(envelope),
                coalesce_key=_KEY,
            )
        )
        if stored:
            self._told = losses
        return stored
