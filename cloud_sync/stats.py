"""What became of the events of a device, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from operator import attrgetter


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncStats:
    """Counts since the start, and what waits. Outbox, sender and sink fill in a part each, and ``+`` puts them together."""

    emitted: int = 0  # events offered; each is in exactly one of `accepted`, `refused` and `queued`
    accepted: int = 0  # durably on disk
    refused: int = 0  # not taken: too large, no JSON, or the outbox or the disk is full
    queued: int = 0  # in memory, waiting for their commit
    pending: int = 0  # on disk, not delivered yet; from earlier runs too
    acknowledged: int = 0  # delivered and deleted from disk; from earlier runs too
    coalesced: int = 0  # of the accepted ones, given up for a newer one of the same state before they were sent
    evicted: int = 0  # given up for more urgent ones, or in a full lane for newer ones
    expired: int = 0  # deleted because their time to live ran out
    dead: int = 0  # kept on disk but undeliverable: damaged, or too large for any broker; from earlier runs too
    used_bytes: int = 0  # of the quota
    quarantined_files: int = 0  # damaged files that were moved aside
    salvaged: int = 0  # events saved from them
    lost: int = 0  # events of them that could not be saved
    connected: bool = False  # whether a broker is there now
    protocol: str = ""  # `5`, `3.1.1` or empty
    published: int = 0  # batches, repetitions included
    resent: int = 0  # of them, repetitions
    unplaced: int = 0  # batches the broker refused, or that nobody subscribed to
    ignored: int = 0  # messages that acknowledged nothing of this run: garbage, forged, or meant for an earlier run
    parked: int = 0  # of the pending ones, too large for this broker: they are tried again later
    snapshots: int = 0  # pictures made for events
    snapshots_skipped: int = (
        0  # events that went without the picture they should have: too many, or it could not be made
    )
    snapshots_waiting: int = 0  # pictures on disk that are not delivered yet; from earlier runs too
    snapshots_sent: int = 0  # pictures delivered and deleted from disk
    snapshots_dropped: int = (
        0  # pictures given up: the quota or the disk was full, they were damaged, or ingest never takes them
    )
    notified: int = 0  # events with the mark that people are told of them
    held_back: int = 0  # events that the limits of the mark left without it; they go to the store as all others
    last_error: str = ""  # what last went wrong on the disk, or else with the broker; or empty

    def __add__(self, other: SyncStats) -> SyncStats:
        """Numbers are added; of a text the first that is not empty stays."""
        both = zip(_NAMES, _values(self), _values(other), strict=True)
        return SyncStats(**{name: a + b if type(a) is int else a or b for name, a, b in both})


_NAMES = tuple(field.name for field in fields(SyncStats))
_values = attrgetter(*_NAMES)
