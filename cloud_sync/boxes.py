"""Normalised boxes of a result: left out on the way, put back where somebody reads.

``xyxyn`` follows from ``xyxy`` and ``frame_wh``. In a batch of results with five objects each it is a third of the bytes, so an
outbox and the compressed wire do without it.
"""

from __future__ import annotations

from typing import Any

import msgspec

_Fields = dict[str, msgspec.Raw]


class _Box(msgspec.Struct):
    """What of a detection is needed here."""

    xyxy: tuple[float, float, float, float]
    xyxyn: Any = msgspec.UNSET


def with_normalised_boxes(payload: str) -> str:
    """The payload of a result with ``xyxyn``, 0 to 1 of the frame to six digits, at the end of each detection.

    All else stays as it was written. A payload that is no result of EdgeCV, or has them already, is given back as it is.
    """
    try:
        document = _document.decode(payload)
        width, height = _size.decode(document["frame_wh"])
        rows = _rows.decode(document["detections"])
        boxes = _boxes.decode(document["detections"])
        if not rows or any(box.xyxyn is not msgspec.UNSET for box in boxes):
            return payload
        sizes = (width, height, width, height)
        shares = [
            [round(min(max(value / size, 0.0), 1.0), 6) for value, size in zip(box.xyxy, sizes, strict=True)]
            for box in boxes
        ]
    except (msgspec.MsgspecError, KeyError, ArithmeticError, RecursionError):
        return payload
    # At the end of each object, before its bracket: nothing else is written anew.
    ended = [bytes(row)[:-1] + b',"xyxyn":' + _encode(share) + b"}" for row, share in zip(rows, shares, strict=True)]
    document["detections"] = msgspec.Raw(b"[" + b",".join(ended) + b"]")
    return msgspec.json.encode(document).decode()


_document = msgspec.json.Decoder(_Fields)
_size = msgspec.json.Decoder(tuple[int, int])
_rows = msgspec.json.Decoder(list[msgspec.Raw])
_boxes = msgspec.json.Decoder(list[_Box])
_encode = msgspec.json.Encoder().encode
