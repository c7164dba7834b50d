"""The database of ingest: ``DIR/landing.db``, one row per event."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgecv._internal.printable import printable
from edgecv._internal.private_files import make_private_file
from edgecv.cloud_sync.envelope import Arrived
from edgecv.cloud_sync.folders import own_folder
from edgecv.cloud_sync.mqtt.topics import Address
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
# The columns that the device wrote, in the order of the row: what tells a repetition from another event of the same key.
_WRITTEN = ("type", "time", "mono_ns", "clock_synced", "lane", "model", "data")
_WRITTEN_AT = slice(6, 6 + len(_WRITTEN))
_IS_THERE = f"SELECT 1 FROM events WHERE source=? AND id=? AND {' AND '.join(f'{name}=?' for name in _WRITTEN)}"  # noqa: S608
_DIGEST_DIGITS = 16
_REJECT = "INSERT INTO rejected (received_ns, topic, reason, bytes, sample) VALUES (?, ?, ?, ?, ?)"
OF_THE_CONTENT = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
"""Errors that the same event would meet again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """One event that passed every check, as its columns of table ``events``."""

    address: Address
    boot: int
    seq: int
    row: tuple[object, ...]

    @classmethod
    def from_envelope(cls, event: Arrived, address: Address, received_ns: int) -> Landed:
        """The row of an event that came in."""
        row = (
            *(event.source, event.id, address.tenant, address.device, event.boot, event.seq),
            *(printable(event.type, 200), event.time, event.mono_ns, event.clock_synced, event.priority),
            *(printable(event.model, 200), event.payload, received_ns),
        )
        return cls(address=address, boot=event.boot, seq=event.seq, row=row)

    @property
    def time(self) -> str:
        """When it happened, RFC 3339."""
        return str(self.row[7])

    @property
    def received_ns(self) -> int:
        """When it came in, UTC nanoseconds."""
        received_ns = self.row[13]
        assert isinstance(received_ns, int)
        return received_ns

    @property
    def place(self) -> tuple[object, ...]:
        """Source, id and content: what ``_IS_THERE`` asks for."""
        return (*self.row[:2], *self.row[_WRITTEN_AT])

    def under_another_id(self) -> Landed:
        """The same event as ``boot:seq:digest``, where another one has its id; the digest is that of its content."""
        text = "\0".join(map(str, self.row[_WRITTEN_AT])).encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(text).hexdigest()[:_DIGEST_DIGITS]
        source, name, *rest = self.row
        return replace(self, row=(source, f"{name}:{digest}", *rest))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What one commit added to the database."""

    new: int  # events that were not there yet
    renamed: tuple[Landed, ...] = ()  # of them, those whose id belonged to another event


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A message, or an event in one, that did not pass."""

    topic: str
    reason: str
    payload: bytes
    received_ns: int

    def as_row(self) -> tuple[object, ...]:
        """The columns of table ``rejected`` after ``n``."""
        sample = bytes(self.payload[:_SAMPLE_BYTES])
        return (self.received_ns, printable(self.topic, 200), printable(self.reason, 500), len(self.payload), sample)


class EventDatabase:
    """The only writer of a landing folder, made when missing; others may read ``landing.db`` while it runs.

    Raises:
        SyncError: another ingest owns the folder, or the database cannot be opened.
    """

    def __init__(self, folder: Path | str) -> None:
        folder = Path(folder)
        self.path = folder / "landing.db"
        self._lock = own_folder(folder, "folder", "ingest")
        self._db = self._open()

    def store(self, landed: Sequence[Landed], rejected: Sequence[Rejected]) -> Stored:
        """Write both in one durable commit; events that are there already stay as they are.

        An event whose id belongs to one of another content is no repetition: it is kept beside that one (``Landed``).

        Raises:
            SyncError: nothing was stored, such as on a full disk.
        """
        before = self._db.total_changes
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(_INSERT, [one.row for one in landed])
            known = len(landed) - (self._db.total_changes - before)
            renamed = self._keep_others(landed) if known else ()
            stored = Stored(new=self._db.total_changes - before, renamed=renamed)
            self._db.executemany(_REJECT, [one.as_row() for one in rejected])
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if not isinstance(error, sqlite3.Error) or isinstance(error, OF_THE_CONTENT):
                raise  # not the disk: no use in trying the same again
            raise SyncError(f"{self.path} cannot be written: {error}", "Free disk space; nothing is lost.") from error
        return stored

    def _keep_others(self, landed: Sequence[Landed]) -> tuple[Landed, ...]:
        """Store what is not there although its id is; gives what was new."""
        others = [one.under_another_id() for one in landed if not self._db.execute(_IS_THERE, one.place).fetchone()]
        return tuple(one for one in others if self._db.execute(_INSERT, one.row).rowcount)

    def close(self) -> None:
        """Close the database and free the folder; a second call does nothing."""
        self._db.close()
        self._lock.close()

    def _open(self) -> sqlite3.Connection:
        try:
            make_private_file(self.path)
            # Opened here, so that errors come early, and used by the one thread that runs ingest.
            db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            self._lock.close()
            raise SyncError(
                f"{self.path} cannot be opened: {error}", "Move it away if it is damaged; it is not deleted."
            ) from error
        return db
