"""Events in memory that wait for their commit."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from edgecv.cloud_sync.envelope import MAX_EVENT_BYTES, PRIORITIES
from edgecv.cloud_sync.outbox.accounts.losses import Loss, LossLedger, Reason
from edgecv.cloud_sync.outbox.limits import OutboxLimits
from edgecv.cloud_sync.outbox.rows import Row
from edgecv.errors import OutboxFull


class Waiting:
    """A bounded queue, and the losses at its door; its owner holds a lock around every call."""

    def __init__(self, limits: OutboxLimits) -> None:
        self.refused = 0
        self.closed = False
        self._limits = limits
        self._rows: deque[Row] = deque()
        self._bytes = 0
        self._committing: Sequence[Row] = ()
        self._lost = LossLedger()

    def __len__(self) -> int:
        """Those that are not being committed yet."""
        return len(self._rows)

    @property
    def queued(self) -> int:
        """Those of which nobody knows yet whether they are stored."""
        return len(self._rows) + len(self._committing)

    def put(self, row: Row, now_ns: int) -> None:
        """Take one event, or raise ``OutboxFull`` and count it."""
        limits = self._limits
        if self.closed:
            reason, why = _CLOSED, "the outbox is closed"
        elif len(row.body) > MAX_EVENT_BYTES:
            reason, why = _LARGE, f"the event is larger than {MAX_EVENT_BYTES} bytes"
        elif len(self._rows) >= limits.queue_rows or self._bytes + len(row.body) > limits.queue_bytes:
            reason, why = _SLOW, "the disk is too slow: the queue in memory is full"
        else:
            self._rows.append(row)
            self._bytes += len(row.body)
            return
        self.refuse(reason, PRIORITIES[row.priority], now_ns)
        raise OutboxFull(f"Event {row.boot}:{row.seq} was refused: {why}.", "See Outbox.stats().")

    def refuse(self, reason: Reason, lane: str, now_ns: int) -> None:
        """Count an event that was not taken."""
        self.refused += 1
        self.lose(reason, lane, now_ns)

    def lose(self, reason: Reason, lane: str, now_ns: int) -> None:
        """Count what was lost beside the events."""
        self._lost.add(reason, lane, 1, now_ns)

    def take(self) -> Sequence[Row]:
        """The next group to be committed, until ``committed``."""
        self._committing = [self._rows.popleft() for _ in range(min(len(self._rows), self._limits.group_rows))]
        self._bytes -= sum(len(row.body) for row in self._committing)
        return self._committing

    def committed(self) -> None:
        """What became of the last group is known."""
        self._committing = ()

    def refuse_rest(self, now_ns: int) -> None:
        """Nobody will commit what is here."""
        self.closed = True
        for row in (*self._committing, *self._rows):
            self.refuse(_CLOSED, PRIORITIES[row.priority], now_ns)
        self._rows.clear()
        self._bytes, self._committing = 0, ()

    def losses(self) -> tuple[Loss, ...]:
        """What was refused at the door and not taken over yet."""
        return self._lost.all()

    def take_losses(self) -> tuple[Loss, ...]:
        """The same, for somebody who takes them over."""
        return self._lost.take()


_CLOSED: Reason = "refused_closed"
_LARGE: Reason = "too_large"
_SLOW: Reason = "refused_memory"
