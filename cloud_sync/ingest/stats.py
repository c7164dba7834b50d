"""``IngestStats``: what an ingest did since its start."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestStats:
    """Counts of an ingest since its start."""

    connected: bool = False  # whether a broker is there now
    messages: int = 0  # batches received
    stored: int = 0  # events that were new
    renamed: int = 0  # of them, those whose id belonged to another event: they are `boot:seq:digest`
    duplicates: int = 0  # events that were there already; they are acknowledged like new ones
    erased: int = 0  # events of what was forgotten, or older than what is kept: acknowledged, and not stored
    rejected: int = 0  # messages, or events in them, kept out; the newest 1,000 are in table `rejected`
    dropped: int = 0  # messages left unread because too many waited, in all or of one device; devices send them again
    commits: int = 0  # durable commits
    commit_s: float = 0.0  # seconds spent in commits, failed ones included
    waiting: int = 0  # messages that wait for their commit now
    waiting_bytes: int = 0  # their size in memory
    blobs: int = 0  # pictures that arrived
    blobs_refused: int = 0  # messages about pictures, and pictures, that were kept out
    last_error: str = ""  # why there was no connection or no commit, or empty
