"""The views that a query may read: SQL over the hot rows and the Parquet files of one store, or of several.

Several stores are those of the members of one ingest: an event that two of them took, because the first one's acknowledgement
was lost, is given once.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgecv._internal.extras import require
from edgecv.cloud_sync.store.layout import DATA_SETS, EVENTS
from edgecv.cloud_sync.store.manifest import Manifest
from edgecv.cloud_sync.store.rewrite import scan
from edgecv.cloud_sync.store.schema import COLUMNS, arrow_type
from edgecv.cloud_sync.store.sql.hot import HIVE, KEY, PATH_COLUMNS, load_hot_rows, snapshot
from edgecv.errors import ConfigError

VIEWS = ("events", "detections", "counts", "sources", "devices", "rejected", "blobs")
_INNER = "store"  # the schema of what the views are made of

_ID = "boot || ':' || seq || CASE WHEN renamed THEN ':' || lower(lpad(to_hex(digest), 16, '0')) ELSE '' END"
_KIND = "CASE WHEN starts_with(type, 'edgecv.event.') THEN substr(type, 14) END"

_VIEW_SQL = f"""
CREATE VIEW events AS SELECT time, tenant, device, camera, type, {_KIND} AS kind, frame, objects, counter, direction, how, total,
    inside, dwell_s, track_id, class_id, class_name, score, code, message, lane, model, clock_synced, age_ms, position_s,
    frame_width, frame_height, data, {_ID} AS id, 'edgecv/' || tenant || '/' || device AS source, boot, seq, mono_ns, received,
    date, hour FROM {_INNER}.events;
CREATE VIEW detections AS SELECT time, tenant, device, camera, frame, class_id, class_name, score, x1, y1, x2, y2, track_id,
    model, extra, boot, seq, n, received, date, hour FROM {_INNER}.detections;
CREATE VIEW counts AS SELECT time, tenant, device, camera, kind, counter, coalesce(direction, substr(kind, 6)) AS direction, how,
    total, inside, dwell_s, track_id, class_id, class_name, score, model, id, boot, seq, received, date, hour
    FROM events WHERE kind IN ('line.crossed', 'zone.entered', 'zone.left', 'zone.dwell');
CREATE VIEW sources AS SELECT tenant, device, camera, max(time) AS last_seen,
    max_by(substr(kind, 8), {{order}}) FILTER (starts_with(kind, 'source.')) AS state,
    max_by(time, {{order}}) FILTER (starts_with(kind, 'source.')) AS since,
    max_by(code, {{order}}) FILTER (starts_with(kind, 'source.')) AS code,
    max_by(message, {{order}}) FILTER (starts_with(kind, 'source.')) AS message,
    count(*) FILTER (type = 'edgecv.result') AS frames, count(*) FILTER (kind = 'source.live') AS times_live
    FROM events WHERE camera IS NOT NULL GROUP BY tenant, device, camera;
CREATE VIEW devices AS SELECT tenant, device, min(received) AS first_seen, max(received) AS last_seen, count(*) AS events,
    count(DISTINCT boot) AS starts, max_by(epoch(received) - epoch(time), received) AS lag_s,
    max_by(model, received) FILTER (model IS NOT NULL) AS model, bool_and(clock_synced) AS clock_synced,
    max_by(total, received) FILTER (kind = 'sync.losses') AS lost
    FROM events GROUP BY tenant, device;
