"""Boxes as a coarse mosaic: one colour for each cell, so few cells that nobody is told apart by them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgecv.errors import SpecMismatch
from edgecv.results import FloatArray, Image

GROWTH = 1.3  # boxes cut off hair and feet, and come a frame late
_CELLS = 8  # along the longer side of a box that was enlarged; one more where the cells begin before it
_LEAST_PX = 4  # a cell of a small box: below this a mosaic hides little

_Places = npt.NDArray[np.int64]


def mosaic(image: Image, boxes: FloatArray) -> Image:
    """A copy of an image ``(H, W, 3)`` in which boxes ``(N, 4)`` (``xyxy``, pixels) are a mosaic.

    Each box is enlarged to 1.3 times its width and height. Its cells are squares with a power of two as their side, and
    lie on one grid for the whole image: an object that moves shows no finer parts from frame to frame. Of boxes that
    overlap, the one with the largest cells is painted last.

    Raises:
        SpecMismatch: a box is no box: then nobody knows what should have been hidden.
    """
    if boxes.ndim != 2 or boxes.shape[1:] != (4,) or not np.isfinite(boxes).all():
        raise SpecMismatch("A box that is to be hidden is not made of four numbers.")
    hidden = image.copy()
    for box, side in sorted(_cells(boxes.astype(np.float64)), key=lambda one: one[1]):
        _paint(hidden, box, side)
    return hidden


def _cells(boxes: npt.NDArray[np.float64]) -> list[tuple[npt.NDArray[np.float64], int]]:
    """Each box, enlarged, with the side of its cells."""
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, np.abs(boxes[:, 2:] - boxes[:, :2]) / 2 * GROWTH
    sides = [max(_LEAST_PX, 1 << int(np.ceil(np.log2(max(1.0, 2 * longer / _CELLS))))) for longer in half.max(axis=1)]
    return list(zip(np.concatenate([middle - half, middle + half], axis=1), sides, strict=True))


def _paint(image: Image, box: npt.NDArray[np.float64], side: int) -> None:
    height, width = image.shape[:2]
    left, top = (int(np.floor(value / side)) * side for value in box[:2])
    right, bottom = (
        max(int(np.ceil(value / side)) * side, at + side) for value, at in zip(box[2:], (left, top), strict=True)
    )
    part = image[max(0, top) : max(0, min(height, bottom)), max(0, left) : max(0, min(width, right))]
    if not part.size:  # the box lies outside the image
        return
    rows, columns = _starts(part.shape[0], side), _starts(part.shape[1], side)
    sums = np.add.reduceat(np.add.reduceat(part.astype(np.uint32), rows, axis=0), columns, axis=1)
    down, across = np.diff(rows, append=part.shape[0]), np.diff(columns, append=part.shape[1])
    means = (sums / (down[:, None] * across)[..., None]).round().astype(np.uint8)
    part[...] = means.repeat(down, axis=0).repeat(across, axis=1)


def _starts(length: int, side: int) -> _Places:
    """Where cells begin: both ends of a part lie on the grid, or at the edge of the image."""
    return np.arange(0, length, side)
