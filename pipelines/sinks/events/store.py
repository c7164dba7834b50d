"""The events file: one SQLite connection that writes, used by one thread at a time."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgecv._internal.private_files import open_private
from edgecv.events import EventMedia
from edgecv.pipelines.sinks.events.ages import AgeClock
from edgecv.pipelines.sinks.events.damage import check_head, is_damage, put_aside
from edgecv.pipelines.sinks.events.rows import Row, plain_text
from edgecv.pipelines.sinks.events.schema import COLUMNS, NS_PER_S, prepare
from edgecv.pipelines.sinks.video.ring_order import Clocks

_BUSY_S = 0.5  # for another program that writes at this moment
_MOST_WAITING = 10_000  # files whose events are not there
_LONGEST_WAIT_NS = 24 * 3600 * NS_PER_S
_INSERT = (
    f"INSERT OR IGNORE INTO events ({', '.join(COLUMNS)}, moment_ns) "  # noqa: S608 (our own text)
    f"VALUES ({', '.join('?' * (len(COLUMNS) + 1))})"
)
_STATE, _TIME = COLUMNS.index("coalesce_key"), COLUMNS.index("time_ns")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is kept: events, and seconds; 0 seconds keep all."""

    events: int
    seconds: float


class EventStore:
    """Events in a private SQLite file in WAL mode: others may read it meanwhile.

    A file that is damaged is put aside, and so is one that turns out to be; a file that was deleted or moved is made anew.

    Raises:
        sqlite3.Error: from every method; nothing was changed.
        OSError: likewise.
        ConfigError: from the constructor: the file is of another kind, or of a newer EdgeCV.
    """

    def __init__(self, path: Path, limits: Limits, clocks: Clocks | None = None) -> None:
        self._path, self._limits, self._clocks = path, limits, clocks or Clocks()
        self._log_holds_deleted = False
        self._open()

    def check(self) -> None:
        """Read every page, and put the file aside where its structure is damaged."""
        self._mended(self._check)

    def write(self, rows: Sequence[Row], media: Sequence[EventMedia]) -> None:
        """Store events and the names of their files in one durable commit; events that are there already stay as they are."""
        if not self._is_in_place():
            self._reopen()
        self._mended(partial(self._write, rows, media))

    def expire(self, longest_s: Mapping[str, float]) -> None:
        """Delete what is too old: of all sources, and of those that allow less."""
        self._mended(partial(self._expire, longest_s))

    def close(self) -> None:
        """Fold the WAL into the file, and close."""
        try:
            with suppress(sqlite3.OperationalError):  # somebody reads; the next run does it
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self._db.close()

    def _open(self, *, again: bool = False) -> None:
        if not check_head(self._path):
            put_aside(self._path, "there are only zeros in it")
        os.close(open_private(self._path))
        self._inode = self._path.stat().st_ino
        # The sink's thread writes; whoever made the sink opens and closes it.
        self._db = sqlite3.connect(self._path, isolation_level=None, timeout=_BUSY_S, check_same_thread=False)
        try:
            prepare(self._db, str(self._path))
            self._count: int = self._db.execute("SELECT COUNT(*) FROM events").fetchone()[0]
            self._last_id: int = self._db.execute("SELECT IFNULL(MAX(id), 0) FROM events").fetchone()[0]
            noted = self._db.execute("SELECT moment_ns, wall_ns FROM clock").fetchone() or (0, 0)
        except sqlite3.Error as error:
            self._db.close()
            if again or not is_damage(error):
                raise
            put_aside(self._path, error)
            self._open(again=True)
            return
        except BaseException:
            self._db.close()
            raise
        self._ages = AgeClock(noted[0], noted[1], self._clocks)

    def _reopen(self) -> None:
        self._db.close()
        self._open()

    def _is_in_place(self) -> bool:
        try:
            return self._path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def _mended(self, action: Callable[[], None]) -> None:
        """Do it, and once more in a new file where this one turns out to be damaged."""
        try:
            action()
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            self._db.close()
            put_aside(self._path, error)
            self._open(again=True)
            action()

    def _check(self) -> None:
        if self._db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("a page of it is not what it should be")

    def _write(self, rows: Sequence[Row], media: Sequence[EventMedia]) -> None:
        with self._transaction():
            now_ns = self._ages.now_ns()
            waits = self._db.execute("SELECT 1 FROM waiting_media LIMIT 1").fetchone() is not None
            for row in rows:
                self._add(row, now_ns, waits)
            for one in media:
                self._name(one, now_ns)
            self._keep_to_number()
            self._note_clock()

    def _expire(self, longest_s: Mapping[str, float]) -> None:
        with self._transaction():
            self._follow_clock()
            deleted = self._delete_old(longest_s)
            self._count -= deleted
            self._note_clock()
        self._log_holds_deleted |= bool(deleted)
        if self._log_holds_deleted:  # copies of the rows; while somebody reads they stay, and it is tried again
            is_busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._log_holds_deleted = bool(is_busy)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        count = self._count
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._count = count
            with suppress(sqlite3.Error):  # a full disk has rolled it back already
                self._db.execute("ROLLBACK")
            raise

    def _add(self, row: Row, now_ns: int, waits: bool) -> None:
        if row[_STATE] is not None and not self._takes_place(row):
            return
        added = self._db.execute(_INSERT, (*row, now_ns)).rowcount
        self._count += added
        if added and waits:
            key = row[0]
            for kind, path in self._db.execute("SELECT kind, path FROM waiting_media WHERE key=?", (key,)).fetchall():
                self._db.execute(f"UPDATE events SET {kind}=? WHERE key=?", (path, key))  # noqa: S608 (snapshot, clip)
            self._db.execute("DELETE FROM waiting_media WHERE key=?", (key,))

    def _takes_place(self, row: Row) -> bool:
        """Delete the older event of a state; ``False`` where it is there already, or a newer one is."""
        query = "SELECT 1 FROM events WHERE coalesce_key=? AND time_ns >= ?"
        if self._db.execute(query, (row[_STATE], row[_TIME])).fetchone() is not None:
            return False
        self._count -= self._db.execute("DELETE FROM events WHERE coalesce_key=?", (row[_STATE],)).rowcount
        return True

    def _name(self, media: EventMedia, now_ns: int) -> None:
        folder = str(media.path.parent.resolve())
        path = f"{folder}/{media.path.name}"
        self._db.execute("INSERT OR IGNORE INTO folders VALUES (?)", (folder,))
        for key in media.keys:
            query = f"UPDATE events SET {media.kind}=? WHERE key=?"  # noqa: S608 (snapshot or clip)
            if not self._db.execute(query, (path, key)).rowcount:
                values = (key, media.kind, path, plain_text(media.source_id), now_ns)
                self._db.execute("INSERT OR REPLACE INTO waiting_media VALUES (?, ?, ?, ?, ?)", values)

    def _keep_to_number(self) -> None:
        excess = self._count - self._limits.events
        if excess > 0:
            query = "DELETE FROM events WHERE id IN (SELECT id FROM events ORDER BY id LIMIT ?)"
            self._count -= self._db.execute(query, (excess,)).rowcount
        (waiting,) = self._db.execute("SELECT COUNT(*) FROM waiting_media").fetchone()
        if waiting > _MOST_WAITING:
            oldest = "SELECT key, kind FROM waiting_media ORDER BY moment_ns LIMIT ?"
            query = f"DELETE FROM waiting_media WHERE (key, kind) IN ({oldest})"  # noqa: S608 (our own text)
            self._db.execute(query, (waiting - _MOST_WAITING,))

    def _delete_old(self, longest_s: Mapping[str, float]) -> int:
        now_ns = self._ages.now_ns()
        deleted = 0
        if self._limits.seconds:
            before_ns = now_ns - round(self._limits.seconds * NS_PER_S)
            deleted += self._db.execute("DELETE FROM events WHERE moment_ns < ?", (before_ns,)).rowcount
        for source_id, seconds in longest_s.items():
            values = (plain_text(source_id), now_ns - round(seconds * NS_PER_S))
            deleted += self._db.execute("DELETE FROM events WHERE source=? AND moment_ns < ?", values).rowcount
            self._db.execute("DELETE FROM waiting_media WHERE source=? AND moment_ns < ?", values)
        self._db.execute("DELETE FROM waiting_media WHERE moment_ns < ?", (now_ns - _LONGEST_WAIT_NS,))
        return deleted

    def _follow_clock(self) -> None:
        if away_ns := self._ages.settle():
            self._db.execute("UPDATE events SET moment_ns = moment_ns + ? WHERE id > ?", (away_ns, self._last_id))

    def _note_clock(self) -> None:
        wall_ns = self._ages.wall_ns()
        if wall_ns is not None:
            self._db.execute("INSERT OR REPLACE INTO clock VALUES (1, ?, ?)", (self._ages.now_ns(), wall_ns))


def media_of(items: Iterable[object]) -> list[EventMedia]:
    """The files among what waits, but for those whose names are no text: SQLite has no place for them."""
    return [one for one in items if isinstance(one, EventMedia) and _is_text(str(one.path))]


def _is_text(path: str) -> bool:
    try:
        return bool(path.encode())
    except UnicodeEncodeError:
        return False
