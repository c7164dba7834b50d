"""What the StoreThread does: commits, and how it survives a full disk and a damaged file."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from edgecv.cloud_sync.acks import AckRange, Key
from edgecv.cloud_sync.outbox.database import Claim, OutboxDb, Row
from edgecv.cloud_sync.outbox.disk import DiskGuard
from edgecv.cloud_sync.outbox.salvage import quarantine
from edgecv.errors import OutboxCorrupt
from edgecv.protocols import Clock

_T = TypeVar("_T")
_MAX_OWED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The part of ``OutboxStats`` that the disk decides."""

    accepted: int = 0
    refused: int = 0
    pending: int = 0
    acknowledged: int = 0
    evicted: int = 0
    expired: int = 0
    dead: int = 0
    used_bytes: int = 0
    quarantined_files: int = 0
    salvaged: int = 0
    lost: int = 0
    last_error: str = ""


class OutboxStore:
    """The outbox file with its safety net; belongs to one thread.

    Args:
        folder: Where ``outbox.db`` lies.
        quota_bytes: For the rows.
        floor_bytes: Free space below which no new row is taken.
        ballast_bytes: Freed when the disk is full.
        clock: UTC nanoseconds, to name damaged files.

    Raises:
        OutboxCorrupt: a damaged file could not even be moved aside.
        sqlite3.Error: the file cannot be opened for another reason.
    """

    def __init__(
        self, folder: Path, *, quota_bytes: int, floor_bytes: int, ballast_bytes: int, clock: Clock = time.time_ns
    ) -> None:
        self._path = folder / "outbox.db"
        self._quota_bytes = quota_bytes
        self._clock = clock
        self._counts = Counts()
        self._owed: list[AckRange] = []
        self._guard = DiskGuard(folder, floor_bytes=floor_bytes, ballast_bytes=ballast_bytes, now_s=time.monotonic)
        self._guard.is_low()
        try:
            self._db = OutboxDb(self._path, quota_bytes=quota_bytes)
        except sqlite3.OperationalError:
            if not self._guard.drop_ballast():
                raise
            self._db = OutboxDb(self._path, quota_bytes=quota_bytes)
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

    def counts(self) -> Counts:
        """The counts of the store at this moment."""
        db = self._db
        return replace(self._counts, pending=db.pending, dead=db.dead, used_bytes=db.used_bytes)

    def commit(self, rows: Sequence[Row], done: Sequence[AckRange]) -> list[str]:
        """Store rows and delete acknowledged ones, durably.

        Returns:
            Per row why it was refused, empty for a stored one.
        """
        done = [*self._owed, *done]
        self._owed = []
        low = bool(rows) and self._guard.is_low()
        try:
            outcome = self._survive(lambda db: db.write(() if low else rows, done))
        except sqlite3.Error as error:
            self._owed = done[:_MAX_OWED]
            self._count(last_error=str(error), refused=len(rows))
            return [f"the disk failed: {error}"] * len(rows)
        if low:
            reasons = ["the disk is almost full"] * len(rows)
        else:
            reasons = ["" if stored else "the outbox is full" for stored in outcome.stored]
        accepted = reasons.count("")
        self._count(
            accepted=accepted,
            refused=len(rows) - accepted,
            acknowledged=outcome.removed,
            evicted=outcome.evicted,
        )
        return reasons

    def claim(self, *, limit: int, max_bytes: int, priorities: int, now_ns: int) -> Claim:
        """Claim rows as ``OutboxDb.claim`` does, and count the expired ones."""
        claim = self._survive(
            lambda db: db.claim(limit=limit, max_bytes=max_bytes, priorities=priorities, now_ns=now_ns)
        )
        self._count(expired=claim.expired)
        return claim

    def rewind(self) -> None:
        """Offer every remaining row again, as ``OutboxDb.rewind`` does."""
        self._survive(lambda db: db.rewind())

    def bury(self, key: Key, reason: str) -> bool:
        """Keep a row but never send it again, as ``OutboxDb.bury`` does."""
        return self._survive(lambda db: db.bury(key, reason))

    def close(self) -> None:
        """Close the file; a disk that fails now has everything that was accepted anyway."""
        try:
            self._db.close()
        except sqlite3.Error as error:
            self._count(last_error=str(error))

    def _survive(self, action: Callable[[OutboxDb], _T]) -> _T:
        try:
            return action(self._db)
        except sqlite3.OperationalError:
            if not self._guard.drop_ballast():
                raise
        except sqlite3.DatabaseError as error:
            boot = self._db.boot
            self._db.abandon()
            self._db = self._replace_damaged(error, boot=boot)
        return action(self._db)

    def _replace_damaged(self, error: sqlite3.Error, boot: int | None) -> OutboxDb:
        try:
            salvage = quarantine(self._path, self._clock())
        except OSError as failure:
            raise OutboxCorrupt(
                f"The outbox {self._path} is damaged ({error}) and cannot be moved aside: {failure.strerror}.",
                "Move it away by hand; nothing was deleted.",
            ) from failure
        db = OutboxDb(self._path, quota_bytes=self._quota_bytes, boot=boot)
        db.insert_salvaged(salvage.rows)
        self._count(
            last_error=f"damaged ({error}); kept as {salvage.kept_as.name}",
            quarantined_files=1,
            salvaged=len(salvage.rows),
            lost=salvage.bad_rows + salvage.unreadable_rows,
        )
        return db

    def _count(self, *, last_error: str | None = None, **more: int) -> None:
        grown = {name: getattr(self._counts, name) + number for name, number in more.items()}
        error = self._counts.last_error if last_error is None else last_error
        self._counts = replace(self._counts, last_error=error, **grown)
