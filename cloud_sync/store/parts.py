"""Writes and reads the Parquet files of one part; each appears whole, flushed and hashed, or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from edgecv._internal.extras import require
from edgecv._internal.private_files import create_private, make_private_folder
from edgecv.cloud_sync.ingest.merged import MergedKey
from edgecv.cloud_sync.mqtt.topics import Address
from edgecv.cloud_sync.store.columns import Columns
from edgecv.cloud_sync.store.layout import DATA_SETS, DETECTIONS, EVENTS, Partition, hour_of
from edgecv.cloud_sync.store.manifest import Part, PartFile
from edgecv.cloud_sync.store.rows import LandedRow
from edgecv.cloud_sync.store.schema import COLUMNS

MAX_FILE_BYTES = 256 * 2**20
EVENTS_PER_GROUP = 64 * 1024
DETECTIONS_PER_GROUP = 128 * 1024
_TEXT_PER_GROUP = 32 * 2**20
_BATCH = 4096


class PartWriter:
    """Writes rows, which come sorted, as one part; ``finish`` or ``discard`` ends it."""

    def __init__(self, folder: Path, partition: Partition, name: str) -> None:
        self._folder, self._partition, self._name = folder, partition, name
        self._columns = Columns()
        self._files: dict[str, WorkFile] = {}
        self._writers: dict[str, Any] = {}
        self.rows = 0
        self.is_cut = False  # whether more rows go into another part

    @property
    def is_full(self) -> bool:
        """Whether a file became as large as one may be."""
        return any(file.bytes >= MAX_FILE_BYTES for file in self._files.values())

    def add(self, row: LandedRow) -> None:
        """Add an event.

        Raises:
            OSError: the disk refused.
        """
        self._columns.add(row)
        self.rows += 1
        if len(self._columns) >= EVENTS_PER_GROUP or self._columns.text_bytes >= _TEXT_PER_GROUP:
            self._write(EVENTS)
        if self._columns.detections >= DETECTIONS_PER_GROUP:
            self._write(DETECTIONS)

    def finish(self) -> Part:
        """Flush the files and give them their names; they count once a manifest lists them.

        Raises:
            OSError: the disk refused.
        """
        if len(self._columns) or EVENTS not in self._writers:
            self._write(EVENTS)
        if self._columns.detections:
            self._write(DETECTIONS)
        found: dict[str, PartFile] = {}
        for data_set, writer in self._writers.items():
            writer.close()
            found[data_set] = self._files[data_set].finish()
        return Part(
            tenant=self._partition.tenant,
            hour=self._partition.hour,
            events=found[EVENTS],
            detections=found.get(DETECTIONS),
        )

    def discard(self) -> None:
        """Leave nothing behind; does nothing after ``finish``."""
        for file in self._files.values():
            file.discard()

    def _write(self, data_set: str) -> None:
        table = self._columns.take(data_set)
        if data_set not in self._writers:
            self._files[data_set] = WorkFile(self._folder, self._partition, data_set, self._name)
            texts = [name for name, kind in COLUMNS[data_set].items() if kind == "VARCHAR" and name != "data"]
            parquet = require("pyarrow.parquet", "cloud")
            self._writers[data_set] = parquet.ParquetWriter(
                self._files[data_set].file, table.schema, compression="zstd", use_dictionary=texts
            )
        self._writers[data_set].write_table(table, row_group_size=DETECTIONS_PER_GROUP)


class WorkFile:
    """A file of a part that has not its name yet."""

    def __init__(self, folder: Path, partition: Partition, data_set: str, name: str) -> None:
        self._folder = folder
        self._path = f"{partition.folder(data_set)}/{name}.parquet"
        target = folder / self._path
        make_private_folder(target.parent, parents=True)
        self.work = target.with_name(f".{target.name}.tmp")
        self.work.unlink(missing_ok=True)  # what a killed process left
        self.file: BinaryIO = os.fdopen(create_private(self.work), "wb")

    @property
    def bytes(self) -> int:
        """How large it is so far."""
        return 0 if self.file.closed else self.file.tell()

    def finish(self) -> PartFile:
        """Flush it, and give it its name."""
        self.file.close()
        target = self._folder / self._path
        flush(self.work)
        described = PartFile(
            path=self._path, rows=row_count(self.work), bytes=self.work.stat().st_size, sha256=sha256_of(self.work)
        )
        self.work.replace(target)
        flush_folders(target.parent, self._folder)
        return described

    def finish_if_any(self) -> PartFile | None:
        """The same, or ``None`` where it has no rows."""
        return self.finish() if row_count(self.work) else None

    def discard(self) -> None:
        """Remove it, unless it has its name."""
        with suppress(OSError):
            self.file.close()
        self.work.unlink(missing_ok=True)


def row_count(path: Path) -> int:
    """How many rows a Parquet file says that it has."""
    return int(require("pyarrow.parquet", "cloud").read_metadata(path).num_rows)


def sha256_of(path: Path) -> str:
    """The hash of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def keys_of(folder: Path, part: Part) -> Iterator[list[MergedKey]]:
    """The keys of a part's events, some thousand at a time.

    Raises:
        OSError, ValueError: the file cannot be read.
    """
    parquet = require("pyarrow.parquet", "cloud")
    with parquet.ParquetFile(folder / part.events.path) as file:
        columns = ["device", "boot", "seq", "digest", "renamed", "time"]
        for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
            moments = batch.column("time").cast("int64").to_pylist()
            yield [
                _key(part, row, hour_of(moment_us) == part.hour)
                for row, moment_us in zip(batch.drop_columns(["time"]).to_pylist(), moments, strict=True)
            ]


def _key(part: Part, row: dict[str, Any], by_its_time: bool) -> MergedKey:
    name = f"{row['boot']}:{row['seq']}"
    return MergedKey(
        source=Address(tenant=part.tenant, device=row["device"]).source,
        boot=row["boot"],
        seq=row["seq"],
        id=f"{name}:{row['digest']:016x}" if row["renamed"] else name,
        renamed=row["renamed"],
        hour="" if by_its_time else part.hour,
    )


def stray_files(folder: Path, listed: set[str]) -> list[Path]:
    """Files below the store that no manifest lists, such as those of a process that was killed."""
    found = [path for data_set in DATA_SETS for path in (folder / "parquet" / data_set).glob("*/*/*/*part-*.parquet*")]
    return [path for path in found if path.relative_to(folder).as_posix() not in listed]


def flush(path: Path) -> None:
    """Have the disk write a file or folder.

    Raises:
        OSError: it failed.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folders(lowest: Path, highest: Path) -> None:
    """Flush a folder and those above it, since they may be new, too."""
    while True:
        flush(lowest)
        if lowest in (highest, lowest.parent):
            return
        lowest = lowest.parent
