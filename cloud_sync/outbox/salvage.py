"""A damaged outbox file: moved aside, never deleted, and every row whose checksum holds is saved from a copy."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from edgecv._internal.private_files import make_private_file
from edgecv.cloud_sync.envelope import PRIORITIES
from edgecv.cloud_sync.outbox.database import Row

_Priority = Annotated[int, msgspec.Meta(ge=0, lt=len(PRIORITIES))]
_Record = tuple[int, int, int, _Priority, bytes, int | None, int]  # n, boot, seq, lane, body, expires_ns, crc
_CHUNK = 64
_MAX_N = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvage:
    """What was found in a damaged file."""

    kept_as: Path  # where the damaged file lies now
    rows: tuple[Row, ...]  # rows whose checksum holds, oldest first
    bad_rows: int  # rows that could be read but whose checksum does not hold
    unreadable_rows: int  # rows that the index still lists but that could not be read


def quarantine(path: Path, now_ns: int) -> Salvage:
    """Move a damaged database and its WAL aside, to a name with ``now_ns`` in it, and read what can be read.

    Raises:
        OSError: it cannot be moved or copied.
    """
    kept_as = path.with_name(f"{path.name}.corrupt-{now_ns}")
    for old, new in _with_wal(path, kept_as):
        old.rename(new)
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)  # an index of the WAL; SQLite rebuilds it
    # SQLite writes to whatever it opens (it replays the WAL), and the evidence must stay as it was found.
    copy = path.with_name(f"{path.name}.salvage")
    try:
        for old, new in _with_wal(kept_as, copy):
            new.unlink(missing_ok=True)
            make_private_file(new)
            shutil.copyfile(old, new)
        return _read(copy, kept_as)
    finally:
        for suffix in ("", "-wal", "-shm"):
            copy.with_name(copy.name + suffix).unlink(missing_ok=True)


def _with_wal(source: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """A database and its WAL, if it has one, each with the name it is to get."""
    for suffix in ("", "-wal"):
        old = source.with_name(source.name + suffix)
        if not suffix or old.exists():
            yield old, target.with_name(target.name + suffix)


def _read(copy: Path, kept_as: Path) -> Salvage:
    db = sqlite3.connect(copy, isolation_level=None)
    db.text_factory = bytes  # damage can make TEXT of a BLOB, and it need not be UTF-8
    try:
        found = _readable_rows(db)
        listed = _listed_rows(db)
    finally:
        db.close()
    good = tuple(row for _, (row, crc) in sorted(found.items()) if row.crc == crc)
    return Salvage(
        kept_as=kept_as,
        rows=good,
        bad_rows=len(found) - len(good),
        unreadable_rows=max(listed - len(found), 0),
    )


def _listed_rows(db: sqlite3.Connection) -> int:
    query = "SELECT COUNT(*) FROM outbox INDEXED BY outbox_by_lane WHERE dead IS NULL AND lane >= 0"
    try:
        return int(db.execute(query).fetchone()[0])
    except sqlite3.Error:
        return 0


def _readable_rows(db: sqlite3.Connection) -> dict[int, tuple[Row, int]]:
    """Rows by position: upwards until the damage, downwards until the damage, then across it one step at a time."""
    found: dict[int, tuple[Row, int]] = {}
    low = _walk(db, found, "n>? ORDER BY n", -1)
    high = _walk(db, found, "n<? ORDER BY n DESC", _MAX_N)
    if not found:
        return found  # nothing to step between: it is hardly a database
    for n in range(low + 1, min(high, low + 100_000)):
        _walk(db, found, "n=? ORDER BY n", n, once=True)
    return found


def _walk(
    db: sqlite3.Connection, found: dict[int, tuple[Row, int]], where: str, start: int, *, once: bool = False
) -> int:
    """Read in chunks from ``start`` until nothing comes, or damage; returns the last position read."""
    query = (
        f"SELECT n, boot, seq, lane, body, expires_ns, crc FROM outbox WHERE dead IS NULL AND {where} LIMIT {_CHUNK}"  # noqa: S608 (our own text)
    )
    while True:
        last = start
        try:
            for record in db.execute(query, (start,)):
                last = record[0]
                _keep(record, found)
        except (sqlite3.Error, OverflowError):
            return last
        if last == start or once:
            return last
        start = last


def _keep(record: tuple[Any, ...], found: dict[int, tuple[Row, int]]) -> None:
    try:
        n, boot, seq, priority, body, expires_ns, crc = msgspec.convert(record, _Record)
    except msgspec.ValidationError:
        return
    found.setdefault(n, (Row(boot=boot, seq=seq, priority=priority, body=body, expires_ns=expires_ns), crc))
