"""What became of the events of a device, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from operator import attrgetter


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncStats:
    """Counts since the start, and what waits. Outbox, sender and sink fill in a part each, and ``+`` puts them together.

    Attributes:
        emitted: Events offered. Each is in exactly one of ``accepted``, ``refused`` and ``queued``.
        accepted: Durably on disk.
        refused: Not taken: too large, no JSON, or the outbox or the disk is full.
        queued: In memory, waiting for their commit.
        pending: On disk, not delivered yet; from earlier runs too.
        acknowledged: Delivered and deleted from disk; from earlier runs too.
        evicted: Given up for more urgent ones.
        expired: Deleted because their time to live ran out.
        dead: Kept on disk but undeliverable: damaged, or too large for any broker; from earlier runs too.
        used_bytes: Of the quota.
        quarantined_files: Damaged files that were moved aside.
        salvaged: Events saved from them.
        lost: Events of them that could not be saved.
        connected: Whether a broker is there now.
        protocol: ``5``, ``3.1.1`` or empty.
        published: Batches, repetitions included.
        resent: Of them, repetitions.
        unplaced: Batches the broker refused, or that nobody subscribed to.
        ignored: Messages that acknowledged nothing of this run: garbage, forged, or meant for an earlier run.
        parked: Of the pending ones, too large for this broker. They are tried again when it takes more, after ten minutes and
            after a restart.
        last_error: What last went wrong with the disk, or else why there is no connection or no progress; or empty.
    """

    emitted: int = 0
    accepted: int = 0
    refused: int = 0
    queued: int = 0
    pending: int = 0
    acknowledged: int = 0
    evicted: int = 0
    expired: int = 0
    dead: int = 0
    used_bytes: int = 0
    quarantined_files: int = 0
    salvaged: int = 0
    lost: int = 0
    connected: bool = False
    protocol: str = ""
    published: int = 0
    resent: int = 0
    unplaced: int = 0
    ignored: int = 0
    parked: int = 0
    last_error: str = ""

    def __add__(self, other: SyncStats) -> SyncStats:
        """Numbers are added; of a text the first that is not empty stays."""
        both = zip(_NAMES, _values(self), _values(other), strict=True)
        return SyncStats(**{name: a + b if type(a) is int else a or b for name, a, b in both})


_NAMES = tuple(field.name for field in fields(SyncStats))
_values = attrgetter(*_NAMES)
