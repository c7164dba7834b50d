"""Which pixels a polygon touches: never one too few."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgecv.pipelines.steps.regions import Points
from edgecv.results import BoolArray

_MARGIN_PX = 1e-6  # what rounding may have taken from an edge, many times over

_Counts = npt.NDArray[np.int16]


def touched(polygons: Sequence[Points], size_wh: tuple[int, int]) -> BoolArray:
    """The pixels ``(H, W)`` that any of the polygons touches, be it with a corner.

    Args:
        polygons: ``(K, 2)`` each, in shares of the image, 0 to 1. The last corner is joined to the first one.
        size_wh: Width and height of the image in pixels.
    """
    covered = np.zeros((size_wh[1], size_wh[0]), np.bool_)
    for polygon in polygons:
        corners = polygon * size_wh
        covered |= _within(corners, size_wh)
        covered |= _on_border(corners, size_wh)
    return covered


def _within(corners: Points, size_wh: tuple[int, int]) -> BoolArray:
    """The pixels whose middle the border goes round, however often (winding number)."""
    width, height = size_wh
    turns: _Counts = np.zeros((height, width + 1), np.int16)
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        first, last = np.ceil(np.sort((a[1], b[1])) - 0.5).astype(int)  # rows whose middle the edge passes
        rows = np.arange(max(0, first), min(height, last))
        if len(rows):
            at = a[0] + (rows + 0.5 - a[1]) * (b[0] - a[0]) / (b[1] - a[1])
            turns[rows, np.clip(np.ceil(at - 0.5), 0, width).astype(int)] += 1 if b[1] > a[1] else -1
    return np.asarray(np.cumsum(turns, axis=1, dtype=np.int16)[:, :width] != 0)


def _on_border(corners: Points, size_wh: tuple[int, int]) -> BoolArray:
    """The pixels that an edge meets, those that it only brushes too."""
    width, height = size_wh
    edges: _Counts = np.zeros((height, width + 1), np.int16)
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        low, high = min(a[1], b[1]) - _MARGIN_PX, max(a[1], b[1]) + _MARGIN_PX
        rows = np.arange(min(height - 1, max(0, int(np.floor(low)))), min(height - 1, int(np.floor(high))) + 1)
        upper = rows.astype(np.float64)
        if a[1] == b[1]:
            ends = [np.full(len(rows), x) for x in (a[0], b[0])]
        else:
            ends = [_x_at(a, b, side) for side in (upper - _MARGIN_PX, upper + 1 + _MARGIN_PX)]
        left = np.floor(np.minimum(*ends) - _MARGIN_PX).clip(0, width - 1).astype(int)
        right = np.floor(np.maximum(*ends) + _MARGIN_PX).clip(0, width - 1).astype(int)
        edges[rows, left] += 1
        edges[rows, right + 1] -= 1
    return np.asarray(np.cumsum(edges, axis=1, dtype=np.int16)[:, :width] > 0)


def _x_at(a: Points, b: Points, y: Points) -> Points:
    """Where an edge that is not level is at these heights: at one of its ends where it does not reach them."""
    return np.asarray(a[0] + np.clip((y - a[1]) / (b[1] - a[1]), 0, 1) * (b[0] - a[0]))
