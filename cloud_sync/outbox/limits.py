"""How much an outbox may hold."""

from __future__ import annotations

from dataclasses import dataclass


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
