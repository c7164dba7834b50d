"""What the StoreThread does: commits, and how it survives a full disk and a damaged file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from edgecv.cloud_sync.acks import AckRange, Key
from edgecv.cloud_sync.envelope import PRIORITIES
from edgecv.cloud_sync.outbox.accounts.losses import Loss, LossLedger
from edgecv.cloud_sync.outbox.database import Claim, OutboxDb
from edgecv.cloud_sync.outbox.disk import DiskGuard
from edgecv.cloud_sync.outbox.limits import OutboxLimits
from edgecv.cloud_sync.outbox.rows import Row
from edgecv.cloud_sync.outbox.salvage import Saved, Wreck, finish_replacing, open_wreck, replace_damaged, saving_path
from edgecv.cloud_sync.stats import SyncStats
from edgecv.errors import OutboxCorrupt
from edgecv.protocols import Clock

_T = TypeVar("_T")
_FAILURES = (sqlite3.Error, OutboxCorrupt)
_MAX_OWED = 10_000
_FULL = "the outbox is full"
_SAVED_ROWS = 1000  # of a damaged file, in one commit ...
_SAVED_BYTES = 4 * 1024 * 1024  # ... or so many bytes


class OutboxStore:
    """The file ``outbox.db`` in a folder, with its safety net; belongs to one thread.

    ``clock`` gives UTC nanoseconds, for times to live and the names of damaged files.

    Raises:
        OutboxCorrupt: a damaged file could not even be moved aside.
        sqlite3.Error: the file cannot be opened for another reason.
    """

    def __init__(self, folder: Path, limits: OutboxLimits, clock: Clock) -> None:
        self.path = folder / "outbox.db"
        self._limits = limits
        self._clock = clock
        self._counts = SyncStats()
        self._owed: list[AckRange] = []
        self._forgot = False  # whether so many acknowledgements came that some were left out
        self._lost = LossLedger()  # what the ledger on disk does not know yet
        self._trouble = ""  # why rows are refused now; empty once they are stored again
        self._refused_at = 0  # bytes in use when rows were last refused
        self._guard = DiskGuard(folder, floor_bytes=limits.floor_bytes, ballast_bytes=limits.ballast_bytes)
        self._guard.is_low()
        finish_replacing(self.path, self._aside())
        try:
            self._db = self._open()
        except sqlite3.OperationalError:
            if not self._guard.drop_ballast():
                raise
            self._db = self._open()
        except sqlite3.DatabaseError as error:
            self._db = self._replace_damaged(error)

    @property
    def boot(self) -> int:
        """The number that tells this opening of the file from earlier ones."""
        return self._db.boot

    @property
    def is_unchecked(self) -> bool:
        """Whether the file was too large to be checked when it was opened."""
        return self._db.is_unchecked

    @property
    def replaced(self) -> int:
        """How many damaged files were replaced until now."""
        return self._counts.quarantined_files

    @property
    def owes(self) -> bool:
        """Whether something waits to be written: deletions that a bad disk postponed or that were too many, or losses."""
        return bool(self._owed or self._lost or self._forgot)

    def counts(self) -> SyncStats:
        """The counts of the store at this moment; its trouble counts before what happened earlier."""
        now = self._db.counts()
        if self._trouble == _FULL and now.used_bytes < self._refused_at:
            self._trouble = ""  # events were delivered, or their time was over: there is room again
        return SyncStats(last_error=self._trouble) + self._counts + now

    def losses(self) -> tuple[Loss, ...]:
        """The loss ledger, with what is not on disk yet."""
        ledger = LossLedger(self._db.losses())
        ledger.add_all(self._lost.all())
        return ledger.all()

    def lose(self, losses: Sequence[Loss]) -> None:
        """Enter losses into the ledger with the next commit."""
        self._lost.add_all(losses)

    def commit(self, rows: Sequence[Row], done: Sequence[AckRange]) -> None:
        """Store rows and delete acknowledged ones, durably; rows that cannot be stored are counted as refused."""
        done = [*self._owed, *done]
        self._owed = []
        trouble = "the disk is almost full" if rows and self._guard.is_low() else ""
        stored = () if trouble else rows
        self._refuse(rows if trouble else ())
        try:
            written = self._write(stored, done)
        except _FAILURES as error:
            trouble = f"the disk failed: {error}"
            self._refuse(stored)
            if not self._write_rest(stored, done):
                self._owed = done[:_MAX_OWED]
                self._forgot |= len(done) > _MAX_OWED
            self._trouble = trouble
            return
        if rows:
            self._trouble = trouble or (_FULL if written.refused else "")
            self._refused_at = self._db.counts().used_bytes

    def _write(self, rows: Sequence[Row], done: Sequence[AckRange]) -> SyncStats:
        """One commit. Ballast gives way to deletions, never to new rows: those would leave nothing to delete with."""
        lost = self._lost.all()
        written = self._survive(lambda db: db.write(rows, done, lost), ballast=not rows)
        self._lost.take()
        self._count(written)
        if self._forgot:  # those events were claimed: nobody would offer them again
            self._forgot = False
            self._db.rewind()
        return written

    def forget_acknowledgements(self) -> None:
        """Offer everything again after the next commit: there were too many acknowledgements to keep, and some are forgotten."""
        self._forgot = True

    def _write_rest(self, refused: Sequence[Row], done: Sequence[AckRange]) -> bool:
        """After rows could not be written: the deletions alone; whether that was possible."""
        if not refused or not done:
            return not done
        try:
            self._write((), done)
        except _FAILURES:
            return False
        return True

    def store_always(self, row: Row) -> bool:
        """Store a row whatever the limits say, but not on a disk that fails or is almost full; whether it was stored."""
        if self._guard.is_low():
            return False
        try:
            self._survive(lambda db: db.store_always(row), ballast=False)
        except _FAILURES:
            return False
        return True

    def claim(self, *, limit: int, max_bytes: int, priorities: int, backlog: bool = True) -> Claim:
        """Claim rows as ``OutboxDb.claim`` does, after the expired ones were dropped, if the disk lets them go."""
        with suppress(sqlite3.OperationalError):  # a full disk must not keep what it holds from being sent
            self._count(SyncStats(expired=self._survive(lambda db: db.drop_expired())))
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

    def retry_dead(self, keys: Collection[Key] | None) -> int:
        """Offer dead letters again, as ``OutboxDb.retry_dead`` does."""
        return self._survive(lambda db: db.retry_dead(keys))

    def damaged(self, error: sqlite3.Error) -> None:
        """Save what can be saved: the file was found damaged."""
        self._db.abandon()
        self._db = self._replace_damaged(error, self._db)
        self._db.mark_backlog()  # what is saved is older than what comes

    def check_failed(self, error: sqlite3.Error, replaced: int) -> None:
        """A check found the file damaged that was here after so many were ``replaced``, which may be gone by now."""
        if replaced == self.replaced:
            with suppress(*_FAILURES):  # without room to save it in: the next action here tries again
                self.damaged(error)

    def close(self) -> None:
        """Close the file; a disk that fails now has everything that was accepted anyway."""
        try:
            if self._lost:
                self._write((), ())
            self._db.close()
        except _FAILURES as error:
            self._count(SyncStats(last_error=str(error)))

    def _open(self, boot: int | None = None) -> OutboxDb:
        return OutboxDb(self.path, self._limits, self._clock, boot)

    def _aside(self) -> Path:
        return self.path.with_name(f"{self.path.name}.corrupt-{self._clock()}")

    def _survive(self, action: Callable[[OutboxDb], _T], *, ballast: bool = True) -> _T:
        try:
            return action(self._db)
        except sqlite3.OperationalError:
            if not ballast or not self._guard.drop_ballast():
                raise
        except sqlite3.DatabaseError as error:
            self.damaged(error)
        return action(self._db)

    def _replace_damaged(self, error: sqlite3.Error, former: OutboxDb | None = None) -> OutboxDb:
        """Another file in place of a damaged one, which ``former`` had open until now."""
        boot = None if former is None else former.boot
        kept_as = self._aside()
        try:
            with open_wreck(self.path) as wreck:
                known = wreck.losses() if former is None else former.losses()
                self._save(wreck, known)
            replace_damaged(self.path, kept_as)
        except OSError as failure:
            raise OutboxCorrupt(
                f"The outbox {self.path} is damaged ({error}) and cannot be replaced: {failure.strerror}.",
                "Make room on the disk, or move the file away by hand; nothing was deleted.",
            ) from failure
        self._count(
            SyncStats(
                last_error=f"damaged ({error}); kept as {kept_as.name}",
                quarantined_files=1,
                salvaged=wreck.saved,
                lost=wreck.lost,
            )
        )
        return self._open(boot)

    def _save(self, wreck: Wreck, known: Sequence[Loss]) -> None:
        """Write the ledger and all that can be read of a damaged file into a new one beside it, a bounded part at a time."""
        db = OutboxDb(saving_path(self.path), self._limits, self._clock)
        try:
            db.insert_saved((), known)
            part: list[Saved] = []
            part_bytes = 0
            for saved in wreck.rows():
                part.append(saved)
                part_bytes += saved.row.cost_bytes
                if len(part) >= _SAVED_ROWS or part_bytes >= _SAVED_BYTES:
                    db.insert_saved(part)
                    part, part_bytes = [], 0
            gone = LossLedger()
            gone.add("corrupt", "", wreck.lost, self._clock())
            db.insert_saved(part, gone.all())
        finally:
            db.close()

    def _refuse(self, rows: Sequence[Row]) -> None:
        self._count(SyncStats(refused=len(rows)))
        now_ns = self._clock()
        for row in rows:
            self._lost.add("refused_disk", PRIORITIES[row.priority], 1, now_ns)

    def _count(self, more: SyncStats) -> None:
        self._counts = more + self._counts  # in this order: of two errors the newer one stays
