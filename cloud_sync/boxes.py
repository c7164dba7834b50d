"""Normalised boxes of a result: left out on the way, put back where somebody reads.

``xyxyn`` follows from ``xyxy`` and ``frame_wh``. In a batch of results with five objects each it is a third of the bytes, so an
outbox and the compressed wire do without it.
"""

from __future__ import annotations

import msgspec

_Fields = dict[str, msgspec.Raw]
_Box = tuple[float, float, float, float]


def with_normalised_boxes(payload: str) -> str:
    """The payload of a result with ``xyxyn``, 0 to 1 of the frame to six digits, at the end of each detection.

    All else stays as it was written. A payload that is no result of EdgeCV, or has them already, is given back as it is.
    """
    try:
        document = _document.decode(payload)
        width, height = _size.decode(document["frame_wh"])
        rows = _rows.decode(document["detections"])
        if not rows or any("xyxyn" in row for row in rows):
            return payload
        sizes = (width, height, width, height)
        for row in rows:
            box = _box.decode(row["xyxy"])
            row["xyxyn"] = _raw([_part(value, size) for value, size in zip(box, sizes, strict=True)])
    except (msgspec.MsgspecError, KeyError, ArithmeticError, RecursionError):
        return payload
    document["detections"] = _raw(rows)
    return msgspec.json.encode(document).decode()


def _part(value: float, size: int) -> float:
    return round(min(max(value / size, 0.0), 1.0), 6)


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


_document = msgspec.json.Decoder(_Fields)
_size = msgspec.json.Decoder(tuple[int, int])
_rows = msgspec.json.Decoder(list[_Fields])
_box = msgspec.json.Decoder(_Box)
