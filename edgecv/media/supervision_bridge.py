"""What ``Detections`` needs to read and to fill a ``supervision.Detections``, without importing supervision.

Their ``data`` holds what their class has no field for: rotated boxes as the four corners under ``xyxyxyxy``, class names
under ``class_name``; keypoints travel there under ``keypoints``.
"""

from __future__ import annotations

from math import pi
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]


def fields_of(found: Any) -> dict[str, Any]:
    """The fields of ``Detections`` from anything with the fields of ``supervision.Detections``.

    Raises:
        AttributeError, TypeError, ValueError: it has no such fields, or they are no arrays.
    """
    xyxy = np.asarray(found.xyxy, np.float32).reshape(-1, 4)
    data = {name: _column(values) for name, values in (getattr(found, "data", None) or {}).items()}
    corners, keypoints = data.pop("xyxyxyxy", None), data.pop("keypoints", None)
    return {
        "xyxy": xyxy,
        "confidence": _or_full(found.confidence, len(xyxy), 1, np.float32),
        "class_id": _or_full(found.class_id, len(xyxy), 0, np.int64),
        "tracker_id": _or_none(getattr(found, "tracker_id", None), np.int64),
        "mask": _or_none(getattr(found, "mask", None), np.bool_),
        "keypoints": _or_none(keypoints, np.float32),
        "obb": None if corners is None else obb_of(np.asarray(corners, np.float64)),
        "data": data or None,
    }


def corners_of(obb: FloatArray) -> FloatArray:
    """Corners ``(N, 4, 2)`` of rotated boxes ``(N, 5)``, in Ultralytics' order: right bottom first where the angle is 0."""
    centre, (width, height, angle) = obb[:, :2], obb[:, 2:].T
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1) * width[:, None] / 2
    across = np.stack([-np.sin(angle), np.cos(angle)], axis=1) * height[:, None] / 2
    corners = [centre + along + across, centre + along - across, centre - along - across, centre - along + across]
    return np.stack(corners, axis=1).astype(np.float32)


def obb_of(corners: Array) -> FloatArray:
    """Rotated boxes ``(N, 5)`` of corners ``(N, 4, 2)`` in order round the box; angle from -π/4 up to 3π/4, as decoders give."""
    first, second, third, fourth = np.moveaxis(corners, 1, 0)
    along, across = (first + second - third - fourth) / 4, (first - second - third + fourth) / 4
    angle = (np.arctan2(along[:, 1], along[:, 0]) + pi / 4) % pi - pi / 4
    size = 2 * np.stack([np.hypot(*along.T), np.hypot(*across.T)], axis=1)
    return np.concatenate([corners.mean(axis=1), size, angle[:, None]], axis=1).astype(np.float32)


def _column(values: Any) -> Array:
    """An array with a row per box; a list of texts or of mixed things stays a list of objects."""
    if isinstance(values, np.ndarray):
        return values
    column = np.empty(len(values), dtype=object)
    column[:] = list(values)
    return column


def _or_full(values: Any, count: int, fill: float, dtype: type[np.generic]) -> Any:
    return np.full(count, fill, dtype) if values is None else np.asarray(values, dtype)


def _or_none(values: Any, dtype: type[np.generic]) -> Any:
    return None if values is None else np.asarray(values, dtype)
