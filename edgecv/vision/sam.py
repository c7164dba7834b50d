"""SAM's geometry: the padding colour that the graph recognises, and prompts as its tensors."""

from __future__ import annotations

import numpy as np

from edgecv.protocols import Array
from edgecv.vision.geometry import ImageTransform

# SAM pads after normalising, with 0. No uint8 colour normalises to 0, so the graph turns exactly this one (the rounded mean) into
# 0; an image's own pixel of this colour moves by less than half a grey level.
PADDING_BGR = (104, 116, 124)

# Kinds of points, as in SAM's own ONNX export; the last one is ours: a slot that takes no part in the attention.
OUTSIDE, INSIDE, TOP_LEFT, BOTTOM_RIGHT, NO_POINT, UNUSED = 0, 1, 2, 3, -1, -2


def content_wh(transform: ImageTransform) -> tuple[int, int]:
    """Width and height in model pixels of the image without its padding."""
    (scale_x, scale_y), (width, height) = transform.scale_xy, transform.frame_wh
    return round(width * scale_x), round(height * scale_y)


def point_prompt(points: Array, labels: Array, slots: int) -> tuple[Array, Array]:
    """Points of one object as the decoder's ``(1, slots, 2)`` and ``(1, slots)`` float32.

    SAM was trained to see one ``NO_POINT`` after points without a box. Points are ``(K, 2)`` model pixels, ``K < slots``, labels
    ``(K,)`` kinds.
    """
    return _slots(np.concatenate([points, np.zeros((1, 2))]), np.append(labels, NO_POINT), slots)


def box_prompt(corners: Array, slots: int, ends: bool = False) -> tuple[Array, Array]:
    """The ``(2, 2)`` corners of a box in model pixels; as ``point_prompt``, a ``NO_POINT`` follows only where ``ends`` says so."""
    if ends:
        return point_prompt(corners, np.array([TOP_LEFT, BOTTOM_RIGHT]), slots)
    return _slots(corners, np.array([TOP_LEFT, BOTTOM_RIGHT]), slots)


def _slots(points: Array, labels: Array, slots: int) -> tuple[Array, Array]:
    coords = np.zeros((1, slots, 2), np.float32)
    kinds = np.full((1, slots), UNUSED, np.float32)
    coords[0, : len(points)] = points
    kinds[0, : len(labels)] = labels
    return coords, kinds
