"""What is kept no more, and not taken when it comes late: what was forgotten, and what is older than the retention."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from edgecv.cloud_sync.store.layout import Partition, filed_us, hour_of, microseconds
from edgecv.cloud_sync.store.manifest import Forgotten

SCHEMA = """
CREATE TABLE IF NOT EXISTS forgotten (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, device TEXT NOT NULL, from_us INTEGER NOT NULL, to_us INTEGER NOT NULL,
    at_us INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS retained (tenant TEXT PRIMARY KEY, from_hour TEXT NOT NULL) WITHOUT ROWID;
"""


class Erasures:
    """Answers whether an event may be kept."""

    def __init__(self, forgotten: Iterable[Forgotten] = (), retained: Iterable[tuple[str, str]] = ()) -> None:
        self._forgotten: dict[tuple[str, str], list[Forgotten]] = {}
        for one in forgotten:
            self._forgotten.setdefault((one.tenant, one.device), []).append(one)
        self._from_hour = dict(retained)  # by tenant; the empty one is for all

    def covers(self, tenant: str, device: str, moment_us: int) -> bool:
        """Whether an event that is filed under this moment is kept no more."""
        return self._is_too_old(tenant, hour_of(moment_us)) or any(
            one.covers(moment_us) for one in self._forgotten.get((tenant, device), ())
        )

    def touch(self, tenant: str, device: str, hour: str) -> bool:
        """Whether something of this hour is kept no more."""
        partition = Partition(tenant, hour)
        return self._is_too_old(tenant, hour) or any(
            one.from_us < partition.to_us and partition.from_us < one.to_us
            for one in self._forgotten.get((tenant, device), ())
        )

    def __bool__(self) -> bool:
        return bool(self._forgotten or self._from_hour)

    def _is_too_old(self, tenant: str, hour: str) -> bool:
        return hour < max(self._from_hour.get(tenant, ""), self._from_hour.get("", ""))


def load(db: sqlite3.Connection) -> Erasures:
    """Read from a database what is kept no more."""
    return Erasures(tombstones(db), db.execute("SELECT tenant, from_hour FROM retained"))


def tombstones(db: sqlite3.Connection) -> tuple[Forgotten, ...]:
    """Everything that was ever forgotten, the oldest first."""
    found = db.execute("SELECT id, tenant, device, from_us, to_us, at_us FROM forgotten ORDER BY at_us, id")
    names = ("id", "tenant", "device", "from_us", "to_us", "at_us")
    return tuple(Forgotten(**dict(zip(names, row, strict=True))) for row in found)


def forget(db: sqlite3.Connection, tombstone: Forgotten) -> int:
    """Write a tombstone and delete what it covers, within the caller's transaction; gives how many events were deleted."""
    row = (tombstone.id, tombstone.tenant, tombstone.device, tombstone.from_us, tombstone.to_us, tombstone.at_us)
    db.execute("INSERT OR IGNORE INTO forgotten VALUES (?, ?, ?, ?, ?, ?)", row)
    covered = [
        (rowid,)
        for rowid, time, received_ns in db.execute(
            "SELECT rowid, time, received_ns FROM events WHERE tenant=? AND device=?",
            (tombstone.tenant, tombstone.device),
        )
        if tombstone.covers(filed_us(microseconds(time), received_ns // 1000))
    ]
    db.executemany("DELETE FROM events WHERE rowid=?", covered)
    db.execute(
        "DELETE FROM rejected WHERE topic=? AND received_ns>=? AND received_ns<?",
        (f"edgecv/{tombstone.tenant}/{tombstone.device}/ev", *(us * 1000 for us in _in_range(tombstone))),
    )
    return len(covered)


def retained_from(db: sqlite3.Connection, tenant: str) -> str:
    """The limit that ``retain`` was last told for a tenant, or for all (empty); empty if it never was."""
    row = db.execute("SELECT from_hour FROM retained WHERE tenant=?", (tenant,)).fetchone()
    return str(row[0]) if row else ""


def retain(db: sqlite3.Connection, tenant: str, from_hour: str) -> int:
    """Keep nothing from before an hour, within the caller's transaction; a later limit than this one stays.

    Gives how many events were deleted.
    """
    db.execute(
        "INSERT INTO retained VALUES (?, ?) ON CONFLICT (tenant) DO UPDATE SET from_hour = max(from_hour, excluded.from_hour)",
        (tenant, from_hour),
    )
    return db.execute(
        "DELETE FROM events WHERE hour<>'' AND hour<? AND (tenant=? OR ?='')", (from_hour, tenant, tenant)
    ).rowcount


def _in_range(tombstone: Forgotten) -> tuple[int, int]:
    most = (2**63 - 1) // 1000  # what SQLite holds as nanoseconds
    return max(tombstone.from_us, -most), min(tombstone.to_us, most)
