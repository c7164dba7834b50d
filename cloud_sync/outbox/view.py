"""What lies in an outbox, read beside the process that owns it; nothing is written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgecv._internal.file_locks import is_locked, lock_owner
from edgecv.cloud_sync.envelope import PRIORITIES
from edgecv.cloud_sync.outbox.accounts.losses import Loss, read_losses
from edgecv.cloud_sync.outbox.accounts.tally import DEAD, LANES, Tally, measure, read_tally
from edgecv.cloud_sync.outbox.checking import open_read_only
from edgecv.cloud_sync.outbox.rows import READ, Row
from edgecv.errors import SyncError


class _Head(msgspec.Struct, frozen=True):
    source: str = ""
    type: str = ""
    time: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneView:
    """What waits in one lane."""

    name: str
    rows: int
    used_bytes: int
    oldest: str  # when its first event happened, RFC 3339; empty when there is none


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An event that was given up, and why."""

    id: str  # `boot:seq`
    lane: str
    type: str
    time: str  # when it happened, RFC 3339
    reason: str
    died_ns: int  # UTC nanoseconds; 0 where an older EdgeCV did not write it down
    body_bytes: int


class OutboxView:
    """One moment of an outbox."""

    def __init__(self, folder: Path, db: sqlite3.Connection) -> None:
        self.owner = lock_owner(folder / "lock") if is_locked(folder / "lock") else ""  # a process, or nobody
        self.damaged_files = sorted(path.name for path in folder.glob("outbox.db.corrupt-*[0-9]"))
        self._db = db
        self._tally = _tally(db)

    @property
    def dead_rows(self) -> int:
        """How many dead letters there are."""
        return self._tally.rows[DEAD]

    @property
    def dead_bytes(self) -> int:
        """What the dead letters take of the outbox."""
        return self._tally.used[DEAD]

    def lanes(self) -> list[LaneView]:
        """What waits, the most urgent lane first."""
        return [
            LaneView(
                name=PRIORITIES[lane],
                rows=self._tally.rows[lane],
                used_bytes=self._tally.used[lane],
                oldest=next((_head(body).time for body in self._ends(lane, "n")), ""),
            )
            for lane in LANES
        ]

    def sources(self) -> set[str]:
        """Which devices the first and the last waiting event of each lane are of."""
        bodies = [body for lane in LANES for order in ("n", "n DESC") for body in self._ends(lane, order)]
        return {_head(body).source for body in bodies} - {""}

    def losses(self) -> list[Loss]:
        """The loss ledger, as far as it was written to the disk."""
        return read_losses(self._db)

    def dead_letters(self) -> Iterator[DeadLetter]:
        """Every dead letter, in the order in which the events came."""
        died = "IFNULL(died_ns, 0)" if self._has_column("died_ns") else "0"
        query = f"SELECT {READ}, lane, dead, {died} FROM outbox WHERE dead IS NOT NULL ORDER BY n"  # noqa: S608 (our own text)
        for _, boot, seq, body, _, lane, reason, died_ns in self._db.execute(query):
            head = _head(body)
            yield DeadLetter(
                id=f"{boot}:{seq}",
                lane=PRIORITIES[lane] if lane in LANES else "",
                type=head.type,
                time=head.time,
                reason=str(reason),
                died_ns=died_ns,
                body_bytes=len(body),
            )

    def bodies(self, *, dead: bool) -> Iterator[bytes | None]:
        """Every event as JSON, in the order in which they came: those that wait, or the dead ones; ``None`` for a damaged one."""
        condition = "IS NOT NULL" if dead else "IS NULL"
        query = f"SELECT {READ} FROM outbox WHERE dead {condition} ORDER BY n"  # noqa: S608 (our own text)
        for _, boot, seq, body, crc in self._db.execute(query):
            yield body if Row(boot=boot, seq=seq, priority=0, body=body).crc == crc else None

    def _ends(self, lane: int, order: str) -> list[bytes]:
        query = f"SELECT CAST(body AS BLOB) FROM outbox WHERE lane=? AND dead IS NULL ORDER BY {order} LIMIT 1"  # noqa: S608
        return [body for (body,) in self._db.execute(query, (lane,))]

    def _has_column(self, name: str) -> bool:
        return any(row[1] == name for row in self._db.execute("PRAGMA table_info(outbox)"))


@contextmanager
def view_outbox(folder: Path) -> Iterator[OutboxView]:
    """Look at the outbox in a folder, as it is at this moment.

    Raises:
        SyncError: there is none, or it cannot be read.
    """
    path = folder / "outbox.db"
    if not path.exists():
        raise SyncError(f"There is no outbox in {folder}.", "Give the folder that --outbox or app.toml names.")
    try:
        db = open_read_only(path)
        try:
            db.execute("BEGIN")
            yield OutboxView(folder, db)
        finally:
            db.close()
    except sqlite3.OperationalError as error:
        raise SyncError(f"{path} cannot be read: {error}.", "May this user read it?") from error
    except sqlite3.DatabaseError as error:
        raise SyncError(
            f"{path} is damaged: {error}.", "The next `edgecv run` or `edgecv sync drain` saves what is whole in it."
        ) from error


def _tally(db: sqlite3.Connection) -> Tally:
    try:
        return read_tally(db)
    except sqlite3.OperationalError:  # a file of an older EdgeCV, or one to be mended
        return measure(db)


def _head(body: bytes) -> _Head:
    try:
        return msgspec.json.decode(body, type=_Head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _Head()
