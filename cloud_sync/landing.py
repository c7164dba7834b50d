"""The database of ingest: ``DIR/landing.db``, one row per event."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgecv.cloud_sync.disk import lock_file, lock_owner
from edgecv.cloud_sync.envelope import Envelope
from edgecv.cloud_sync.topics import Address
from edgecv.errors import SyncError

_MAX_REJECTED = 1000
_SAMPLE_BYTES = 1024

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS events (
    source TEXT NOT NULL, id TEXT NOT NULL, tenant TEXT NOT NULL, device TEXT NOT NULL, boot INTEGER NOT NULL,
    seq INTEGER NOT NULL, type TEXT NOT NULL, time TEXT NOT NULL, mono_ns INTEGER NOT NULL,
    clock_synced INTEGER NOT NULL, lane TEXT NOT NULL, model TEXT NOT NULL, data TEXT NOT NULL,
    received_ns INTEGER NOT NULL, PRIMARY KEY (source, id));
CREATE INDEX IF NOT EXISTS events_by_device ON events (tenant, device, time);
CREATE TABLE IF NOT EXISTS rejected (
    n INTEGER PRIMARY KEY AUTOINCREMENT, received_ns INTEGER NOT NULL, topic TEXT NOT NULL, reason TEXT NOT NULL,
    bytes INTEGER NOT NULL, sample BLOB NOT NULL);
CREATE TRIGGER IF NOT EXISTS rejected_bound AFTER INSERT ON rejected
    BEGIN DELETE FROM rejected WHERE n <= NEW.n - {_MAX_REJECTED}; END;
"""  # noqa: S608 (our own number)
_INSERT = f"INSERT OR IGNORE INTO events VALUES ({', '.join('?' * 14)})"  # noqa: S608 (question marks)
_REJECT = "INSERT INTO rejected (received_ns, topic, reason, bytes, sample) VALUES (?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """One event that passed every check."""

    address: Address
    envelope: Envelope
    received_ns: int

    def as_row(self) -> tuple[object, ...]:
        """The columns of table ``events``, in order."""
        event = self.envelope
        data = msgspec.json.encode(event.data).decode()
        return (
            *(event.source, event.id, self.address.tenant, self.address.device, event.boot, event.seq, event.type),
            *(event.time, event.mono_ns, event.clock_synced, event.lane, event.model, data, self.received_ns),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A message, or an event in one, that did not pass."""

    topic: str
    reason: str
    payload: bytes
    received_ns: int

    def as_row(self) -> tuple[object, ...]:
        """The columns of table ``rejected`` after ``n``."""
        topic = self.topic[:200].encode("utf-8", "replace").decode()
        return (self.received_ns, topic, self.reason[:500], len(self.payload), self.payload[:_SAMPLE_BYTES])


class Landing:
    """The only writer of a landing folder; others may read ``landing.db`` while it runs.

    Args:
        folder: Made when missing.

    Raises:
        SyncError: another ingest owns the folder, or the database cannot be opened.
    """

    def __init__(self, folder: Path | str) -> None:
        folder = Path(folder)
        self.path = folder / "landing.db"
        lock_path = folder / "lock"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock_file(lock_path)
        except OSError as error:
            raise SyncError(f"The folder {folder} cannot be written: {error.strerror}.", "Check it.") from error
        if self._lock is None:
            raise SyncError(
                f"The folder {folder} belongs to the running ingest {lock_owner(lock_path)}.",
                "Stop that one, or give this one a folder of its own.",
            )
        self._db = self._open()

    def store(self, landed: Sequence[Landed], rejected: Sequence[Rejected]) -> int:
        """Write both in one durable commit; events that are there already stay as they are.

        Returns:
            How many events were new.

        Raises:
            SyncError: nothing was stored, such as on a full disk.
        """
        before = self._db.total_changes
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(_INSERT, [one.as_row() for one in landed])
            stored = self._db.total_changes - before
            self._db.executemany(_REJECT, [one.as_row() for one in rejected])
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise SyncError(f"{self.path} cannot be written: {error}", "Free disk space; nothing is lost.") from error
        return stored

    def close(self) -> None:
        """Close the database and free the folder; a second call does nothing."""
        self._db.close()
        if self._lock is not None:
            self._lock.close()

    def _open(self) -> sqlite3.Connection:
        try:
            # Opened here, so that errors come early, and used by the one thread that runs ingest.
            db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            if self._lock is not None:
                self._lock.close()
            raise SyncError(
                f"{self.path} cannot be opened: {error}", "Move it away if it is damaged; it is not deleted."
            ) from error
        return db
