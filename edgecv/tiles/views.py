"""Boxes, masks and keypoints of several views of one image, put together to those of the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecv.detections import BoolArray, Detections, FloatArray
from edgecv.tiles.grid import Window
from edgecv.tiles.merge import Seen, merge


def put_together(found: Sequence[Detections], windows: Sequence[Window], iou: float, most: int) -> Detections:
    """Detections of each view in its own pixels, as detections of the image, each object once.

    Args:
        found: What was found in each view.
        windows: Where each view lies in the image; that of the whole image first.
        iou: Boxes of one class that overlap more than this are one object.
        most: At most this many boxes.
    """
    shift = [np.array([left, top] * 2, np.float32) for left, top, _, _ in windows]
    seen = Seen(
        xyxy=np.concatenate([one.xyxy + by for one, by in zip(found, shift, strict=True)]),
        confidence=np.concatenate([one.confidence for one in found]),
        class_id=np.concatenate([one.class_id for one in found]),
        view=np.repeat(np.arange(len(found)), [len(one) for one in found]),
        windows=windows,
    )
    kept = merge(seen, iou, most)
    best = np.array([one.surest for one in kept], np.int64)
    row_in_view = np.concatenate([np.arange(len(one)) for one in found])
    places = [[(int(seen.view[at]), int(row_in_view[at])) for at in one.members] for one in kept]
    return Detections(
        xyxy=np.stack([one.xyxy for one in kept]) if kept else seen.xyxy[:0],
        confidence=seen.confidence[best],
        class_id=seen.class_id[best],
        mask=None if found[0].mask is None else _masks(found, windows, places),
        keypoints=None if found[0].keypoints is None else _keypoints(found, shift, places),
    )


def _masks(
    found: Sequence[Detections], windows: Sequence[Window], places: Sequence[Sequence[tuple[int, int]]]
) -> BoolArray:
    """Masks in the size of the image; of an object in parts, all of them together."""
    _, _, width, height = windows[0]
    masks = np.zeros((len(places), height, width), np.bool_)
    for whole, parts in zip(masks, places, strict=True):
        for view, row in parts:
            left, top, right, bottom = windows[view]
            mask = found[view].mask
            assert mask is not None  # of this view as of the first
            whole[top:bottom, left:right] |= mask[row]
    return masks


def _keypoints(
    found: Sequence[Detections], shift: Sequence[FloatArray], places: Sequence[Sequence[tuple[int, int]]]
) -> FloatArray:
    """Keypoints in pixels of the image; of an object in parts, each point from the part that is surest of it."""
    first = found[0].keypoints
    assert first is not None
    points = np.full((len(places), *first.shape[1:]), -1, np.float32)  # less sure than any
    for whole, parts in zip(points, places, strict=True):
        for view, row in parts:
            own = found[view].keypoints
            assert own is not None  # of this view as of the first
            placed = own[row] + np.array([*shift[view][:2], 0], np.float32)
            surer = placed[:, 2] > whole[:, 2]
            whole[surer] = placed[surer]
    return points
