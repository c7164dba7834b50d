"""How many rows and bytes each lane holds, kept beside the rows so that nobody has to count them at a start."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from edgecv.cloud_sync.envelope import PRIORITIES
from edgecv.cloud_sync.outbox.rows import ROW_OVERHEAD_BYTES

DEAD = -1  # the place of dead letters, whatever lane they came in
LANES = range(len(PRIORITIES))
_PLACES = (DEAD, *LANES)

_COUNTED = """
SELECT lane, COUNT(*) FROM outbox WHERE dead IS NULL GROUP BY lane
UNION ALL SELECT -1, COUNT(*) FROM outbox WHERE dead IS NOT NULL"""
_MEASURED = "SELECT IIF(dead IS NULL, lane, -1), COUNT(*), IFNULL(SUM(LENGTH(body)), 0) FROM outbox GROUP BY 1"

# A flipped bit in the number of a lane: the event itself may be whole, and its checksum says so when it is sent.
_TO_A_LANE = "UPDATE outbox SET lane=? WHERE dead IS NULL AND NOT IFNULL(lane BETWEEN 0 AND ?, 0)"


@dataclass(slots=True)
class Tally:
    """Rows and bytes by place: a lane, or ``DEAD``."""

    rows: dict[int, int] = field(default_factory=lambda: dict.fromkeys(_PLACES, 0))
    used: dict[int, int] = field(default_factory=lambda: dict.fromkeys(_PLACES, 0))  # bytes

    @property
    def pending(self) -> int:
        """How many rows are to be delivered, in all lanes."""
        return sum(self.rows.values()) - self.rows[DEAD]

    @property
    def used_bytes(self) -> int:
        """What all rows take together, dead letters too."""
        return sum(self.used.values())

    def copy(self) -> Tally:
        return Tally(dict(self.rows), dict(self.used))

    def add(self, place: int, body_bytes: int) -> None:
        """Count one more row in a place."""
        self.rows[place] += 1
        self.used[place] += body_bytes + ROW_OVERHEAD_BYTES

    def remove(self, place: int, body_bytes: int) -> None:
        """Count one row less in a place."""
        self.rows[place] -= 1
        self.used[place] -= body_bytes + ROW_OVERHEAD_BYTES

    def move(self, place: int, other: int, body_bytes: int) -> None:
        """Count one row in another place than before."""
        self.remove(place, body_bytes)
        self.add(other, body_bytes)


def read_tally(db: sqlite3.Connection) -> Tally:
    """The tally that the file keeps if it fits the rows, else a new one.

    Rows are counted in an index, which is quick; their bytes would mean to read them all. They differ after an older
    EdgeCV has used the file, and after damage.
    """
    tally = Tally()
    for place, rows, used in db.execute("SELECT place, rows, bytes FROM totals"):
        tally.rows[place], tally.used[place] = rows, used
    counted = Tally()
    for place, rows in db.execute(_COUNTED):
        counted.rows[place] = rows
    if len(counted.rows) > len(_PLACES):
        db.execute(_TO_A_LANE, (PRIORITIES.index("event"), LANES[-1]))
        return measure(db)
    plausible = all(tally.used[place] >= tally.rows[place] * ROW_OVERHEAD_BYTES for place in _PLACES)
    if tally.rows == counted.rows and plausible:
        return tally
    return measure(db)


def measure(db: sqlite3.Connection) -> Tally:
    """Count and measure every row; reads the whole file."""
    tally = Tally()
    for place, rows, body_bytes in db.execute(_MEASURED):
        tally.rows[place], tally.used[place] = rows, body_bytes + rows * ROW_OVERHEAD_BYTES
    return tally


def write_tally(db: sqlite3.Connection, tally: Tally, written: Tally | None) -> None:
    """Put what differs from ``written`` into the file, within the caller's transaction."""
    changed = [
        (place, tally.rows[place], tally.used[place])
        for place in _PLACES
        if written is None or (tally.rows[place], tally.used[place]) != (written.rows[place], written.used[place])
    ]
    if changed:
        db.executemany("INSERT OR REPLACE INTO totals VALUES (?, ?, ?)", changed)
