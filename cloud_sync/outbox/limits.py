"""What goes into an outbox and comes out: its limits, its counts, and the receipt of one event."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from edgecv.errors import OutboxFull, SyncError


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxLimits:
    """How much an outbox may hold.

    Attributes:
        quota_bytes: Events on disk, with their index entries.
        queue_rows: Events in memory that wait for their commit.
        queue_bytes: The same, in bytes.
        group_rows: A commit starts at this many events ...
        group_s: ... or this long after the first one.
        floor_bytes: Free disk space below which nothing new is taken.
        ballast_bytes: A file kept so that a full disk can be survived by deleting it.
    """

    quota_bytes: int = 256 * 1024 * 1024
    queue_rows: int = 10_000
    queue_bytes: int = 16 * 1024 * 1024
    group_rows: int = 256
    group_s: float = 0.010
    floor_bytes: int = 32 * 1024 * 1024
    ballast_bytes: int = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxStats:
    """What happened since the outbox was opened, and what waits.

    Every event offered is in exactly one of ``accepted``, ``refused`` and ``queued``.

    Attributes:
        accepted: Durably committed.
        refused: Not taken: full, too large, disk low or closing.
        queued: In memory, waiting for its commit.
        pending: On disk, waiting for its acknowledgement; from earlier boots too.
        acknowledged: Deleted because ingest has it.
        evicted: Given up for a more urgent event.
        expired: Deleted because its time to live ran out.
        dead: Kept on disk but undeliverable: damaged, or too large for the broker; from earlier boots too.
        used_bytes: Against the quota.
        quarantined_files: Damaged files that were moved aside.
        salvaged: Events saved from them.
        lost: Events of them that could not be saved.
        last_error: What the disk last said, or empty.
    """

    accepted: int
    refused: int
    queued: int
    pending: int
    acknowledged: int
    evicted: int
    expired: int
    dead: int
    used_bytes: int
    quarantined_files: int
    salvaged: int
    lost: int
    last_error: str


@dataclass(slots=True, kw_only=True, eq=False)
class Ticket:
    """The receipt of one event.

    Attributes:
        accepted: Set after the durable commit.
        refused: Why the event was not taken, or empty.
    """

    boot: int
    seq: int
    accepted: threading.Event = field(default_factory=threading.Event)
    refused: str = ""

    def wait(self, timeout_s: float) -> None:
        """Return once the event is accepted.

        Raises:
            OutboxFull: it was refused; the message says why.
            SyncError: neither happened in time.
        """
        deadline_s = time.monotonic() + timeout_s
        # Short waits, since a refusal can also come late, from the disk.
        while not self.accepted.wait(min(0.05, max(deadline_s - time.monotonic(), 0.0))):
            if self.refused:
                raise OutboxFull(f"Event {self.boot}:{self.seq} was refused: {self.refused}.", "See Outbox.stats().")
            if time.monotonic() >= deadline_s:
                raise SyncError(f"Event {self.boot}:{self.seq} was not stored in {timeout_s} s.", "Is the disk slow?")
