"""How much an outbox may hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxLimits:
    """How much an outbox may hold, on disk and in memory."""

    quota_bytes: int = 256 * 1024 * 1024  # events on disk, with their index entries
    queue_rows: int = 10_000  # events in memory that wait for their commit
    queue_bytes: int = 16 * 1024 * 1024  # the same, in bytes
    group_rows: int = 256  # a commit starts at this many events ...
    group_s: float = 0.010  # ... or this long after the first one
    floor_bytes: int = 32 * 1024 * 1024  # free disk space below which nothing new is taken
    ballast_bytes: int = 4 * 1024 * 1024  # a file kept so that a full disk can be survived by deleting it
