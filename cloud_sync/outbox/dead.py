"""Dead letters: events that stay on disk and are not offered, until somebody retries them or newer ones need the room."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence

from edgecv.cloud_sync.acks import Key
from edgecv.cloud_sync.outbox.accounts.books import Books
from edgecv.cloud_sync.outbox.accounts.tally import DEAD
from edgecv.cloud_sync.outbox.rows import READ, Row
from edgecv.protocols import Clock

DAMAGED = "crc"  # the reason of those whose checksum does not hold


class DeadLetters:
    """Those of one open file. Its methods run within a transaction of the ``Books``.

    Raises:
        sqlite3.Error: from every method.
    """

    def __init__(self, db: sqlite3.Connection, books: Books, *, most_bytes: int, clock: Clock) -> None:
        self._db = db
        self._books = books
        self._most_bytes = most_bytes
        self._clock = clock

    def bury(self, where: str, values: Sequence[int], reason: str) -> int:
        """Bury the rows of a condition; says how many. Beyond their bound those that died first are deleted."""
        buried = self._db.execute(
            f"UPDATE outbox SET dead=?, died_ns=? WHERE dead IS NULL AND {where} RETURNING lane, LENGTH(body)",  # noqa: S608 (our own text)
            (reason, self._clock(), *values),
        ).fetchall()
        for lane, size in buried:
            self._books.tally.move(lane, DEAD, size)
            if reason == DAMAGED:
                self._books.lose("corrupt", lane)
        if buried:
            self._trim()
        return len(buried)

    def retry(self, keys: Collection[Key] | None) -> int:
        """Offer dead letters again, all or those of ``keys``; says how many. What is damaged stays dead.

        Whoever retries an event says that it is worth sending: its time to live does not count any more.
        """
        query = f"SELECT {READ}, lane FROM outbox WHERE dead IS NOT NULL ORDER BY n"  # noqa: S608 (our own text)
        retried = 0
        for n, boot, seq, body, crc, lane in self._db.execute(query).fetchall():
            row = Row(boot=boot, seq=seq, priority=lane, body=body)
            if row.crc != crc or (keys is not None and row.key not in keys):
                continue
            self._books.last_n += 1  # behind what was claimed by now
            self._db.execute(
                "UPDATE outbox SET n=?, dead=NULL, died_ns=NULL, expires_ns=NULL WHERE n=?",
                (self._books.last_n, n),
            )
            self._books.tally.move(DEAD, lane, len(body))
            retried += 1
        return retried

    def _trim(self) -> None:
        """Delete those that died first, down to what the dead may take; the last one stays."""
        tally = self._books.tally
        query = "SELECT n, lane, LENGTH(body), dead FROM outbox WHERE dead IS NOT NULL ORDER BY died_ns, n LIMIT 1"
        while tally.used[DEAD] > self._most_bytes and tally.rows[DEAD] > 1:
            n, lane, size, reason = self._db.execute(query).fetchone()
            self._db.execute("DELETE FROM outbox WHERE n=?", (n,))
            tally.remove(DEAD, size)
            if reason != DAMAGED:  # that one is in the ledger already
                self._books.lose("dead_evicted", lane)
