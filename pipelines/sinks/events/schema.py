"""The tables of an events file. docs/events.md tells people what stands in them: keep both in step."""

from __future__ import annotations

import sqlite3
from typing import Literal

from edgecv.errors import ConfigError

APPLICATION_ID = 0x45434556  # "ECEV": it tells the file from the databases of other programs
VERSION = 1
NS_PER_S = 10**9

MediaKind = Literal["snapshot", "clip"]

COLUMNS = (
    "key",
    "time",
    "time_ns",
    "kind",
    "source",
    "rule",
    "direction",
    "label",
    "tracker_id",
    "position_s",
    "priority",
    "data",
    "coalesce_key",
)
"""The columns of ``events`` that come from the event itself, in the order of ``row_of``."""

_TABLES = """
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    time TEXT NOT NULL, time_ns INTEGER NOT NULL,
    kind TEXT NOT NULL, source TEXT NOT NULL, rule TEXT NOT NULL, direction TEXT NOT NULL, label TEXT NOT NULL,
    tracker_id INTEGER, position_s REAL,
    priority TEXT NOT NULL, data TEXT NOT NULL,
    snapshot TEXT, clip TEXT,
    coalesce_key TEXT, moment_ns INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS events_by_time ON events (time_ns);
CREATE INDEX IF NOT EXISTS events_by_source ON events (source, time_ns);
CREATE INDEX IF NOT EXISTS events_by_rule ON events (rule, time_ns);
CREATE INDEX IF NOT EXISTS events_by_label ON events (label, time_ns);
CREATE INDEX IF NOT EXISTS events_by_moment ON events (moment_ns);
CREATE INDEX IF NOT EXISTS events_by_state ON events (coalesce_key) WHERE coalesce_key IS NOT NULL;
CREATE TABLE IF NOT EXISTS waiting_media (
    key TEXT NOT NULL, kind TEXT NOT NULL, path TEXT NOT NULL, source TEXT NOT NULL, moment_ns INTEGER NOT NULL,
    PRIMARY KEY (key, kind)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS folders (path TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS clock (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), moment_ns INTEGER, wall_ns INTEGER);
"""


def check_kind(db: sqlite3.Connection, path: str) -> bool:
    """Whether the tables are there already.

    Raises:
        ConfigError: it is the database of another program, or a newer EdgeCV wrote it.
        sqlite3.Error: it cannot be read.
    """
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    is_empty = db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone() == (0,)
    if is_empty and not application:
        return False
    if application != APPLICATION_ID:
        raise ConfigError(f"{path} is a database of another program.", "Choose another name: events:events.db")
    if version > VERSION:
        raise ConfigError(
            f"{path} was written by a newer EdgeCV (version {version} of the file, this one knows {VERSION}).",
            "Update EdgeCV, or choose another name.",
        )
    return True


def prepare(db: sqlite3.Connection, path: str) -> None:
    """Set up a connection that writes, and the tables of its file.

    Raises:
        ConfigError: as ``check_kind``.
        sqlite3.Error: the file is damaged, or cannot be written.
    """
    is_there = check_kind(db, path)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")  # a commit is on the disk: a power cut costs the last half second
    db.execute("PRAGMA secure_delete=ON")  # what a retention deleted is not left in free pages
    db.execute("PRAGMA journal_size_limit=4194304")
    if not is_there:
        db.executescript(
            f"BEGIN; {_TABLES} PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={VERSION}; COMMIT;"
        )
