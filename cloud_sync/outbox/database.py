"""The outbox file: rows ``(boot, seq)`` in SQLite, used by one thread only."""

from __future__ import annotations

import secrets
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgecv.cloud_sync.acks import AckRange, Key
from edgecv.cloud_sync.envelope import PRIORITIES
from edgecv.cloud_sync.outbox.disk import make_private_file

PAGE_BYTES = 4096
_BOOT_BITS = 53  # what a JSON number holds exactly in every reader
ROW_OVERHEAD_BYTES = 96  # keys, index entries and cell headers of a row, measured on 100,000 small rows

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    n INTEGER PRIMARY KEY, boot INTEGER NOT NULL, seq INTEGER NOT NULL, lane INTEGER NOT NULL,
    body BLOB NOT NULL, crc INTEGER NOT NULL, expires_ns INTEGER, dead TEXT, UNIQUE (boot, seq));
CREATE INDEX IF NOT EXISTS outbox_by_lane ON outbox (lane, n) WHERE dead IS NULL;
"""

# One flipped bit can turn a BLOB into TEXT or a number into NULL; the checksum shall find that, not a TypeError.
_READ = "n, " + ", ".join(
    f"IFNULL(CAST({name} AS {kind}), {default})"
    for name, kind, default in (
        ("boot", "INTEGER", "-1"),
        ("seq", "INTEGER", "-1"),
        ("body", "BLOB", "x''"),
        ("expires_ns", "INTEGER", "NULL"),
        ("crc", "INTEGER", "-1"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One encoded event and where it stands in the queue.

    Attributes:
        priority: Position in ``PRIORITIES``.
        body: The envelope as JSON.
        expires_ns: UTC nanoseconds after which it is worthless, or ``None``.
    """

    boot: int
    seq: int
    priority: int
    body: bytes
    expires_ns: int | None = None

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
class WriteOutcome:
    """What one commit did.

    Attributes:
        stored: Per row of the request: whether it is on disk now.
        removed: Rows deleted because they were acknowledged.
        evicted: Rows of lower priority given up for the new ones.
    """

    stored: tuple[bool, ...]
    removed: int
    evicted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Rows of one priority to send, and how many were found worthless on the way to them."""

    rows: tuple[Row, ...] = ()
    expired: int = 0
    corrupt: int = 0


class OutboxDb:
    """One SQLite connection; every method belongs to the thread that made it.

    Claimed rows are remembered as one position per priority, in memory: after a restart everything not acknowledged is
    sent again, and ingest absorbs what it already has.

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
        self._positions = [-1] * len(PRIORITIES)

    def close(self) -> None:
        """Fold the WAL into the file and close."""
        try:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self._db.close()

    def abandon(self) -> None:
        """Close without another write: the file is damaged."""
        self._db.close()

    @property
    def pending(self) -> int:
        """Rows waiting to be acknowledged."""
        return self._pending

    @property
    def dead(self) -> int:
        """Rows kept on disk although they can never be delivered."""
        return self._dead

    @property
    def used_bytes(self) -> int:
        """What the rows cost against the quota."""
        return self._used_bytes

    def write(self, rows: Sequence[Row], done: Sequence[AckRange]) -> WriteOutcome:
        """Delete what was acknowledged and store new rows, in one durable commit."""
        with self._transaction():
            removed = sum(self._delete_range(ack) for ack in done)
            evicted = 0
            stored = []
            for row in rows:
                evicted += self._make_room(row)
                stored.append(self._used_bytes + row.cost_bytes <= self._quota_bytes)
                if stored[-1]:
                    self._insert(row)
        return WriteOutcome(stored=tuple(stored), removed=removed, evicted=evicted)

    def claim(self, *, limit: int, max_bytes: int, priorities: int, now_ns: int) -> Claim:
        """The oldest unclaimed rows of the most urgent priority that has any, among the first ``priorities``.

        At least one row comes even when it alone is larger than ``max_bytes``.
        """
        for priority in range(priorities):
            found = self._unclaimed(priority, limit, max_bytes)
            if found:
                claim = self._without_worthless(found, now_ns)
                self._positions[priority] = found[-1][0]
                return claim
        return Claim()

    def rewind(self) -> None:
        """Forget what was claimed: everything that is still here is offered again."""
        self._positions = [-1] * len(PRIORITIES)

    def bury(self, key: Key, reason: str) -> bool:
        """Keep a row on disk but never send it again; ``False`` when it is gone or buried already."""
        found = self._db.execute("SELECT n FROM outbox WHERE boot=? AND seq=? AND dead IS NULL", key).fetchone()
        if found is None:
            return False
        with self._transaction():
            self._bury(found[0], reason)
        return True

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

    def _delete_range(self, ack: AckRange) -> int:
        gone = self._db.execute(
            "DELETE FROM outbox WHERE boot=? AND seq BETWEEN ? AND ? AND dead IS NULL RETURNING LENGTH(body)", ack
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
            yield from self._db.execute(
                "SELECT n, LENGTH(body), 0 FROM outbox WHERE lane=? AND n>? AND dead IS NULL ORDER BY n",
                (lower, self._positions[lower]),
            )

    def _unclaimed(self, priority: int, limit: int, max_bytes: int) -> list[tuple[int, Row, int]]:
        cursor = self._db.execute(
            f"SELECT {_READ} FROM outbox WHERE lane=? AND n>? AND dead IS NULL ORDER BY n LIMIT ?",  # noqa: S608
            (priority, self._positions[priority], limit),
        )
        found: list[tuple[int, Row, int]] = []
        for n, boot, seq, body, expires_ns, crc in cursor:
            max_bytes -= len(body)
            if found and max_bytes < 0:
                break
            found.append((n, Row(boot=boot, seq=seq, priority=priority, body=body, expires_ns=expires_ns), crc))
        cursor.close()
        return found

    def _without_worthless(self, found: Sequence[tuple[int, Row, int]], now_ns: int) -> Claim:
        corrupt = [(n, row) for n, row, crc in found if row.crc != crc]
        sound = [(n, row) for n, row, crc in found if row.crc == crc]
        expired = [(n, row) for n, row in sound if row.expires_ns is not None and row.expires_ns <= now_ns]
        if corrupt or expired:
            with self._transaction():
                for n, _ in corrupt:
                    self._bury(n, "crc")
                for n, row in expired:
                    self._forget(n, row)
        gone = {n for n, _ in expired}
        rows = tuple(row for n, row in sound if n not in gone)
        return Claim(rows=rows, expired=len(expired), corrupt=len(corrupt))

    def _forget(self, n: int, row: Row) -> None:
        self._db.execute("DELETE FROM outbox WHERE n=?", (n,))
        self._pending -= 1
        self._used_bytes -= row.cost_bytes

    def _bury(self, n: int, reason: str) -> None:
        self._db.execute("UPDATE outbox SET dead=? WHERE n=?", (reason, n))
        self._pending -= 1
        self._dead += 1
