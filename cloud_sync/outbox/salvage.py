"""A damaged outbox file: every row whose checksum holds is saved from a copy of it, and it is moved aside, never deleted.

The order of the steps lets a process that is killed between any two of them begin again, or finish, at its next start.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from edgecv._internal.private_files import make_private_file
from edgecv.cloud_sync.envelope import PRIORITIES
from edgecv.cloud_sync.outbox.accounts.losses import Loss, read_losses
from edgecv.cloud_sync.outbox.rows import Row

_Priority = Annotated[int, msgspec.Meta(ge=0, lt=len(PRIORITIES))]
_Text = Annotated[bytes, msgspec.Meta(max_length=1000)] | None
# n, boot, seq, lane, body, expires_ns, crc, dead, coalesce_key, died_ns
_Record = tuple[int, int, int, _Priority, bytes, int | None, int, _Text, _Text, int | None]
_CHUNK = 64
_MAX_N = 2**62
_MOST_STEPS = 100_000
_SUFFIXES = ("", "-wal", "-shm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A row of a damaged file, and where it stood there."""

    n: int
    row: Row
    dead: str | None = None
    died_ns: int | None = None


class Wreck:
    """A copy of a damaged file, to be read once."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._db.text_factory = bytes  # damage can make TEXT of a BLOB, and it need not be UTF-8
        self._columns = self._columns_of_this_age()
        self.saved = 0  # rows that `rows` gave
        self.lost = 0  # after that: rows that could be read but whose checksum fails, or that the index lists and that could not

    def losses(self) -> list[Loss]:
        """The ledger, as far as it can be read."""
        try:
            return read_losses(self._db)
        except sqlite3.Error:
            return []

    def rows(self) -> Iterator[Saved]:
        """Rows whose checksum holds: upwards until the damage, downwards until the damage, then across it one by one."""
        read = bad = 0
        for saved in self._readable():
            if saved is None:
                bad += 1
            else:
                self.saved += 1
                yield saved
            read += saved is None or saved.dead is None
        self.lost = bad + max(self._listed_rows() - read, 0)

    def _readable(self) -> Iterator[Saved | None]:
        low = yield from self._walk("n>? ORDER BY n", -1, _MAX_N)
        high = yield from self._walk("n<? ORDER BY n DESC", _MAX_N, low)
        if low == -1 and high == _MAX_N:
            return  # nothing to step between: it is hardly a database
        for n in range(low + 1, min(high, low + _MOST_STEPS)):
            yield from self._walk("n=? ORDER BY n", n, _MAX_N, once=True)

    def _walk(self, where: str, start: int, end: int, *, once: bool = False) -> Generator[Saved | None, None, int]:
        """Read in chunks from ``start`` until nothing comes, damage, or ``end``; returns the last position read."""
        query = f"SELECT {self._columns} FROM outbox WHERE {where} LIMIT {_CHUNK}"  # noqa: S608 (our own text)
        while True:
            last = start
            try:
                for record in self._db.execute(query, (start,)):
                    if record[0] == end or (end < start and record[0] <= end):
                        return end
                    last = record[0]
                    yield from _saved(record)
            except (sqlite3.Error, OverflowError):
                return last
            if last == start or once:
                return last
            start = last

    def _listed_rows(self) -> int:
        query = "SELECT COUNT(*) FROM outbox INDEXED BY outbox_by_lane WHERE dead IS NULL AND lane >= 0"
        try:
            return int(self._db.execute(query).fetchone()[0])
        except sqlite3.Error:
            return 0

    def _columns_of_this_age(self) -> str:
        """What a file of an older EdgeCV lacks is read as NULL."""
        known = "n, boot, seq, lane, body, expires_ns, crc, dead"
        try:
            there = {bytes(row[1]) for row in self._db.execute("PRAGMA table_info(outbox)")}
        except sqlite3.Error:
            there = set()
        newer = ("coalesce_key", "died_ns")
        return ", ".join([known, *(name if name.encode() in there else f"NULL AS {name}" for name in newer)])


def saving_path(path: Path) -> Path:
    """Where the saved rows go before they take the place of the damaged file at ``path``."""
    return path.with_name(f"{path.name}.saving")


@contextmanager
def open_wreck(path: Path) -> Iterator[Wreck]:
    """Read a damaged database and its WAL, which stay as they are.

    Raises:
        OSError: they cannot be copied.
    """
    # SQLite writes to whatever it opens (it replays the WAL), and the evidence must stay as it was found.
    copy = path.with_name(f"{path.name}.salvage")
    remove(copy)
    remove(saving_path(path))
    try:
        for suffix in ("", "-wal"):
            old = path.with_name(path.name + suffix)
            new = copy.with_name(copy.name + suffix)
            if old.exists():
                make_private_file(new)
                shutil.copyfile(old, new)
        db = sqlite3.connect(copy, isolation_level=None)
        try:
            yield Wreck(db)
        finally:
            db.close()
    finally:
        remove(copy)


def replace_damaged(path: Path, kept_as: Path) -> None:
    """Move a damaged database and its WAL aside, to ``kept_as``, and put what was saved in its place.

    Raises:
        OSError: it cannot be moved.
    """
    saved = saving_path(path)
    saved.rename(_ready_path(path))
    finish_replacing(path, kept_as)


def finish_replacing(path: Path, kept_as: Path) -> None:
    """Do what is left of ``replace_damaged``, if anything is.

    Raises:
        OSError: the damaged file cannot be moved.
    """
    ready = _ready_path(path)
    if not ready.exists():
        return
    # The WAL first: it must never lie beside another database than its own.
    for suffix in ("-wal", ""):
        old = path.with_name(path.name + suffix)
        if old.exists():
            old.rename(kept_as.with_name(kept_as.name + suffix))
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)  # an index of the WAL; SQLite rebuilds it
    ready.rename(path)


def _ready_path(path: Path) -> Path:
    return path.with_name(f"{saving_path(path).name}-done")


def remove(path: Path) -> None:
    """Delete a database that is not needed, with what SQLite keeps beside it."""
    for suffix in _SUFFIXES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _saved(record: tuple[Any, ...]) -> list[Saved | None]:
    """A row; ``None`` where its checksum fails; nothing where a value is impossible, or it was given up before."""
    try:
        n, boot, seq, priority, body, expires_ns, crc, dead, key, died_ns = msgspec.convert(record, _Record)
    except msgspec.ValidationError:
        return []
    row = Row(boot=boot, seq=seq, priority=priority, body=body, expires_ns=expires_ns, coalesce_key=_text(key) or "")
    if row.crc == crc:
        return [Saved(n=n, row=row, dead=_text(dead), died_ns=died_ns)]
    return [] if dead is not None else [None]


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")
