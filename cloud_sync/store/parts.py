"""Writes and reads the Parquet files of one part; each appears whole, flushed and hashed, or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgecv._internal.atomic import new_file
from edgecv._internal.extras import require
from edgecv._internal.private_files import FILE_MODE, make_private_folder
from edgecv.cloud_sync.ingest.merged import MergedKey
from edgecv.cloud_sync.mqtt.topics import Address
from edgecv.cloud_sync.store.columns import Columns
from edgecv.cloud_sync.store.layout import DATA_SETS, DETECTIONS, EVENTS, Partition, hour_of
from edgecv.cloud_sync.store.manifest import Part, PartFile
from edgecv.cloud_sync.store.rows import LandedRow
from edgecv.cloud_sync.store.schema import COLUMNS, arrow_schema

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
        self._files: dict[str, _NewFile] = {}
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
        if len(self._columns) or EVENTS not in self._files:
            self._write(EVENTS)
        if self._columns.detections:
            self._write(DETECTIONS)
        found = {data_set: file.finish() for data_set, file in self._files.items()}
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

    def copy(self, data_set: str, reader: Any) -> None:
        """Write a whole data set from a ``pyarrow.RecordBatchReader`` whose rows come sorted."""
        pa = require("pyarrow", "cloud")
        for batch in reader:
            table = pa.Table.from_batches([batch]).cast(arrow_schema(data_set))
            self._append(data_set, table)
            self.rows += table.num_rows if data_set == EVENTS else 0

    def _write(self, data_set: str) -> None:
        self._append(data_set, self._columns.take(data_set))

    def _append(self, data_set: str, table: Any) -> None:
        if data_set not in self._files:
            self._files[data_set] = _NewFile(self._folder, self._partition, data_set, self._name, table.schema)
        self._files[data_set].write(table)


class _NewFile:
    """A Parquet file that has its name once it is whole and flushed."""

    def __init__(self, folder: Path, partition: Partition, data_set: str, name: str, schema: Any) -> None:
        self._folder = folder
        self._path = f"{partition.folder(data_set)}/{name}.parquet"
        self._target = folder / self._path
        make_private_folder(self._target.parent, parents=True)
        self._opening = new_file(self._target, FILE_MODE)
        self._file = self._opening.__enter__()
        texts = [column for column, kind in COLUMNS[data_set].items() if kind == "VARCHAR" and column != "data"]
        parquet = require("pyarrow.parquet", "cloud")
        self._writer = parquet.ParquetWriter(self._file, schema, compression="zstd", use_dictionary=texts)
        self._is_open = True
        self._rows = 0

    @property
    def bytes(self) -> int:
        """How large it is so far."""
        return self._file.tell() if self._is_open else 0

    def write(self, table: Any) -> None:
        """Add rows, in groups of ``DETECTIONS_PER_GROUP`` at most."""
        self._writer.write_table(table, row_group_size=DETECTIONS_PER_GROUP)
        self._rows += table.num_rows

    def finish(self) -> PartFile:
        """Flush it, and give it its name."""
        self._writer.close()
        self._is_open = False
        self._opening.__exit__(None, None, None)
        flush_folders(self._target.parent, self._folder)
        return PartFile(
            path=self._path, rows=self._rows, bytes=self._target.stat().st_size, sha256=sha256_of(self._target)
        )

    def discard(self) -> None:
        """Remove it, unless it has its name."""
        if not self._is_open:
            return
        self._is_open = False
        with suppress(_Discarded):
            self._opening.__exit__(_Discarded, _Discarded(), None)


class _Discarded(Exception):
    """Why a file that is given up does not get its name."""


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
