"""The tables of ``landing.db``, and how one of an older ingest becomes one of today."""

from __future__ import annotations

import sqlite3

from edgecv.cloud_sync.ingest import erasures, merged
from edgecv.cloud_sync.ingest.blobs import table
from edgecv.cloud_sync.store.layout import hour_of, hour_of_event
from edgecv.errors import SyncError

VERSION = 2  # 1, which had the number 0, knew no hours
_MAX_REJECTED = 1000

_TABLES = f"""
CREATE TABLE IF NOT EXISTS events (
    source TEXT NOT NULL, id TEXT NOT NULL, tenant TEXT NOT NULL, device TEXT NOT NULL, boot INTEGER NOT NULL,
    seq INTEGER NOT NULL, type TEXT NOT NULL, time TEXT NOT NULL, mono_ns INTEGER NOT NULL,
    clock_synced INTEGER NOT NULL, lane TEXT NOT NULL, model TEXT NOT NULL, data TEXT NOT NULL,
    received_ns INTEGER NOT NULL, hour TEXT NOT NULL DEFAULT '', PRIMARY KEY (source, id));
CREATE TABLE IF NOT EXISTS rejected (
    n INTEGER PRIMARY KEY AUTOINCREMENT, received_ns INTEGER NOT NULL, topic TEXT NOT NULL, reason TEXT NOT NULL,
    bytes INTEGER NOT NULL, sample BLOB NOT NULL);
CREATE TRIGGER IF NOT EXISTS rejected_bound AFTER INSERT ON rejected
    BEGIN DELETE FROM rejected WHERE n <= NEW.n - {_MAX_REJECTED}; END;
"""  # noqa: S608 (our own number)
_INDEXES = """
DROP INDEX IF EXISTS events_by_device;
CREATE INDEX IF NOT EXISTS events_by_hour ON events (tenant, hour, device, boot, seq, id);
CREATE INDEX IF NOT EXISTS events_without_hour ON events (hour) WHERE hour = '';
"""


def prepare(db: sqlite3.Connection) -> None:
    """Make what is missing; events of an older ingest get their hour later (``file_rows``).

    Raises:
        SyncError: the database is of a newer EdgeCV.
        sqlite3.Error: it is damaged, or the disk refused.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise SyncError(
            f"landing.db is of a newer EdgeCV (version {version}; this one knows {VERSION}).", "Update EdgeCV."
        )
    db.executescript(_TABLES)
    if "hour" not in [name for _, name, *_ in db.execute("PRAGMA table_info(events)")]:
        db.execute("ALTER TABLE events ADD COLUMN hour TEXT NOT NULL DEFAULT ''")
    db.executescript(_INDEXES + merged.SCHEMA + erasures.SCHEMA + table.SCHEMA)
    db.execute(f"PRAGMA user_version={VERSION}")


def file_rows(db: sqlite3.Connection, most: int) -> int:
    """Note the hour of events that have none, within the caller's transaction; gives how many it was."""
    rows = db.execute("SELECT rowid, time, received_ns FROM events WHERE hour='' LIMIT ?", (most,)).fetchall()
    db.executemany("UPDATE events SET hour=? WHERE rowid=?", [(_hour(time, ns), rowid) for rowid, time, ns in rows])
    return len(rows)


def _hour(time: str, received_ns: int) -> str:
    try:
        return hour_of_event(time, received_ns)
    except ValueError:
        return hour_of(received_ns // 1000)
