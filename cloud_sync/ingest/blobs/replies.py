"""What is said of a picture that arrived, now or before."""

from __future__ import annotations

from dataclasses import dataclass

from edgecv.cloud_sync.blobs.messages import Announcement, Done, Drop, Reply, State
from edgecv.cloud_sync.ingest.blobs.table import StoredBlob


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A picture that is there, and what to tell its device once that is committed."""

    blob: StoredBlob
    reply: Reply


def settled(asked: Announcement, state: str) -> Reply | None:
    """What is to be said of a picture that arrived before, or is kept no more."""
    if state == "erased":
        return Drop(nonce=asked.nonce, sha256=asked.sha256, reason="it is kept no more")
    arrived: dict[str, State] = {"stored": "stored", "claimed": "claimed"}
    return Done(nonce=asked.nonce, sha256=asked.sha256, state=arrived[state]) if state in arrived else None
