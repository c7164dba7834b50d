"""Which events left ``landing.db`` for Parquet, so that a repetition of one is still known for one.

Table ``merged`` holds their keys as ranges: a device that counts without gaps needs one row per start. Only where the device's
clock was wrong is the hour noted under which they are filed; else the event's own time says it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

SCHEMA = """
CREATE TABLE IF NOT EXISTS merged (
    source TEXT NOT NULL, boot INTEGER NOT NULL, lo INTEGER NOT NULL, hi INTEGER NOT NULL, hour TEXT NOT NULL,
    PRIMARY KEY (source, boot, lo)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS merged_renamed (
    source TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (source, id)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class MergedKey:
    """An event that is in Parquet now."""

    source: str
    boot: int
    seq: int
    id: str
    renamed: bool
    hour: str = ""  # under which it is filed, where its own time does not say it


def settle(db: sqlite3.Connection, keys: Iterable[MergedKey]) -> int:
    """Delete these events and keep their keys, within the caller's transaction; gives how many were deleted.

    What was settled before changes nothing.
    """
    known = list(keys)
    before = db.total_changes
    db.executemany("DELETE FROM events WHERE source=? AND id=?", [(key.source, key.id) for key in known])
    deleted = db.total_changes - before
    renamed = [(key.source, key.id) for key in known if key.renamed]
    db.executemany("INSERT OR IGNORE INTO merged_renamed VALUES (?, ?)", renamed)
    for source, boot, lo, hi, hour in _ranges(key for key in known if not key.renamed):
        _add(db, source, boot, lo, hi, hour)
    return deleted


def hours_of(db: sqlite3.Connection, source: str, boot: int, seqs: list[int]) -> dict[int, str]:
    """Those of these events that were merged, with the hour that was noted."""
    lowest, highest = min(seqs), max(seqs)
    ranges = []
    for lo, hi, hour in db.execute(
        "SELECT lo, hi, hour FROM merged WHERE source=? AND boot=? AND lo<=? ORDER BY lo DESC", (source, boot, highest)
    ):
        if hi < lowest:
            break
        ranges.append((lo, hi, hour))
    return {seq: hour for seq in seqs for lo, hi, hour in ranges if lo <= seq <= hi} if ranges else {}


def is_renamed_merged(db: sqlite3.Connection, source: str, name: str) -> bool:
    """Whether an event with an id of its own, ``boot:seq:digest``, was merged."""
    return db.execute("SELECT 1 FROM merged_renamed WHERE source=? AND id=?", (source, name)).fetchone() is not None


def _ranges(keys: Iterable[MergedKey]) -> Iterator[tuple[str, int, int, int, str]]:
    current: tuple[str, int, int, int, str] | None = None
    for source, boot, seq, hour in sorted((key.source, key.boot, key.seq, key.hour) for key in keys):
        if current and (source, boot, seq, hour) == (*current[:2], current[3] + 1, current[4]):
            current = (*current[:3], seq, hour)
            continue
        if current:
            yield current
        current = (source, boot, seq, seq, hour)
    if current:
        yield current


def _add(db: sqlite3.Connection, source: str, boot: int, lo: int, hi: int, hour: str) -> None:
    """Add a range, and join it with those that it touches."""
    near = db.execute(
        "SELECT lo, hi, hour FROM merged WHERE source=? AND boot=? AND lo<=? ORDER BY lo DESC", (source, boot, hi + 1)
    )
    joined = []
    for other_lo, other_hi, other_hour in near:
        if other_hi < lo - 1:
            break
        if other_hour == hour:
            joined.append((other_lo, other_hi))
        elif other_lo <= lo and hi <= other_hi:
            return  # settled before, under another hour
    for other_lo, _ in joined:
        db.execute("DELETE FROM merged WHERE source=? AND boot=? AND lo=?", (source, boot, other_lo))
    lo, hi = min([lo, *(one for one, _ in joined)]), max([hi, *(one for _, one in joined)])
    db.execute("INSERT OR REPLACE INTO merged VALUES (?, ?, ?, ?, ?)", (source, boot, lo, hi, hour))
