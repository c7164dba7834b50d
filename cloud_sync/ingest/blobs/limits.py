"""How much ingest takes of pictures."""

from __future__ import annotations

from dataclasses import dataclass

from edgecv.cloud_sync.blobs.messages import MAX_BLOB_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobLimits:
    """How much ingest takes of pictures, of one device and of all."""

    max_bytes: int = MAX_BLOB_BYTES  # of one picture
    device_bytes: int = 1_000_000_000  # of all pictures of a device together, wherever they are
    floor_bytes: int = 256 * 2**20  # free disk space below which no parts are taken
    memory_bytes: int = 64 * 2**20  # of pictures whose parts are coming in
    device_sessions: int = 2  # pictures of a device that may be under way
    idle_s: float = 120.0  # a picture of which nothing comes for so long is forgotten; the device begins anew
    missing_after_s: float = 86_400.0  # a picture that did not come for so long after its event is `missing`