"""  # noqa: S608 (our own names)
_ORDER = "{'received': received, 'boot': boot, 'seq': seq}"

# Small tables of landing.db that are views of their own: the columns in DuckDB, and how SQLite gives them.
_TABLES: dict[str, tuple[dict[str, str], str]] = {
    "rejected": (
        {"received": "TIMESTAMP", "topic": "VARCHAR", "reason": "VARCHAR", "bytes": "BIGINT", "sample": "BLOB"},
        "SELECT received_ns / 1000, topic, reason, bytes, sample FROM rejected ORDER BY n",
    ),
    "blobs": (
        {
            **dict.fromkeys(("sha256", "tenant", "device", "type", "state", "place"), "VARCHAR"),
            **{"bytes": "BIGINT", "first_seen": "TIMESTAMP", "stored": "TIMESTAMP"},
        },
        "SELECT sha256, tenant, device, type, state, place, bytes, first_seen_ns / 1000, stored_ns / 1000 FROM blobs",
    ),
}
_TABLE_BATCH = 10_000
_PARTITIONED = re.compile(r"(tenant|date|hour)=", re.IGNORECASE)


def make_views(duck: Any, folders: Sequence[Path]) -> int:
    """Make the views over these stores; gives how many events are hot rows.

    Raises:
        ConfigError: a store lies where it cannot be read.
        SyncError: a folder is no store, or cannot be read.
    """
    hot = 0
    duck.execute(f"CREATE SCHEMA {_INNER}")
    for table, (columns, _) in _TABLES.items():
        duck.execute(f"CREATE TABLE {table} ({', '.join(f'{name} {kind}' for name, kind in columns.items())})")
    for number, folder in enumerate(folders):
        _check_place(folder)
        schema = f"store_{number}"
        duck.execute(f"CREATE SCHEMA {schema}")
        with snapshot(folder) as (manifest, landing):
            hot += load_hot_rows(duck, schema, folder, manifest, landing)
            if landing is not None:
                _load_tables(duck, landing)
        _view_of_store(duck, schema, folder, manifest)
        if number:
            _find_repeated(duck, number)
    for data_set in DATA_SETS:
        duck.execute(f"CREATE VIEW {_INNER}.{data_set} AS {_all_stores(data_set, len(folders))}")
    duck.execute(_VIEW_SQL.replace("{order}", _ORDER))
    return hot


def _view_of_store(duck: Any, schema: str, folder: Path, manifest: Manifest) -> None:
    for data_set in DATA_SETS:
        columns = ", ".join((*PATH_COLUMNS, *COLUMNS[data_set]))
        files = [part.events if data_set == EVENTS else part.detections for part in manifest.parts]
        there = [file for file in files if file is not None]
        sql = f"SELECT {columns} FROM {schema}.hot_{data_set}"  # noqa: S608 (our own names)
        if there:
            sql = f"SELECT {columns} FROM {scan(folder, there, HIVE)} UNION ALL {sql}"  # noqa: S608
        duck.execute(f"CREATE VIEW {schema}.{data_set} AS {sql}")


def _find_repeated(duck: Any, number: int) -> None:
    """A table of the events of a store that an earlier one has, too."""
    earlier = " UNION ALL ".join(f"SELECT {KEY} FROM store_{other}.{EVENTS}" for other in range(number))  # noqa: S608
    duck.execute(
        f"CREATE TABLE store_{number}.repeated AS SELECT {KEY} FROM store_{number}.{EVENTS} "  # noqa: S608
        f"SEMI JOIN ({earlier}) USING ({KEY})"
    )


def _all_stores(data_set: str, count: int) -> str:
    first = f"SELECT * FROM store_0.{data_set}"  # noqa: S608 (our own names)
    others = [
        f"SELECT * FROM store_{number}.{data_set} ANTI JOIN store_{number}.repeated USING ({KEY})"  # noqa: S608
        for number in range(1, count)
    ]
    return " UNION ALL ".join((first, *others))


def _load_tables(duck: Any, landing: sqlite3.Connection) -> None:
    pa = require("pyarrow", "cloud")
    there = {name for (name,) in landing.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for table in there & set(_TABLES):
        columns, sql = _TABLES[table]
        kinds = [arrow_type(kind) for kind in columns.values()]
        found = landing.execute(sql)
        while rows := found.fetchmany(_TABLE_BATCH):
            arrays = [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), kinds, strict=True)]
            duck.register("edgecv_batch", pa.Table.from_arrays(arrays, names=list(columns)))
            duck.execute(f"INSERT INTO {table} SELECT * FROM edgecv_batch")  # noqa: S608 (our own name)
            duck.unregister("edgecv_batch")


def _check_place(folder: Path) -> None:
    """DuckDB would take a tenant in the folders above for the tenant of the events."""
    for part in folder.parts:
        if _PARTITIONED.match(part):
            raise ConfigError(f"A store cannot lie below a folder named {part}.", "Move it elsewhere.")
