"""An event as a row of the events file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec

from edgecv.events import Event

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MOST_INTEGER = (1 << 63) - 1  # of SQLite
_LONGEST = 500  # characters of a text that is no data
_MOST_DATA = 32_768  # characters of the data as JSON
_RULE_NAMES = ("rule", "counter", "name")  # what the data of events call the step that made them

Row = tuple[Any, ...]


def row_of(event: Event) -> Row:
    """The values of ``COLUMNS``, such that SQLite takes them whatever a step put into the event."""
    data = event.data
    time_ns = max(-_MOST_INTEGER, min(_MOST_INTEGER, event.time_ns))
    rule = next((data[name] for name in _RULE_NAMES if isinstance(data.get(name), str)), "")
    return (
        event.key,
        utc_text(time_ns),
        time_ns,
        plain_text(event.kind),
        plain_text(event.source_id),
        plain_text(rule),
        plain_text(data.get("direction")),
        plain_text(data.get("label")),
        _integer(data.get("tracker_id")),
        _number(data.get("position_s")),
        event.priority,
        _json(data),
        plain_text(event.coalesce_key) or None,
    )


def utc_text(time_ns: int) -> str:
    """``2026-11-28T10:15:30.123Z``, which SQLite's functions of dates read; empty for what no calendar holds."""
    try:
        moment = _EPOCH + timedelta(milliseconds=time_ns // 1_000_000)
    except OverflowError:
        return ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def plain_text(value: object) -> str:
    """A text that UTF-8 can hold, without zero bytes, at which programs in C would end it; empty for anything else."""
    if not isinstance(value, str):
        return ""
    return value[:_LONGEST].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _integer(value: object) -> int | None:
    fits = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MOST_INTEGER
    return value if fits else None  # type: ignore[return-value]  # mypy does not look into `fits`


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _json(data: Mapping[str, Any]) -> str:
    try:
        text = msgspec.json.encode(dict(data), enc_hook=str).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        text = _odd_json(data)
    if len(text) > _MOST_DATA:
        return json.dumps({"too_large": f"The data of this event has {len(text)} characters."})
    return text


def _odd_json(data: Mapping[str, Any]) -> str:
    """In ASCII, for texts that UTF-8 cannot hold, such as the names of some files."""
    try:
        return json.dumps(dict(data), default=str, allow_nan=False)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return json.dumps({"unreadable": "The data of this event is no JSON."})
