"""The outbox file: rows ``(boot, seq)`` in SQLite, used by one thread only."""

from __future__ import annotations

import secrets
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edgecv._internal.private_files import make_private_file
from edgecv.cloud_sync.acks import AckRange, Key
from edgecv.cloud_sync.envelope import PRIORITIES
from edgecv.cloud_sync.outbox.positions import Positions, Span
from edgecv.cloud_sync.stats import SyncStats

PAGE_BYTES = 4096
_BOOT_BITS = 53  # what a JSON number holds exactly in every reader
ROW_OVERHEAD_BYTES = 96  # keys, index entries and cell headers of a row, measured on 100,000 small rows

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    n INTEGER PRIMARY KEY, boot INTEGER NOT NULL, seq INTEGER NOT NULL, lane INTEGER NOT NULL,
    body BLOB NOT NULL, crc INTEGER NOT NULL, expires_ns INTEGER, dead TEXT, UNIQUE (boot, seq));
CREATE INDEX IF NOT EXISTS outbox_by_lane ON outbox (lane, n) WHERE dead IS NULL;
CREATE INDEX IF NOT EXISTS outbox_by_end ON outbox (expires_ns) WHERE expires_ns IS NOT NULL;
"""

_EXPIRED = "expires_ns <= ?"

# One flipped bit can turn a BLOB into TEXT or a number into NULL; the checksum shall find that, not a TypeError.
_READ = "n, " + ", ".join(
    f"IFNULL(CAST({name} AS {kind}), {default})"
    for name, kind, default in (
        ("boot", "INTEGER", "-1"),
        ("seq", "INTEGER", "-1"),
        ("body", "BLOB", "x''"),
        ("crc", "INTEGER", "-1"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One encoded event and where it stands in the queue."""

    boot: int
    seq: int
    priority: int  # position in `PRIORITIES`
    body: bytes  # the envelope as JSON
    expires_ns: int | None = None  # UTC nanoseconds after which it is worthless, or `None`

    @property
    def key(self) -> Key:
        return (self.boot, self.seq)

    @property
    def crc(self) -> int:
        """Covers the key too: a flipped bit there would give the event another name."""
        return zlib.crc32(self.body, zlib.crc32(b"%d:%d:" % self.key))

    @property
    def cost_bytes(self) -> int:
        return len(self.body) + ROW_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Rows of one priority to send, and how many were found damaged on the way to them."""

    rows: tuple[Row, ...] = ()
    corrupt: int = 0
    backlog: bool = False  # whether they lay there before the last ``mark_backlog``


class OutboxDb:
    """One SQLite connection; every method belongs to the thread that made it.

    Claims are remembered in memory: after a restart everything not acknowledged is sent again, and ingest absorbs it.

    Raises:
        sqlite3.Error: from every method; the caller tells damage from a full disk.
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path, *, quota_bytes: int, boot: int | None = None) -> None:
        self._quota_bytes = quota_bytes
        make_private_file(path)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        try:
            self._configure()
            self.boot = self._new_boot() if boot is None else boot
            self._measure()
        except BaseException:
            self._db.close()
            raise
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
        return SyncStats(pending=self._pending, dead=self._dead, used_bytes=self._used_bytes)

    def write(self, rows: Sequence[Row], done: Sequence[AckRange], now_ns: int) -> SyncStats:
        """Delete what was acknowledged and what expired, and store new rows, in one durable commit; says what it did."""
        accepted = evicted = 0
        with self._transaction():
            acknowledged = sum(self._delete("boot=? AND seq BETWEEN ? AND ?", *ack) for ack in done)
            expired = self._delete(_EXPIRED, now_ns)
            for row in rows:
                evicted += self._make_room(row)
                if self._used_bytes + row.cost_bytes <= self._quota_bytes:
                    self._insert(row)
                    accepted += 1
        return SyncStats(
            accepted=accepted,
            refused=len(rows) - accepted,
            acknowledged=acknowledged,
            evicted=evicted,
            expired=expired,
        )

    def drop_expired(self, now_ns: int) -> int:
        """Delete rows whose time is over; says how many."""
        if self._db.execute(f"SELECT 1 FROM outbox WHERE dead IS NULL AND {_EXPIRED} LIMIT 1", (now_ns,)).fetchone():  # noqa: S608
            with self._transaction():
                return self._delete(_EXPIRED, now_ns)
        return 0

    def claim(self, *, limit: int, max_bytes: int, priorities: int, backlog: bool = True) -> Claim:
        """The oldest unclaimed rows of the most urgent priority that has any, among the first ``priorities``.

        Of other rows than alarms, those after the last ``mark_backlog`` come first; without ``backlog`` they alone do. At
        least one row comes even when it alone is larger than ``max_bytes``.
        """
        for lane, span in self._positions.in_order(priorities, backlog=backlog):
            if found := self._unclaimed(lane, span, limit, max_bytes):
                span.after = found[-1][0]
                return replace(self._sound(found), backlog=span.is_backlog)
            self._positions.emptied(lane, span)
        return Claim()

    def mark_backlog(self) -> None:
        """What is unclaimed now is backlog: whatever comes later is claimed before it."""
        self._positions.mark(self._last_n)

    def rewind(self) -> None:
        """Forget what was claimed: everything that is still here is offered again, as backlog."""
        self._positions.rewind(self._last_n)

    def bury(self, key: Key, reason: str) -> bool:
        """Keep a row on disk but never send it again; ``False`` when it is gone or buried already."""
        with self._transaction():
            return bool(self._bury("boot=? AND seq=?", key, reason))

    def insert_salvaged(self, rows: Sequence[Row]) -> None:
        """Put rows of a damaged file back, whatever the quota says."""
        with self._transaction():
            for row in rows:
                self._insert(row)

    def _configure(self) -> None:
        run = self._db.execute
        run(f"PRAGMA page_size={PAGE_BYTES}")
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=FULL")
        run("PRAGMA wal_autocheckpoint=256")
        run(f"PRAGMA journal_size_limit={1024 * PAGE_BYTES}")
        # A backstop: the quota itself is kept by counting, long before pages run out.
        run(f"PRAGMA max_page_count={2 * self._quota_bytes // PAGE_BYTES + 1024}")
        if run("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("quick_check failed")
        self._db.executescript(_SCHEMA)

    def _new_boot(self) -> int:
        """At random, and never one of the rows.

        A counter in the file would repeat itself when the file is an old one: restored from an image or a backup, or thrown
        away with the upper layer of an overlay file system. Events under the keys of others look like repetitions.
        """
        while True:
            boot = 1 + secrets.randbits(_BOOT_BITS)
            if self._db.execute("SELECT 1 FROM outbox WHERE boot=? LIMIT 1", (boot,)).fetchone() is None:
                return boot

    def _measure(self) -> None:
        count, size, dead, last = self._db.execute(
            "SELECT COUNT(*), IFNULL(SUM(LENGTH(body)), 0), COUNT(dead), IFNULL(MAX(n), 0) FROM outbox"
        ).fetchone()
        self._pending: int = count - dead
        self._dead: int = dead
        self._used_bytes: int = size + count * ROW_OVERHEAD_BYTES
        # Ours, not SQLite's: that would start again at 1 once the table is empty, behind the claimed positions.
        self._last_n: int = last

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        before = (self._pending, self._dead, self._used_bytes, self._last_n)
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._pending, self._dead, self._used_bytes, self._last_n = before
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _insert(self, row: Row) -> None:
        self._last_n += 1
        inserted = self._db.execute(
            "INSERT INTO outbox (n, boot, seq, lane, body, crc, expires_ns) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (boot, seq) DO NOTHING",
            (self._last_n, row.boot, row.seq, row.priority, row.body, row.crc, row.expires_ns),
        ).rowcount
        if not inserted:
            return
        self._pending += 1
        self._used_bytes += row.cost_bytes

    def _delete(self, where: str, *values: int) -> int:
        gone = self._db.execute(
            f"DELETE FROM outbox WHERE dead IS NULL AND {where} RETURNING LENGTH(body)",  # noqa: S608 (our own text)
            values,
        ).fetchall()
        self._pending -= len(gone)
        self._used_bytes -= sum(size + ROW_OVERHEAD_BYTES for (size,) in gone)
        return len(gone)

    def _make_room(self, row: Row) -> int:
        """Evict dead rows, then unclaimed rows of lower priority, until ``row`` fits; nothing when it cannot."""
        missing = self._used_bytes + row.cost_bytes - self._quota_bytes
        if missing <= 0:
            return 0
        victims: list[tuple[int, int, int]] = []
        for victim in self._victims(row.priority):
            victims.append(victim)
            missing -= victim[1] + ROW_OVERHEAD_BYTES
            if missing <= 0:
                break
        if missing > 0:
            return 0
        for n, size, dead in victims:
            self._db.execute("DELETE FROM outbox WHERE n=?", (n,))
            self._used_bytes -= size + ROW_OVERHEAD_BYTES
            self._dead -= dead
            self._pending -= 1 - dead
        return len(victims)

    def _victims(self, priority: int) -> Iterator[tuple[int, int, int]]:
        if self._dead:
            yield from self._db.execute("SELECT n, LENGTH(body), 1 FROM outbox WHERE dead IS NOT NULL ORDER BY n")
        for lower in range(len(PRIORITIES) - 1, priority, -1):
            for span in self._positions.unclaimed(lower):
                yield from self._db.execute(
                    "SELECT n, LENGTH(body), 0 FROM outbox WHERE lane=? AND n>? AND n<=? AND dead IS NULL ORDER BY n",
                    (lower, span.after, span.last),
                )

    def _unclaimed(self, lane: int, span: Span, limit: int, max_bytes: int) -> list[tuple[int, Row, int]]:
        cursor = self._db.execute(
            f"SELECT {_READ} FROM outbox WHERE lane=? AND n>? AND n<=? AND dead IS NULL ORDER BY n LIMIT ?",  # noqa: S608
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
            with self._transaction():
                for n in corrupt:
                    self._bury("n=?", (n,), "crc")
        return Claim(rows=rows, corrupt=len(corrupt))

    def _bury(self, where: str, values: Sequence[int], reason: str) -> int:
        query = f"UPDATE outbox SET dead=? WHERE dead IS NULL AND {where}"  # noqa: S608 (our own text)
        buried = self._db.execute(query, (reason, *values)).rowcount
        self._pending -= buried
        self._dead += buried
        return buried
