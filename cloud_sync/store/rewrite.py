"""Makes one part of several, or one with fewer rows; DuckDB sorts, and spills to the disk what its memory cannot hold."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgecv._internal.extras import require
from edgecv._internal.private_files import make_private_folder
from edgecv.cloud_sync.store.layout import DATA_SETS, DETECTIONS, EVENTS, Partition
from edgecv.cloud_sync.store.manifest import Part, PartFile
from edgecv.cloud_sync.store.parts import PartWriter
from edgecv.cloud_sync.store.schema import COLUMNS, ORDER
from edgecv.errors import SyncError

WORK = "work"  # the folder below a store in which a rewrite spills
_MEMORY = "512MB"


class Setbacks:
    """What failed on the way; the rest is done first, and then the first failure is raised."""

    def __init__(self) -> None:
        self._first: SyncError | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Do something, and keep its ``SyncError`` for later."""
        try:
            yield
        except SyncError as error:
            self._first = self._first or error

    def raise_first(self) -> None:
        """Raise what failed first, if anything did."""
        if self._first is not None:
            raise self._first


@contextmanager
def work_database(folder: Path, *, memory: str = _MEMORY, threads: int = 1) -> Iterator[Any]:
    """A DuckDB in memory that loads no extension and spills into a folder of its own.

    Raises:
        MissingDependency: duckdb is not installed.
        SyncError: the folder cannot be made.
    """
    duckdb = require("duckdb", "cloud")
    try:
        make_private_folder(folder, parents=True)
        spill = tempfile.TemporaryDirectory(prefix="spill-", dir=folder, ignore_cleanup_errors=True)
    except OSError as error:
        raise SyncError(
            f"{folder} cannot be written: {error.strerror}.", "Free disk space; nothing is lost."
        ) from error
    with spill:
        config = {
            "memory_limit": memory,
            "threads": threads,
            "temp_directory": spill.name,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,
        }
        with duckdb.connect(":memory:", config=config) as db:
            db.execute("SET TimeZone='UTC'")
            yield db


def rewrite(
    folder: Path, partition: Partition, name: str, parts: Sequence[Part], without: str = "false"
) -> Part | None:
    """A new part with the rows of others, sorted, but those for which the SQL condition ``without`` holds.

    Gives ``None`` when no row is left.

    Raises:
        SyncError: the disk refused, or a file is damaged; nothing changed.
    """
    duckdb, pa = require("duckdb", "cloud"), require("pyarrow", "cloud")
    detections = [part.detections for part in parts if part.detections is not None]
    files: dict[str, list[PartFile]] = {EVENTS: [part.events for part in parts], DETECTIONS: detections}
    writer = PartWriter(folder, partition, name)
    with work_database(folder / WORK) as db:
        try:
            for data_set in DATA_SETS:
                there = files[data_set]
                if there:
                    writer.copy(
                        data_set, pa.RecordBatchReader.from_stream(db.sql(_sorted(folder, data_set, there, without)))
                    )
                if not writer.rows:
                    return None
            return writer.finish()
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise SyncError(
                f"The files of {partition.tenant}, {partition.hour} could not be rewritten: {error}",
                "Free disk space, or see what is damaged: edgecv store verify.",
            ) from error
        finally:
            writer.discard()


def scan(folder: Path, files: Sequence[PartFile], more: str = "hive_partitioning=false") -> str:
    """The SQL that reads these files."""
    paths = ", ".join(quoted(literal(str(folder / file.path))) for file in files)
    return f"read_parquet([{paths}], {more})"


def quoted(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def literal(path: str) -> str:
    """A path in which nothing is a wildcard."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in path)


def _sorted(folder: Path, data_set: str, files: Sequence[PartFile], without: str) -> str:
    columns = ", ".join(COLUMNS[data_set])
    kept = f"WHERE NOT coalesce({without}, false)"
    return f"SELECT {columns} FROM {scan(folder, files)} {kept} ORDER BY {ORDER[data_set]}"  # noqa: S608 (our own names)
