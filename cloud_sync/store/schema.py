"""The columns of the store: name and type, in the order in which they stand in its files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgecv._internal.extras import require
from edgecv.cloud_sync.store.layout import DETECTIONS, EVENTS

# Type names as DuckDB and `arrow_schema` know them. tenant, date and hour are in the path.
KEY_COLUMNS: dict[str, str] = {"device": "VARCHAR", "boot": "BIGINT", "seq": "BIGINT", "digest": "UBIGINT"}

EVENT_COLUMNS: dict[str, str] = {
    **KEY_COLUMNS,
    "renamed": "BOOLEAN",
    "time": "TIMESTAMP",
    "received": "TIMESTAMP",
    "mono_ns": "BIGINT",
    "clock_synced": "BOOLEAN",
    "type": "VARCHAR",
    "lane": "VARCHAR",
    "model": "VARCHAR",
    "camera": "VARCHAR",
    "frame": "BIGINT",
    "frame_width": "INTEGER",
    "frame_height": "INTEGER",
    "age_ms": "DOUBLE",
    "position_s": "DOUBLE",
    "objects": "INTEGER",
    "counter": "VARCHAR",
    "direction": "VARCHAR",
    "how": "VARCHAR",
    "total": "BIGINT",
    "inside": "BIGINT",
    "dwell_s": "DOUBLE",
    "track_id": "BIGINT",
    "class_id": "INTEGER",
    "class_name": "VARCHAR",
    "score": "FLOAT",
    "code": "VARCHAR",
    "message": "VARCHAR",
    "data": "VARCHAR",
}

DETECTION_COLUMNS: dict[str, str] = {
    **KEY_COLUMNS,
    "n": "INTEGER",
    "time": "TIMESTAMP",
    "received": "TIMESTAMP",
    "camera": "VARCHAR",
    "frame": "BIGINT",
    "model": "VARCHAR",
    "class_id": "INTEGER",
    "class_name": "VARCHAR",
    "score": "FLOAT",
    "x1": "FLOAT",
    "y1": "FLOAT",
    "x2": "FLOAT",
    "y2": "FLOAT",
    "track_id": "BIGINT",
    "extra": "VARCHAR",
}

COLUMNS: Mapping[str, dict[str, str]] = {EVENTS: EVENT_COLUMNS, DETECTIONS: DETECTION_COLUMNS}
ORDER: Mapping[str, str] = {EVENTS: "device, boot, seq, digest", DETECTIONS: "device, boot, seq, digest, n"}


def arrow_schema(data_set: str, more: Mapping[str, str] | None = None) -> Any:
    """The ``pyarrow.Schema`` of a data set, with some columns in front of it."""
    pa = require("pyarrow", "cloud")
    return pa.schema([(name, arrow_type(kind)) for name, kind in {**(more or {}), **COLUMNS[data_set]}.items()])


def arrow_type(kind: str) -> Any:
    """The type of pyarrow for one of DuckDB."""
    pa = require("pyarrow", "cloud")
    kinds = {
        "VARCHAR": pa.string(),
        "BIGINT": pa.int64(),
        "UBIGINT": pa.uint64(),
        "INTEGER": pa.int32(),
        "DOUBLE": pa.float64(),
        "FLOAT": pa.float32(),
        "BOOLEAN": pa.bool_(),
        "TIMESTAMP": pa.timestamp("us"),
        "DATE": pa.date32(),
        "BLOB": pa.binary(),
    }
    return kinds[kind]
