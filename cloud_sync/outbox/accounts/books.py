"""What an outbox file keeps of itself beside its rows: how much there is, and what was lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from edgecv.cloud_sync.envelope import PRIORITIES
from edgecv.cloud_sync.outbox.accounts.losses import LossLedger, Reason, read_losses, write_losses
from edgecv.cloud_sync.outbox.accounts.tally import Tally, read_tally, write_tally
from edgecv.protocols import Clock


class Books:
    """The tally and the ledger of an open file, in memory and, with every commit, on disk.

    Raises:
        sqlite3.Error: from every method.
    """

    def __init__(self, db: sqlite3.Connection, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self.tally = read_tally(db)
        self.losses = LossLedger(read_losses(db))
        # Ours, not SQLite's: that would start again at 1 once the table is empty, behind the claimed positions.
        self.last_n: int = db.execute("SELECT IFNULL(MAX(n), 0) FROM outbox").fetchone()[0]
        self._written: Tally | None = None  # the tally in the file, once it is known to be this one
        with suppress(sqlite3.OperationalError), self.transaction():  # a full disk: with a later commit
            pass

    def lose(self, reason: Reason, lane: int) -> None:
        """Enter one event that is lost."""
        self.losses.add(reason, PRIORITIES[lane], 1, self._clock())

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One durable commit, of rows and books together; when it fails, neither has changed."""
        tally, losses, last_n = self.tally.copy(), self.losses.all(), self.last_n
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            write_tally(self._db, self.tally, self._written)
            write_losses(self._db, self.losses.all(), losses)
            self._db.execute("COMMIT")
        except BaseException:
            self.tally, self.losses, self.last_n = tally, LossLedger(losses), last_n
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._written = self.tally.copy()
