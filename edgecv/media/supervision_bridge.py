"""``Detections`` to and from ``supervision.Detections``, without importing supervision.

Their ``data`` holds what their class has no field for: rotated boxes as the four corners under ``xyxyxyxy``, class names
under ``class_name``; keypoints travel there under ``keypoints``.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi
from typing import Any

import numpy as np

from edgecv.errors import SpecMismatch
from edgecv.protocols import Array
from edgecv.results import Detections, FloatArray, label_of

_CORNERS, _KEYPOINTS, _NAMES = "xyxyxyxy", "keypoints", "class_name"


def as_supervision(found: Detections, labels: Sequence[str] = ()) -> dict[str, Any]:
    """Keyword arguments for ``supervision.Detections(**...)``; arrays are shared, not copied.

    supervision's zones and lines take the id -1 of unconfirmed objects for an object: hand them
    ``found[found.tracker_id >= 0]``.

    Args:
        found: Boxes of one frame.
        labels: Name of each class, which supervision's annotators show; left out by default.
    """
    data: dict[str, Any] = dict(found.data or {})
    if found.obb is not None:
        data[_CORNERS] = corners_of(found.obb)
    if found.keypoints is not None:
        data[_KEYPOINTS] = found.keypoints
    if labels:
        data[_NAMES] = np.array([label_of(tuple(labels), int(one)) for one in found.class_id], np.str_)
    return {
        "xyxy": found.xyxy,
        "confidence": found.confidence,
        "class_id": found.class_id,
        "tracker_id": found.tracker_id,
        "mask": found.mask,
        "data": data,
    }


def from_supervision(found: Any) -> Detections:
    """From anything with the fields of ``supervision.Detections``.

    Where it has no confidence each box gets 1.0, where it has no class the class 0.

    Raises:
        SpecMismatch: a field has another length than ``xyxy``, or is no array.
    """
    try:
        xyxy = np.asarray(found.xyxy, np.float32).reshape(-1, 4)
        data = {name: _column(values) for name, values in (getattr(found, "data", None) or {}).items()}
        corners, keypoints = data.pop(_CORNERS, None), data.pop(_KEYPOINTS, None)
        return Detections(
            xyxy=xyxy,
            confidence=_or_full(found.confidence, len(xyxy), 1, np.float32),
            class_id=_or_full(found.class_id, len(xyxy), 0, np.int64),
            tracker_id=_or_none(getattr(found, "tracker_id", None), np.int64),
            mask=_or_none(getattr(found, "mask", None), np.bool_),
            keypoints=_or_none(keypoints, np.float32),
            obb=None if corners is None else obb_of(np.asarray(corners, np.float64)),
            data=data or None,
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise SpecMismatch(
            f"This is not like supervision.Detections: {error}.", "It needs xyxy, confidence and class_id."
        ) from error


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
