"""The tables of ``outbox.db``, and how a file of an older EdgeCV gets them."""

from __future__ import annotations

import sqlite3

PAGE_BYTES = 4096
CHECKED_AT_ONCE_BYTES = 32 * 1024 * 1024  # a larger file is checked while the outbox works already

_TABLES = """
CREATE TABLE IF NOT EXISTS outbox (
    n INTEGER PRIMARY KEY, boot INTEGER NOT NULL, seq INTEGER NOT NULL, lane INTEGER NOT NULL,
    body BLOB NOT NULL, crc INTEGER NOT NULL, expires_ns INTEGER, dead TEXT, coalesce_key TEXT, died_ns INTEGER,
    UNIQUE (boot, seq));
CREATE TABLE IF NOT EXISTS totals (
    place INTEGER PRIMARY KEY, rows INTEGER NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS losses (
    reason TEXT NOT NULL, lane TEXT NOT NULL, count INTEGER NOT NULL, first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,
    PRIMARY KEY (reason, lane)) WITHOUT ROWID;
"""
# An older EdgeCV made the table `outbox` without these. It can still use the file, and counts what it finds anew.
_NEWER_COLUMNS = {"coalesce_key": "TEXT", "died_ns": "INTEGER"}
_INDEXES = """
CREATE INDEX IF NOT EXISTS outbox_by_lane ON outbox (lane, n) WHERE dead IS NULL;
CREATE INDEX IF NOT EXISTS outbox_by_end ON outbox (expires_ns) WHERE expires_ns IS NOT NULL;
CREATE INDEX IF NOT EXISTS outbox_apart ON outbox (dead, coalesce_key)
    WHERE dead IS NOT NULL OR coalesce_key IS NOT NULL;
"""


def prepare(db: sqlite3.Connection, *, most_bytes: int) -> bool:
    """Set up a connection and the tables of its file; whether the file is still to be checked, since it is large.

    ``most_bytes`` is a backstop: what the outbox may hold is kept by counting, long before pages run out.

    Raises:
        sqlite3.Error: the file is damaged, or cannot be written.
    """
    run = db.execute
    run(f"PRAGMA page_size={PAGE_BYTES}")
    run("PRAGMA journal_mode=WAL")
    run("PRAGMA synchronous=FULL")
    run("PRAGMA wal_autocheckpoint=256")
    run(f"PRAGMA journal_size_limit={1024 * PAGE_BYTES}")
    run(f"PRAGMA max_page_count={2 * most_bytes // PAGE_BYTES + 1024}")
    is_large = run("PRAGMA page_count").fetchone()[0] * PAGE_BYTES > CHECKED_AT_ONCE_BYTES
    if not is_large:
        check(db)
    db.executescript(_TABLES)
    columns = {row[1] for row in run("PRAGMA table_info(outbox)")}
    for name, kind in _NEWER_COLUMNS.items():
        if name not in columns:
            run(f"ALTER TABLE outbox ADD COLUMN {name} {kind}")
    db.executescript(_INDEXES)
    return is_large


def check(db: sqlite3.Connection) -> None:
    """Read every page, and raise ``sqlite3.DatabaseError`` where the structure of the file is damaged."""
    if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise sqlite3.DatabaseError("quick_check failed")
