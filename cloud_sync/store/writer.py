"""``StoreWriter``: brings events from ``landing.db`` to Parquet, and keeps the files few.

The order makes it safe to kill at any moment: first the files, then the manifest that lists them, then the rows leave
``landing.db``. What was begun is finished at the next start: ``settling`` in the manifest says whose rows may be in both places,
and a file that no manifest lists is removed.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from edgecv.cloud_sync.ingest.database import EventDatabase
from edgecv.cloud_sync.store.layout import Partition, hour_of
from edgecv.cloud_sync.store.manifest import Obsolete, Part, read_manifest, write_manifest
from edgecv.cloud_sync.store.parts import MAX_FILE_BYTES, PartWriter, keys_of, stray_files
from edgecv.cloud_sync.store.rewrite import WORK, Setbacks, rewrite
from edgecv.cloud_sync.store.rows import ROW_COLUMNS, LandedRow
from edgecv.errors import SyncError

_log = logging.getLogger(__name__)

_PAGE = 2000
_SETTLED_AT_ONCE = 1000  # rows that leave landing.db in one transaction: some 20 ms
_KEPT_US = 15 * 60 * 1_000_000  # how long a file stays for queries that read it, once others took its place


@dataclass(slots=True, kw_only=True)
class MergeReport:
    """How much a merge moved and wrote."""

    events: int = 0  # that left landing.db
    parts: int = 0  # that it wrote
    compacted: int = 0  # parts that became fewer


class StoreWriter:
    """The one writer of a store's files; it works beside ingest on the same ``EventDatabase``, in one thread.

    Raises:
        SyncError: the manifest or a file is damaged, or the disk refused.
    """

    def __init__(self, landing: EventDatabase) -> None:
        self.landing = landing
        self.folder = landing.folder
        self.manifest = read_manifest(self.folder)
        self._recover()

    def merge(self, stop: threading.Event, *, open_hours: bool = False) -> MergeReport:
        """Bring the events of hours that are over to Parquet, with ``open_hours`` all of them.

        Raises:
            SyncError: the disk refused; nothing is lost, and the next merge goes on.
        """
        report = MergeReport()
        self._settle_begun()
        while not stop.is_set() and self.landing.file_rows(_PAGE):
            pass
        until = "9999" if open_hours else hour_of(time.time_ns() // 1000)
        for partition in self._landed_partitions():
            if stop.is_set():
                break
            if partition.hour < until:
                self._merge_partition(partition, report, stop)
        return report

    def compact(self, stop: threading.Event, *, fewest: int = 2) -> int:
        """Make one part of those of an hour, where there are at least ``fewest``; gives how many parts went.

        Raises:
            SyncError: the disk refused, or a file is damaged; nothing is lost.
        """
        went = 0
        setbacks = Setbacks()  # a damaged file does not keep other hours from it
        by_partition: dict[Partition, list[Part]] = {}
        for part in self.manifest.parts:
            by_partition.setdefault(part.partition, []).append(part)
        for partition, parts in by_partition.items():
            if len(parts) < fewest or stop.is_set():
                continue
            for group in _fitting(parts):
                with setbacks.kept():
                    self.replace(group, rewrite(self.folder, partition, self.next_name(), group))
                    went += len(group) - 1
        setbacks.raise_first()
        return went

    def next_name(self) -> str:
        """The name of the next part."""
        return f"part-{self.manifest.member}-{self.manifest.next_part}"

    def replace(self, old: Sequence[Part], new: Part | None, *, now: bool = False, **changes: object) -> None:
        """Let a part take the place of others; their files go ``now``, or when no query reads them any more.

        Raises:
            SyncError: the disk refused; the old ones still hold.
        """
        self._settle_begun()  # else their rows in landing.db would be merged once more
        files = [file for part in old for file in part.files]
        parts = [*(part for part in self.manifest.parts if part not in old), *([new] if new else [])]
        since_us = time.time_ns() // 1000
        gone = [] if now else [Obsolete(path=file.path, since_us=since_us) for file in files]
        self.save(
            parts=tuple(parts),
            obsolete=(*self.manifest.obsolete, *gone),
            next_part=self.manifest.next_part + 1,
            **changes,
        )
        if now:
            self.remove([self.folder / file.path for file in files])

    def save(self, **changes: object) -> None:
        """Replace the manifest by one with these changes.

        Raises:
            SyncError: the disk refused; the old one still holds.
        """
        self.manifest = write_manifest(self.folder, self.manifest, **changes)

    def drop_obsolete(self, *, now: bool = False) -> None:
        """Remove files that others took the place of a while ago."""
        before_us = time.time_ns() // 1000 - (0 if now else _KEPT_US)
        due = [one for one in self.manifest.obsolete if one.since_us <= before_us]
        if due:
            self.remove([self.folder / one.path for one in due])
            self.save(obsolete=tuple(one for one in self.manifest.obsolete if one not in due))

    def remove(self, paths: Sequence[Path]) -> None:
        """Remove files of the store, and the folders that this empties.

        Raises:
            SyncError: one could not be removed.
        """
        for path in paths:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise SyncError(f"{path} cannot be removed: {error.strerror}.", "Remove it, then try again.") from error
            for folder in list(path.parents)[:3]:  # hour, date, tenant
                try:
                    folder.rmdir()
                except OSError:
                    break

    def _merge_partition(self, partition: Partition, report: MergeReport, stop: threading.Event) -> None:
        after: tuple[object, ...] = ("", -1, -1, "")
        while True:
            writer = PartWriter(self.folder, partition, self.next_name())
            try:
                after = self._fill(writer, partition, after, stop)
                if stop.is_set() or not writer.rows:
                    return
                part = writer.finish()
            except OSError as error:
                raise SyncError(
                    f"The store {self.folder} cannot be written: {error.strerror or error}.",
                    "Free disk space; nothing is lost.",
                ) from error
            finally:
                writer.discard()
            self.save(
                parts=(*self.manifest.parts, part),
                settling=(*self.manifest.settling, part.events.path),
                next_part=self.manifest.next_part + 1,
            )
            report.events += self._settle(part)
            report.parts += 1
            self.save(settling=tuple(path for path in self.manifest.settling if path != part.events.path))
            if not writer.is_cut:
                return

    def _fill(
        self, writer: PartWriter, partition: Partition, after: tuple[object, ...], stop: threading.Event
    ) -> tuple[object, ...]:
        """Write what is landed of a partition, from a key on, until a file is full; gives the last key."""
        for row in self._landed_rows(partition, after, stop):
            writer.add(row)
            after = (row.device, row.boot, row.seq, row.id)
            if writer.is_full:
                writer.is_cut = True
                break
        return after

    def _landed_rows(
        self, partition: Partition, after: tuple[object, ...], stop: threading.Event
    ) -> Iterator[LandedRow]:
        """Rows in the order of the files, a page per read transaction, so that the log of SQLite does not grow meanwhile."""
        sql = (
            f"SELECT {ROW_COLUMNS} FROM events WHERE tenant=? AND hour=? AND (device, boot, seq, id) > (?, ?, ?, ?) "  # noqa: S608
            "ORDER BY device, boot, seq, id LIMIT ?"
        )
        with closing(open_landing(self.folder)) as db:
            while not stop.is_set():
                page = db.execute(sql, (partition.tenant, partition.hour, *after, _PAGE)).fetchall()
                for row in page:
                    yield landed_row(row)
                if len(page) < _PAGE:
                    return
                after = page[-1][:4]

    def _landed_partitions(self) -> list[Partition]:
        found: list[Partition] = []
        last = ("", "")
        sql = "SELECT tenant, hour FROM events WHERE (tenant, hour) > (?, ?) ORDER BY tenant, hour LIMIT 1"
        with closing(open_landing(self.folder)) as db:
            while row := db.execute(sql, last).fetchone():
                last = row
                found.append(Partition(*row))
        return [one for one in found if one.hour]

    def _settle(self, part: Part) -> int:
        """Have the rows of a part leave landing.db, in short transactions."""
        deleted = 0
        try:
            for keys in keys_of(self.folder, part):
                for start in range(0, len(keys), _SETTLED_AT_ONCE):
                    deleted += self.landing.settle(keys[start : start + _SETTLED_AT_ONCE])
        except (OSError, ValueError) as error:
            raise SyncError(f"{part.events.path} cannot be read: {error}", "Restore it from a backup.") from error
        return deleted

    def _settle_begun(self) -> None:
        """Have the rows of parts leave landing.db that could not leave it before."""
        for part in self.manifest.parts:
            if part.events.path in self.manifest.settling:
                self._settle(part)
        if self.manifest.settling:
            self.save(settling=())

    def _recover(self) -> None:
        """Finish what a process that was killed had begun."""
        self._settle_begun()
        shutil.rmtree(self.folder / WORK, ignore_errors=True)  # what a killed rewrite had spilled
        listed = {file.path for part in self.manifest.parts for file in part.files}
        strays = stray_files(self.folder, listed | {one.path for one in self.manifest.obsolete})
        if strays:
            _log.info("removing %d files that are no part of the store", len(strays))
            self.remove(strays)


def open_landing(folder: Path) -> sqlite3.Connection:
    """``landing.db`` for reading, also while ingest writes.

    Raises:
        SyncError: there is none, or it cannot be opened.
    """
    path = folder / "landing.db"
    try:
        db = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, isolation_level=None)
        db.execute("PRAGMA query_only=ON")
        db.execute("SELECT 1 FROM events LIMIT 1").fetchone()
    except sqlite3.Error as error:
        raise SyncError(f"{path} cannot be read: {error}", "Is it the folder of an ingest (--db)?") from error
    return db


def landed_row(row: Sequence[object]) -> LandedRow:
    """The event in a row that holds ``ROW_COLUMNS``."""
    values = list(row)
    values[7] = bool(values[7])
    return LandedRow(*values)  # type: ignore[arg-type]


def _fitting(parts: Sequence[Part]) -> list[list[Part]]:
    """Groups of at least two parts whose files together are not too large."""
    groups: list[list[Part]] = [[]]
    size = 0
    for part in sorted(parts, key=lambda one: one.bytes):
        if groups[-1] and size + part.bytes > MAX_FILE_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(part)
        size += part.bytes
    return [group for group in groups if len(group) > 1]
