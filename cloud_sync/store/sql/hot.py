"""The rows that are still in ``landing.db``, handed to DuckDB as Arrow, without those that are in Parquet already."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from edgecv.cloud_sync.store.columns import Columns
from edgecv.cloud_sync.store.layout import DATA_SETS, filed_us, manifest_path, microseconds
from edgecv.cloud_sync.store.manifest import Manifest, PartFile, read_manifest
from edgecv.cloud_sync.store.rewrite import scan
from edgecv.cloud_sync.store.rows import ROW_COLUMNS, LandedRow
from edgecv.cloud_sync.store.schema import COLUMNS, KEY_COLUMNS
from edgecv.cloud_sync.store.writer import landed_row, open_landing
from edgecv.errors import SyncError

# What Parquet has in its path, the hot rows have as columns.
PATH_COLUMNS: dict[str, str] = {"tenant": "VARCHAR", "date": "DATE", "hour": "INTEGER"}
HIVE = "hive_partitioning=true, hive_types={" + ", ".join(f"'{k}': {v}" for k, v in PATH_COLUMNS.items()) + "}"
KEY = ", ".join(("tenant", *KEY_COLUMNS))

_BATCH = 20_000
_ATTEMPTS = 50


@contextmanager
def snapshot(folder: Path) -> Iterator[tuple[Manifest, sqlite3.Connection | None]]:
    """A manifest, and ``landing.db`` as it was while that manifest held; ``None`` where a store has only Parquet.

    Raises:
        SyncError: it is no store, or cannot be read.
    """
    if not (folder / "landing.db").exists():
        if not manifest_path(folder).exists():
            raise SyncError(f"{folder} is no store.", "Name the folder of an ingest (--db).")
        yield read_manifest(folder), None
        return
    with closing(open_landing(folder)) as db:
        for _ in range(_ATTEMPTS):
            manifest = read_manifest(folder)
            db.execute("BEGIN")
            db.execute("SELECT 1 FROM events LIMIT 1").fetchone()  # the snapshot begins with the first read
            if read_manifest(folder).generation == manifest.generation:
                yield manifest, db
                return
            db.execute("ROLLBACK")
    raise SyncError(f"The files of {folder} change all the time.", "Wait until the merge is over.")


def load_hot_rows(duck: Any, schema: str, folder: Path, manifest: Manifest, db: sqlite3.Connection | None) -> int:
    """Make the tables ``hot_events`` and ``hot_detections`` in a schema of DuckDB; gives how many events there are."""
    for data_set in DATA_SETS:
        typed = ", ".join(f"{name} {kind}" for name, kind in {**PATH_COLUMNS, **COLUMNS[data_set]}.items())
        duck.execute(f"CREATE TABLE {schema}.hot_{data_set} ({typed})")
    if db is None:
        return 0
    columns = Columns(PATH_COLUMNS)
    count = 0
    for tenant, *row in db.execute(f"SELECT tenant, {ROW_COLUMNS} FROM events"):  # noqa: S608 (our own names)
        one = landed_row(row)
        columns.add(one, (tenant, *_filed(one)))
        count += 1
        if len(columns) >= _BATCH:
            _insert(duck, schema, columns)
    _insert(duck, schema, columns)
    _drop_settled(duck, schema, folder, manifest)
    return count


def _filed(row: LandedRow) -> tuple[int, int]:
    """Days since the epoch, and the hour."""
    hours = filed_us(microseconds(row.time), row.received_ns // 1000) // 3_600_000_000
    return divmod(hours, 24)


def _insert(duck: Any, schema: str, columns: Columns) -> None:
    for data_set in DATA_SETS:
        table = columns.take(data_set)
        if table.num_rows:
            duck.register("edgecv_batch", table)
            duck.execute(f"INSERT INTO {schema}.hot_{data_set} SELECT * FROM edgecv_batch")  # noqa: S608 (our own names)
            duck.unregister("edgecv_batch")


def _drop_settled(duck: Any, schema: str, folder: Path, manifest: Manifest) -> None:
    """Drop rows that a merge has written, and not yet deleted from landing.db."""
    settling: list[PartFile] = [part.events for part in manifest.parts if part.events.path in manifest.settling]
    if not settling:
        return
    duck.execute(f"CREATE TABLE {schema}.settled AS SELECT {KEY} FROM {scan(folder, settling, HIVE)}")  # noqa: S608
    for data_set in DATA_SETS:
        duck.execute(
            f"DELETE FROM {schema}.hot_{data_set} WHERE row({KEY}) IN (SELECT row({KEY}) FROM {schema}.settled)"  # noqa: S608
        )
