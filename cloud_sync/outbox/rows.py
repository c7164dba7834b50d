"""One event as the outbox keeps it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from edgecv.cloud_sync.acks import Key

ROW_OVERHEAD_BYTES = 96  # keys, index entries and cell headers of a row, measured on 100,000 small rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One encoded event and where it stands in the queue."""

    boot: int
    seq: int
    priority: int  # position in `PRIORITIES`
    body: bytes  # the envelope as JSON
    expires_ns: int | None = None  # UTC nanoseconds after which it is worthless, or `None`
    coalesce_key: str = ""  # a newer event of the same key takes its place while it is unsent; empty: none does

    @property
    def key(self) -> Key:
        return (self.boot, self.seq)

    @property
    def crc(self) -> int:
        """Covers the key too: a flipped bit there would give the event another name."""
        return zlib.crc32(self.body, zlib.crc32(b"%d:%d:" % self.key))

    @property
    def cost_bytes(self) -> int:
        return len(self.body) + ROW_OVERHEAD_BYTES


# One flipped bit can turn a BLOB into TEXT or a number into NULL; the checksum shall find that, not a TypeError.
READ = "n, " + ", ".join(
    f"IFNULL(CAST({name} AS {kind}), {default})"
    for name, kind, default in (
        ("boot", "INTEGER", "-1"),
        ("seq", "INTEGER", "-1"),
        ("body", "BLOB", "x''"),
        ("crc", "INTEGER", "-1"),
    )
)
"""Columns of a query: ``n, boot, seq, body, crc``, of those kinds whatever the damage."""
