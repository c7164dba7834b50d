"""Masks of a segmentation head in frame pixels: weighted sums of prototypes, which lie on a coarser grid."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, gcd

import numpy as np

from edgecv.results import FloatArray, IntArray
from edgecv.vision.geometry import ImageTransform

_Window = tuple[int, int, int, int]  # left, top, right, bottom in pixels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Axis:
    """How one axis of the frame lies on the prototypes' grid, whose cells are first cut into ``parts`` each."""

    parts: int  # how many finer cells one cell becomes, by linear interpolation
    # `(frame pixels,)` where their centres lie, in finer cells from the first centre; never among the padding
    places: FloatArray

    def cells(self, first: int, last: int) -> FloatArray:
        """Where the finer cells ``first`` to ``last`` lie, in cells from the first centre."""
        return ((np.arange(first, last + 1) + 0.5) / self.parts - 0.5).astype(np.float32)


def axes(transform: ImageTransform, size_wh: tuple[int, int], grid_wh: tuple[int, int]) -> tuple[Axis, Axis]:
    """Both axes of the frame, x and y.

    A cell that is part image and part padding would bring the padding into the mask. So cells are cut as finely as needed for
    the padding to end between two of them, and what is padding stays out, as in the masks this family is measured with.
    """
    cell_px = max(1, size_wh[0] // grid_wh[0])
    pixels = [max(1, round(count * scale)) for count, scale in zip(transform.frame_wh, transform.scale_xy, strict=True)]
    padding = [size - count for size, count in zip(size_wh, pixels, strict=True)]
    parts = cell_px // gcd(cell_px, *padding, *(pad // 2 for pad in padding))
    x, y = (
        _axis(count, inside * parts / cell_px, offset * parts / cell_px, parts)
        for count, inside, offset in zip(transform.frame_wh, pixels, transform.offset_xy, strict=True)
    )
    return x, y


def _axis(frame_pixels: int, length: float, offset: float, parts: int) -> Axis:
    """The axis of a frame that fills ``length`` finer cells from ``offset`` on."""
    first, count = round(offset), max(1, round(length))
    places = (np.arange(frame_pixels) + 0.5) * count / frame_pixels - 0.5
    return Axis(parts=parts, places=(first + places.clip(0, count - 1)).astype(np.float32))


def mixed(prototypes: FloatArray, weights: FloatArray, x: Axis, y: Axis, window: _Window) -> FloatArray:
    """The weighted sum of ``(C, h, w)`` prototypes at the frame pixels of a window.

    Only the part of the grid that is needed is summed.
    """
    left, top, right, bottom = window
    columns, rows = x.places[left:right], y.places[top:bottom]
    fine_x, fine_y = (x.cells(*_span(columns)), y.cells(*_span(rows)))
    (first_x, last_x), (first_y, last_y) = _span(fine_x), _span(fine_y)
    _, height, width = prototypes.shape
    near_x, near_y = max(0, first_x), max(0, first_y)
    needed = prototypes[:, near_y : min(last_y, height - 1) + 1, near_x : min(last_x, width - 1) + 1]
    summed = np.tensordot(weights, needed, axes=1)
    fine = summed
    if max(x.parts, y.parts) > 1:
        fine = _interpolated(summed, fine_y - near_y, fine_x - near_x)
        near_x, near_y = _span(columns)[0], _span(rows)[0]
    return _interpolated(fine, rows - near_y, columns - near_x)


def _span(places: FloatArray) -> tuple[int, int]:
    """The cells before the first and after the last of ascending places."""
    return floor(places[0]), ceil(places[-1])


def _interpolated(grid: FloatArray, rows: FloatArray, columns: FloatArray) -> FloatArray:
    """``(h, w)`` values at ``(len(rows), len(columns))`` ascending places between them, linearly."""
    top, below, down = _neighbours(rows, grid.shape[0])
    left, right, across = _neighbours(columns, grid.shape[1])
    # Columns first: whole rows are copied faster than columns are picked.
    wide = grid[:, left] * (1 - across) + grid[:, right] * across
    values: FloatArray = wide[top]
    values += (wide[below] - values) * down[:, None]
    return values


def _neighbours(positions: FloatArray, size: int) -> tuple[IntArray, IntArray, FloatArray]:
    """The cells before and after ascending positions, and how far each lies from the first to the second, 0 to 1."""
    inside = positions.clip(0, size - 1)
    before = np.floor(inside).astype(np.int64)
    return before, np.minimum(before + 1, size - 1), inside - before
