"""Rows of ``landing.db`` as typed columns: an event and what was detected in it.

The payload of an event comes from a device and may hold anything that JSON can. What has the expected type gets a column. What
has not stays where it was, in the text column ``data``: a strange event is never lost, and spoils no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from edgecv._internal.extras import require
from edgecv.cloud_sync.store.layout import DETECTIONS, EVENTS, microseconds
from edgecv.cloud_sync.store.rows import LandedRow
from edgecv.cloud_sync.store.schema import arrow_schema

_MAX_TEXT = 1000  # characters of a text that gets a column of its own; longer ones stay in `data` alone

_Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Small = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_Text = Annotated[str, msgspec.Meta(max_length=_MAX_TEXT)]
_Box4 = tuple[float, float, float, float]
_T = TypeVar("_T")


class _Details(msgspec.Struct, kw_only=True):
    """What events of EdgeCV hold, see docs/sync.md."""

    source_id: _Text | None = None
    index: _Int | None = None
    frame_wh: tuple[_Small, _Small] | None = None
    age_ms: float | None = None
    position_s: float | None = None
    counter: _Text | None = None
    direction: _Text | None = None
    how: _Text | None = None
    total: _Int | None = None
    inside: _Int | None = None
    dwell_s: float | None = None
    tracker_id: _Int | None = None
    class_id: _Small | None = None
    label: _Text | None = None
    confidence: float | None = None
    code: _Text | None = None
    message: _Text | None = None
    error: _Text | None = None


class _Detection(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    class_id: _Small
    confidence: float
    label: _Text = ""
    tracker_id: _Int | None = None
    xyxy: _Box4 | None = None
    xyxyn: _Box4 | None = None


class Columns:
    """Builds the columns of events, and of their detections, row by row."""

    def __init__(self, more: Mapping[str, str] | None = None) -> None:
        self._schemas = {EVENTS: arrow_schema(EVENTS, more), DETECTIONS: arrow_schema(DETECTIONS, more)}
        self._rows: dict[str, list[tuple[object, ...]]] = {EVENTS: [], DETECTIONS: []}
        self.text_bytes = 0  # the payloads in it

    def __len__(self) -> int:
        return len(self._rows[EVENTS])

    @property
    def detections(self) -> int:
        """How many detections came together."""
        return len(self._rows[DETECTIONS])

    def add(self, row: LandedRow, more: Sequence[object] = ()) -> None:
        """Add an event; ``more`` are the values of the columns in front."""
        details, boxes, data = _typed(row.data)
        key = (*more, row.device, row.boot, row.seq, row.digest)
        time_us, received_us = microseconds(row.time), row.received_ns // 1000
        self._rows[EVENTS].append((*key, *_event(row, details, boxes, time_us, received_us), data))
        self.text_bytes += len(row.data)
        for n, box in enumerate(boxes or ()):
            place = (n, time_us, received_us, details.source_id, details.index, row.model or None)
            self._rows[DETECTIONS].append((*key, *place, *box))

    def take(self, data_set: str) -> Any:
        """The rows of a data set since the last call, as a ``pyarrow.Table``."""
        pa = require("pyarrow", "cloud")
        rows, self._rows[data_set] = self._rows[data_set], []
        if data_set == EVENTS:
            self.text_bytes = 0
        schema = self._schemas[data_set]
        columns = list(zip(*rows, strict=True)) or [()] * len(schema)
        return pa.Table.from_arrays(
            [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema
        )


def _event(
    row: LandedRow, details: _Details, boxes: Sequence[object] | None, time_us: int, received_us: int
) -> tuple[object, ...]:
    width, height = details.frame_wh or (None, None)
    return (
        *(row.renamed, time_us, received_us, row.mono_ns, row.clock_synced, row.type, row.lane, row.model or None),
        *(details.source_id, details.index, width, height, details.age_ms, details.position_s),
        *(None if boxes is None else len(boxes), details.counter, details.direction, details.how),
        *(details.total, details.inside, details.dwell_s, details.tracker_id, details.class_id, details.label),
        *(details.confidence, details.code, details.message or details.error),
    )


def _typed(data: str) -> tuple[_Details, list[tuple[object, ...]] | None, str]:
    """The typed part of a payload, its boxes (``None`` where it has none, or strange ones), and the rest of it as JSON."""
    text = data.encode()
    details = _decoded(_details, text)
    if '"detections"' not in data:
        return details or _by_field(text), None, data
    fields = _decoded(_raw_fields, text)
    if fields is None or "detections" not in fields:
        return details or _by_field(text), None, data
    details = details or _by_field(text)
    boxes = _boxes(fields.pop("detections"), details.frame_wh)
    return details, boxes, data if boxes is None else _encoder.encode(fields).decode()


def _by_field(text: bytes) -> _Details:
    """The fields that have the right type, where some have not."""
    fields = _decoded(_raw_fields, text) or {}
    details = _Details()
    for name, decoder in _FIELDS.items():
        if name in fields:
            setattr(details, name, _decoded(decoder, fields[name]))
    return details


def _boxes(raw: msgspec.Raw, frame_wh: tuple[int, int] | None) -> list[tuple[object, ...]] | None:
    found = _decoded(_detections, raw)
    if found is not None:
        return [_box(one, frame_wh) for one in found]
    rows = _decoded(_raw_rows, raw)
    if rows is None:
        return None
    boxes: list[tuple[object, ...]] = []
    for row in rows:
        known = {name: row.pop(name) for name in _DETECTION_FIELDS if name in row}
        one = _decoded(_detection, _encoder.encode(known))
        if one is None:
            return None
        boxes.append(_box(one, frame_wh, _encoder.encode(row).decode() if row else None))
    return boxes


def _box(one: _Detection, frame_wh: tuple[int, int] | None, extra: str | None = None) -> tuple[object, ...]:
    edges: Sequence[float | None] = one.xyxyn or (None,) * 4
    if one.xyxyn is None and one.xyxy is not None and frame_wh is not None and min(frame_wh) > 0:
        edges = [min(max(edge / size, 0.0), 1.0) for edge, size in zip(one.xyxy, frame_wh * 2, strict=True)]
    return (one.class_id, one.label or None, one.confidence, *edges, one.tracker_id, extra)


def _decoded(decoder: msgspec.json.Decoder[_T], text: bytes | msgspec.Raw) -> _T | None:
    try:
        return decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


_encoder = msgspec.json.Encoder()
_details = msgspec.json.Decoder(_Details)
_detection = msgspec.json.Decoder(_Detection)
_detections = msgspec.json.Decoder(list[_Detection])
_raw_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_raw_rows = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_FIELDS = {field.name: msgspec.json.Decoder(field.type) for field in msgspec.structs.fields(_Details)}
_DETECTION_FIELDS = tuple(field.name for field in msgspec.structs.fields(_Detection))
