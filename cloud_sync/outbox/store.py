"""What the StoreThread does: commits, and how it survives a full disk and a damaged file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from edgecv.cloud_sync.acks import AckRange, Key
from edgecv.cloud_sync.outbox.database import Claim, OutboxDb, Row
from edgecv.cloud_sync.outbox.disk import DiskGuard
from edgecv.cloud_sync.outbox.limits import OutboxLimits
from edgecv.cloud_sync.outbox.salvage import quarantine
from edgecv.cloud_sync.stats import SyncStats
from edgecv.errors import OutboxCorrupt
from edgecv.protocols import Clock

_T = TypeVar("_T")
_MAX_OWED = 10_000
_FULL = "the outbox is full"


class OutboxStore:
    """The file ``outbox.db`` in a folder, with its safety net; belongs to one thread.

    ``clock`` gives UTC nanoseconds, for times to live and the names of damaged files.

    Raises:
        OutboxCorrupt: a damaged file could not even be moved aside.
        sqlite3.Error: the file cannot be opened for another reason.
    """

    def __init__(self, folder: Path, limits: OutboxLimits, clock: Clock) -> None:
        self._path = folder / "outbox.db"
        self._quota_bytes = limits.quota_bytes
        self._clock = clock
        self._counts = SyncStats()
        self._owed: list[AckRange] = []
        self._trouble = ""  # why rows are refused now; empty once they are stored again
        self._refused_at = 0  # bytes in use when rows were last refused
        self._guard = DiskGuard(folder, floor_bytes=limits.floor_bytes, ballast_bytes=limits.ballast_bytes)
        self._guard.is_low()
        try:
            self._db = self._open()
        except sqlite3.OperationalError:
            if not self._guard.drop_ballast():
                raise
            self._db = self._open()
        except sqlite3.DatabaseError as error:
            self._db = self._replace_damaged(error, boot=None)

    @property
    def boot(self) -> int:
        """The number that tells this opening of the file from earlier ones."""
        return self._db.boot

    @property
    def owes(self) -> bool:
        """Whether deletions wait for the disk to recover."""
        return bool(self._owed)

    def counts(self) -> SyncStats:
        """The counts of the store at this moment; its trouble counts before what happened earlier."""
        now = self._db.counts()
        if self._trouble == _FULL and now.used_bytes < self._refused_at:
            self._trouble = ""  # events were delivered, or their time was over: there is room again
        return SyncStats(last_error=self._trouble) + self._counts + now

    def commit(self, rows: Sequence[Row], done: Sequence[AckRange]) -> None:
        """Store rows and delete acknowledged ones, durably; rows that cannot be stored are counted as refused."""
        done = [*self._owed, *done]
        self._owed = []
        low = bool(rows) and self._guard.is_low()
        now_ns = self._clock()
        try:
            written = self._survive(lambda db: db.write(() if low else rows, done, now_ns))
        except sqlite3.Error as error:
            self._owed = done[:_MAX_OWED]
            self._count(SyncStats(refused=len(rows)))
            self._trouble = f"the disk failed: {error}"
            return
        self._count(written)
        if low:
            self._count(SyncStats(refused=len(rows)))
        if rows:
            self._trouble = "the disk is almost full" if low else _FULL if written.refused else ""
            self._refused_at = self._db.counts().used_bytes

    def claim(self, *, limit: int, max_bytes: int, priorities: int, backlog: bool = True) -> Claim:
        """Claim rows as ``OutboxDb.claim`` does, after the expired ones were dropped, if the disk lets them go."""
        now_ns = self._clock()
        with suppress(sqlite3.OperationalError):  # a full disk must not keep what it holds from being sent
            self._count(SyncStats(expired=self._survive(lambda db: db.drop_expired(now_ns))))
        return self._survive(
            lambda db: db.claim(limit=limit, max_bytes=max_bytes, priorities=priorities, backlog=backlog)
        )

    def mark_backlog(self) -> None:
        """What is unclaimed now is backlog, as ``OutboxDb.mark_backlog`` says."""
        self._db.mark_backlog()

    def rewind(self) -> None:
        """Offer every remaining row again, as ``OutboxDb.rewind`` does."""
        self._db.rewind()

    def bury(self, key: Key, reason: str) -> bool:
        """Keep a row but never send it again, as ``OutboxDb.bury`` does."""
        return self._survive(lambda db: db.bury(key, reason))

    def close(self) -> None:
        """Close the file; a disk that fails now has everything that was accepted anyway."""
        try:
            self._db.close()
        except sqlite3.Error as error:
            self._count(SyncStats(last_error=str(error)))

    def _open(self, boot: int | None = None) -> OutboxDb:
        return OutboxDb(self._path, quota_bytes=self._quota_bytes, boot=boot)

    def _survive(self, action: Callable[[OutboxDb], _T]) -> _T:
        try:
            return action(self._db)
        except sqlite3.OperationalError:
            if not self._guard.drop_ballast():
                raise
        except sqlite3.DatabaseError as error:
            boot = self._db.boot
            self._db.abandon()
            self._db = self._replace_damaged(error, boot)
        return action(self._db)

    def _replace_damaged(self, error: sqlite3.Error, boot: int | None) -> OutboxDb:
        try:
            salvage = quarantine(self._path, self._clock())
        except OSError as failure:
            raise OutboxCorrupt(
                f"The outbox {self._path} is damaged ({error}) and cannot be moved aside: {failure.strerror}.",
                "Move it away by hand; nothing was deleted.",
            ) from failure
        db = self._open(boot)
        db.insert_salvaged(salvage.rows)
        self._count(
            SyncStats(
                last_error=f"damaged ({error}); kept as {salvage.kept_as.name}",
                quarantined_files=1,
                salvaged=len(salvage.rows),
                lost=salvage.bad_rows + salvage.unreadable_rows,
            )
        )
        return db

    def _count(self, more: SyncStats) -> None:
        self._counts = more + self._counts  # in this order: of two errors the newer one stays
