"""The database of ingest: ``DIR/landing.db``, one row per event that is not in Parquet yet."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from edgecv._internal.private_files import make_private_file
from edgecv.cloud_sync.folders import own_folder
from edgecv.cloud_sync.ingest import erasures, merged, schema
from edgecv.cloud_sync.ingest.arrivals import Arrivals
from edgecv.cloud_sync.ingest.blobs import erasing as blobs
from edgecv.cloud_sync.ingest.landed import WRITTEN, Landed, Rejected, Stored
from edgecv.cloud_sync.store.manifest import Forgotten
from edgecv.errors import SyncError

_T = TypeVar("_T")
_INSERT = f"INSERT OR IGNORE INTO events VALUES ({', '.join('?' * 15)})"  # noqa: S608 (question marks)
_IS_THERE = f"SELECT 1 FROM events WHERE source=? AND id=? AND {' AND '.join(f'{name}=?' for name in WRITTEN)}"  # noqa: S608
_REJECT = "INSERT INTO rejected (received_ns, topic, reason, bytes, sample) VALUES (?, ?, ?, ?, ?)"
OF_THE_CONTENT = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
"""Errors that the same event would meet again."""


class EventDatabase:
    """The only writer of a landing folder, made when missing; others may read ``landing.db`` while it runs.

    Its methods may be called from several threads; each call that writes is one short transaction.

    Raises:
        SyncError: another ingest owns the folder, or the database cannot be opened or is of a newer EdgeCV.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.path = self.folder / "landing.db"
        self._lock = own_folder(self.folder, "folder", "ingest")
        self._mutex = threading.RLock()
        self._db = self._open()
        self._arrivals = Arrivals(self._db, self.folder)

    def store(self, landed: Sequence[Landed], rejected: Sequence[Rejected]) -> Stored:
        """Write both in one durable commit; events that are there already, here or in Parquet, stay as they are.

        An event whose id belongs to one of another content is no repetition: it is kept beside that one (``Landed``).

        Raises:
            SyncError: nothing was stored, such as on a full disk.
        """
        with self._mutex:
            arrived = self._arrivals.sort(landed)
            with self._transaction():
                before = self._db.total_changes
                self._db.executemany(_INSERT, [one.row for one in arrived.fresh])
                known = len(arrived.fresh) - (self._db.total_changes - before)
                others = (*arrived.others, *(self._others(arrived.fresh) if known else ()))
                renamed = tuple(one for one in (other.under_another_id() for other in others) if self._keep(one))
                stored = Stored(new=self._db.total_changes - before, renamed=renamed, erased=arrived.erased)
                self._db.executemany(_REJECT, [one.as_row() for one in rejected])
                blobs.note(self._db, self.folder, named=(*arrived.fresh, *arrived.others), gone=arrived.gone)
        return stored

    def write(self, action: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do something else in one durable commit.

        Raises:
            SyncError: the disk refused; nothing was done.
        """
        with self._mutex, self._transaction():
            return action(self._db)

    def file_rows(self, most: int) -> int:
        """Note the hour of events that an older ingest stored; gives how many it was, at most ``most``.

        Raises:
            SyncError: the disk refused.
        """
        with self._mutex, self._transaction():
            return schema.file_rows(self._db, most)

    def settle(self, keys: Iterable[merged.MergedKey]) -> int:
        """Delete events that are in Parquet now, and keep their keys; gives how many were still here.

        Raises:
            SyncError: the disk refused; nothing was deleted.
        """
        with self._mutex, self._transaction():
            return merged.settle(self._db, keys)

    def forget(self, tombstone: Forgotten) -> int:
        """Delete what is here of a device and a time, and take no more of it; gives how many events were deleted.

        Raises:
            SyncError: the disk refused; nothing was deleted.
        """
        with self._mutex:
            with self._transaction():
                deleted = erasures.forget(self._db, tombstone)
                blobs.forget(self._db, self.folder, tombstone)
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log holds copies of rows
            self._arrivals.reload()
        return deleted

    def tombstones(self) -> tuple[Forgotten, ...]:
        """What is not taken any more."""
        with self._mutex:
            return erasures.tombstones(self._db)

    def retained_from(self, tenant: str) -> str:
        """The first hour that is kept of a tenant, or of all (empty), as it was last said; empty if it never was."""
        with self._mutex:
            return erasures.retained_from(self._db, tenant)

    def retain(self, tenant: str, from_hour: str) -> int:
        """Delete what is older than an hour, and take no more of it; an empty tenant means all of them.

        Raises:
            SyncError: the disk refused; nothing was deleted.
        """
        with self._mutex:
            with self._transaction():
                deleted = erasures.retain(self._db, tenant, from_hour)
                blobs.retain(self._db, self.folder, tenant, from_hour)
            self._arrivals.reload()
        return deleted

    def close(self) -> None:
        """Close the database and free the folder; a second call does nothing."""
        with self._mutex:
            self._db.close()
            self._lock.close()

    def _others(self, landed: Sequence[Landed]) -> list[Landed]:
        """Those that are not there although their ids are."""
        return [one for one in landed if not self._db.execute(_IS_THERE, one.place).fetchone()]

    def _keep(self, renamed: Landed) -> bool:
        """Store an event under an id of its own; whether it was new."""
        source, name = str(renamed.row[0]), str(renamed.row[1])
        if merged.is_renamed_merged(self._db, source, name):
            return False
        return bool(self._db.execute(_INSERT, renamed.row).rowcount)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if not isinstance(error, sqlite3.Error) or isinstance(error, OF_THE_CONTENT):
                raise  # not the disk: no use in trying the same again
            raise SyncError(f"{self.path} cannot be written: {error}", "Free disk space; nothing is lost.") from error

    def _open(self) -> sqlite3.Connection:
        try:
            make_private_file(self.path)
            # Opened here, so that errors come early, and used by one thread at a time (`_mutex`).
            db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA secure_delete=ON")  # merged rows too: what is forgotten later must not lie in free pages
            schema.prepare(db)
        except (sqlite3.Error, OSError) as error:
            self._lock.close()
            raise SyncError(
                f"{self.path} cannot be opened: {error}", "Move it away if it is damaged; it is not deleted."
            ) from error
        except SyncError:
            db.close()
            self._lock.close()
            raise
        return db
