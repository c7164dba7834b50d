"""Rows of table ``events`` of ``landing.db``, as the store reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

DIGEST_DIGITS = 16  # of 64 bits

# Everything but tenant, which the partition says.
ROW_COLUMNS = "device, boot, seq, id, type, time, mono_ns, clock_synced, lane, model, data, received_ns"


@dataclass(frozen=True, slots=True)
class LandedRow:
    """One event, in the order of ``ROW_COLUMNS``."""

    device: str
    boot: int
    seq: int
    id: str
    type: str
    time: str
    mono_ns: int
    clock_synced: bool
    lane: str
    model: str
    data: str
    received_ns: int

    @property
    def renamed(self) -> bool:
        """Whether another event had its id first: it is ``boot:seq:digest``."""
        return self.id.count(":") > 1

    @property
    def digest(self) -> int:
        """64 bits of the hash of what the device wrote: they tell a repetition from another event of the same id."""
        written = (self.type, self.time, self.mono_ns, self.clock_synced, self.lane, self.model, self.data)
        return int(content_digest(written), 16)


def content_digest(written: Sequence[object]) -> str:
    """The digest of type, time, mono_ns, clock_synced, lane, model and data, in 16 hexadecimal digits."""
    kind, time, mono_ns, clock_synced, *rest = written
    text = "\0".join(map(str, (kind, time, mono_ns, bool(clock_synced), *rest))).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:DIGEST_DIGITS]
