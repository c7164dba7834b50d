"""The outbox file: rows ``(boot, seq)`` in SQLite, used by one thread only."""

from __future__ import annotations

import secrets
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from edgecv._internal.private_files import make_private_file
from edgecv.cloud_sync.acks import AckRange, Key
from edgecv.cloud_sync.envelope import PRIORITIES
from edgecv.cloud_sync.outbox.accounts.books import Books
from edgecv.cloud_sync.outbox.accounts.losses import Loss
from edgecv.cloud_sync.outbox.accounts.room import Kept, Room
from edgecv.cloud_sync.outbox.accounts.tally import DEAD
from edgecv.cloud_sync.outbox.dead import DAMAGED, DeadLetters
from edgecv.cloud_sync.outbox.limits import OutboxLimits
from edgecv.cloud_sync.outbox.positions import Positions, Span
from edgecv.cloud_sync.outbox.rows import READ, Row
from edgecv.cloud_sync.outbox.salvage import Saved
from edgecv.cloud_sync.outbox.schema import prepare
from edgecv.cloud_sync.stats import SyncStats
from edgecv.protocols import Clock

_BOOT_BITS = 53  # what a JSON number holds exactly in every reader
_EXPIRED = "expires_ns <= ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Rows of one priority to send, and how many were found damaged on the way to them."""

    rows: tuple[Row, ...] = ()
    corrupt: int = 0
    backlog: bool = False  # whether they lay there before the last ``mark_backlog``


class OutboxDb:
    """One SQLite connection; every method belongs to the thread that made it.

    Claims are remembered in memory: after a restart everything not acknowledged is sent again, and ingest absorbs it.
    ``clock`` gives UTC nanoseconds.

    Raises:
        sqlite3.Error: from every method; the caller tells damage from a full disk.
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path, limits: OutboxLimits, clock: Clock, boot: int | None = None) -> None:
        self._room = Room(limits)
        self._clock = clock
        make_private_file(path)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        try:
            self.is_unchecked = prepare(self._db, most_bytes=limits.quota_bytes)
            self.boot = self._new_boot() if boot is None else boot
            self._books = Books(self._db, clock)
        except BaseException:
            self._db.close()
            raise
        self._dead = DeadLetters(self._db, self._books, most_bytes=limits.most_dead_bytes, clock=clock)
        self._positions = Positions(len(PRIORITIES))

    def close(self) -> None:
        """Fold the WAL into the file and close."""
        try:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self._db.close()

    def abandon(self) -> None:
        """Close without another write: the file is damaged."""
        self._db.close()

    def counts(self) -> SyncStats:
        """What is in the file."""
        return SyncStats(
            pending=self._books.tally.pending,
            dead=self._books.tally.rows[DEAD],
            used_bytes=self._books.tally.used_bytes,
        )

    def losses(self) -> tuple[Loss, ...]:
        """The ledger in the file."""
        return self._books.losses.all()

    def write(self, rows: Sequence[Row], done: Sequence[AckRange], lost: Iterable[Loss] = ()) -> SyncStats:
        """Delete what was acknowledged and what expired, and store new rows, in one durable commit; says what it did.

        ``lost`` was counted elsewhere, and goes into the ledger.
        """
        counted: Counter[str] = Counter()
        with self._books.transaction():
            self._books.losses.add_all(lost)
            for ack in done:
                counted["acknowledged"] += len(self._delete("boot=? AND seq BETWEEN ? AND ?", *ack))
            counted["expired"] += self._expire()
            for row in rows:
                self._take(row, counted)
        return SyncStats(
            accepted=counted["accepted"],
            refused=counted["refused"],
            acknowledged=counted["acknowledged"],
            coalesced=counted["coalesced"],
            evicted=counted["evicted"],
            expired=counted["expired"],
        )

    def store_always(self, row: Row) -> None:
        """Store a row, whatever the limits say; it takes the place of an unsent one of its key."""
        with self._books.transaction():
            older = self._older(row) if row.coalesce_key else None
            if older is not None:
                self._remove(older)
            self._insert(row)

    def drop_expired(self) -> int:
        """Delete rows whose time is over; says how many."""
        query = f"SELECT 1 FROM outbox WHERE dead IS NULL AND {_EXPIRED} LIMIT 1"  # noqa: S608 (our own text)
        if self._db.execute(query, (self._clock(),)).fetchone():
            with self._books.transaction():
                return self._expire()
        return 0

    def claim(self, *, limit: int, max_bytes: int, priorities: int, backlog: bool = True) -> Claim:
        """The oldest unclaimed rows of the most urgent priority that has any, among the first ``priorities``.

        Of other rows than alarms, those after the last ``mark_backlog`` come first; without ``backlog`` they alone do. At
        least one row comes even when it alone is larger than ``max_bytes``.
        """
        for lane, span in self._positions.in_order(priorities, backlog=backlog):
            if found := self._unclaimed(lane, span, limit, max_bytes):
                claim = self._sound(found)
                span.after = found[-1][0]  # last: what fails is claimed anew
                return replace(claim, backlog=span.is_backlog)
            self._positions.emptied(lane, span)
        return Claim()

    def mark_backlog(self) -> None:
        """What is unclaimed now is backlog: whatever comes later is claimed before it."""
        self._positions.mark(self._books.last_n)

    def rewind(self) -> None:
        """Forget what was claimed: everything that is still here is offered again, as backlog."""
        self._positions.rewind(self._books.last_n)

    def bury(self, key: Key, reason: str) -> bool:
        """Keep a row on disk but never send it again; ``False`` when it is gone or buried already."""
        with self._books.transaction():
            return bool(self._dead.bury("boot=? AND seq=?", key, reason))

    def retry_dead(self, keys: Collection[Key] | None = None) -> int:
        """Offer dead letters again, all or those of ``keys``; says how many."""
        with self._books.transaction():
            return self._dead.retry(keys)

    def insert_saved(self, rows: Sequence[Saved], losses: Iterable[Loss] = ()) -> None:
        """Put rows and the ledger of a damaged file into this one, whatever the limits say."""
        with self._books.transaction():
            self._books.losses.add_all(losses)
            for saved in rows:
                self._insert(saved.row, saved)

    def _new_boot(self) -> int:
        """At random, and never one of the rows.

        A counter in the file would repeat itself when the file is an old one: restored from an image or a backup, or thrown
        away with the upper layer of an overlay file system. Events under the keys of others look like repetitions.
        """
        while True:
            boot = 1 + secrets.randbits(_BOOT_BITS)
            if self._db.execute("SELECT 1 FROM outbox WHERE boot=? LIMIT 1", (boot,)).fetchone() is None:
                return boot

    def _take(self, row: Row, counted: Counter[str]) -> None:
        """Store a new row if there is room for it, or can be made, and count what it came to."""
        older = self._older(row) if row.coalesce_key else None
        victims = self._room.make(row, older, self._books.tally, self._unsent)
        if victims is None:
            self._books.lose("refused_full", row.priority)
            counted["refused"] += 1
            return
        for victim in victims:
            self._remove(victim)
            self._books.lose("evicted", victim.lane)
        counted["evicted"] += len(victims)
        if older is not None:
            self._remove(older)
            counted["coalesced"] += 1
        self._insert(row)
        counted["accepted"] += 1

    def _older(self, row: Row) -> Kept | None:
        """The unsent row whose place this one takes."""
        query = "SELECT n, lane, LENGTH(body) FROM outbox WHERE coalesce_key=? AND dead IS NULL"
        found = (
            Kept(n=n, lane=lane, body_bytes=size) for n, lane, size in self._db.execute(query, (row.coalesce_key,))
        )
        return next((kept for kept in found if self._positions.is_unclaimed(kept.lane, kept.n)), None)

    def _unsent(self, lane: int) -> Iterator[Kept]:
        query = "SELECT n, LENGTH(body) FROM outbox WHERE lane=? AND n>? AND n<=? AND dead IS NULL ORDER BY n"
        for span in self._positions.unclaimed(lane):
            for n, size in self._db.execute(query, (lane, span.after, span.last)):
                yield Kept(n=n, lane=lane, body_bytes=size)

    def _insert(self, row: Row, saved: Saved | None = None) -> None:
        n = self._books.last_n + 1 if saved is None else saved.n
        self._books.last_n = max(n, self._books.last_n)
        dead, died_ns = (None, None) if saved is None else (saved.dead, saved.died_ns)
        inserted = self._db.execute(
            "INSERT INTO outbox (n, boot, seq, lane, body, crc, expires_ns, coalesce_key, dead, died_ns)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (
                n,
                row.boot,
                row.seq,
                row.priority,
                row.body,
                row.crc,
                row.expires_ns,
                row.coalesce_key or None,
                dead,
                died_ns,
            ),
        ).rowcount
        if inserted:
            self._books.tally.add(row.priority if dead is None else DEAD, len(row.body))

    def _remove(self, kept: Kept) -> None:
        self._db.execute("DELETE FROM outbox WHERE n=?", (kept.n,))
        self._books.tally.remove(kept.lane, kept.body_bytes)

    def _delete(self, where: str, *values: int) -> list[int]:
        """Delete rows that are not dead; says of which lanes they were."""
        gone = self._db.execute(
            f"DELETE FROM outbox WHERE dead IS NULL AND {where} RETURNING lane, LENGTH(body)",  # noqa: S608 (our own text)
            values,
        ).fetchall()
        for lane, size in gone:
            self._books.tally.remove(lane, size)
        return [lane for lane, _ in gone]

    def _expire(self) -> int:
        lanes = self._delete(_EXPIRED, self._clock())
        for lane in lanes:
            self._books.lose("expired", lane)
        return len(lanes)

    def _unclaimed(self, lane: int, span: Span, limit: int, max_bytes: int) -> list[tuple[int, Row, int]]:
        cursor = self._db.execute(
            f"SELECT {READ} FROM outbox WHERE lane=? AND n>? AND n<=? AND dead IS NULL ORDER BY n LIMIT ?",  # noqa: S608
            (lane, span.after, span.last, limit),
        )
        found: list[tuple[int, Row, int]] = []
        for n, boot, seq, body, crc in cursor:
            max_bytes -= len(body)
            if found and max_bytes < 0:
                break
            found.append((n, Row(boot=boot, seq=seq, priority=lane, body=body), crc))
        cursor.close()
        return found

    def _sound(self, found: Sequence[tuple[int, Row, int]]) -> Claim:
        rows = tuple(row for _, row, crc in found if row.crc == crc)
        corrupt = [n for n, row, crc in found if row.crc != crc]
        if corrupt:
            # A disk that cannot be written must not keep the sound ones from being sent. The others are found again.
            with suppress(sqlite3.OperationalError), self._books.transaction():
                for n in corrupt:
                    self._dead.bury("n=?", (n,), DAMAGED)
        return Claim(rows=rows, corrupt=len(corrupt))
