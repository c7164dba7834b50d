"""Resizing with antialiasing: what classifiers of torchvision and Ultralytics are trained and measured with.

They resize with Pillow's bilinear filter, which widens with the shrinking: each output pixel is the mean of the input pixels
under a triangle twice as wide as the step. cv2 has no such filter. Against Pillow, 40 COCO photographs to 224: INTER_LINEAR 4.6
grey levels off in the mean, INTER_AREA 1.7, a box filter and then INTER_AREA 1.1, this 0.13 (it only rounds less often).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from edgecv.detections import FloatArray, Image

# Output rows per matrix product: most weights in a block are not zero, and OpenBLAS keeps products this small on one thread
# (waking a second one for each costs more than it saves, and milliseconds where the cores are busy).
_BLOCK = 4
_REMEMBERED = 16  # pairs of sizes; one camera needs two of them

Window = tuple[int, int, int, int]


def resize_antialiased(image: Image, size_wh: tuple[int, int], window: Window | None = None) -> Image:
    """Resize ``(H, W, 3)`` uint8 with a triangle filter as wide as the shrinking; enlarging is linear interpolation.

    ``size_wh`` is that of the whole resized image, ``window`` (left, top, right, bottom) the part that is wanted: only what it
    needs is computed. The result is ``(bottom - top, right - left, 3)`` uint8.
    """
    left, top, right, bottom = window or (0, 0, *size_wh)
    across = _blocks(image.shape[1], size_wh[0], left, right)
    down = _blocks(image.shape[0], size_wh[1], top, bottom)
    first, last = across[0].first, across[-1].last
    tall = _filtered(image[:, first:last].reshape(len(image), -1), down, 0).reshape(bottom - top, last - first, 3)
    turned = np.ascontiguousarray(tall.transpose(1, 0, 2)).reshape(last - first, -1)
    both = _filtered(turned, across, first).reshape(right - left, bottom - top, 3)
    return np.ascontiguousarray(np.rint(both).clip(0, 255).astype(np.uint8).transpose(1, 0, 2))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Block:
    """A few neighbouring output pixels of one axis: the sums of input pixels ``first`` to ``last`` with ``weights``."""

    first: int
    last: int
    weights: FloatArray  # (output pixels, last - first); rows sum to 1


@functools.lru_cache(maxsize=_REMEMBERED)
def _blocks(pixels: int, wanted: int, start: int, stop: int) -> tuple[_Block, ...]:
    """The output pixels ``start`` to ``stop`` of ``wanted`` that are made from ``pixels``."""
    step = pixels / wanted
    reach = max(step, 1.0)
    return tuple(
        _block(pixels, (np.arange(at, min(at + _BLOCK, stop)) + 0.5) * step, reach) for at in range(start, stop, _BLOCK)
    )


def _block(pixels: int, centers: FloatArray, reach: float) -> _Block:
    """The output pixels with these centres, in input pixels, each seeing as far as ``reach``."""
    lows = (centers - reach + 0.5).clip(0).astype(np.int64)
    highs = (centers + reach + 0.5).clip(None, pixels).astype(np.int64)
    first, last = int(lows[0]), int(highs[-1])
    places = np.arange(first, last)[None]
    heights = (1 - np.abs(places + 0.5 - centers[:, None]) / reach).clip(0)
    heights[(places < lows[:, None]) | (places >= highs[:, None])] = 0
    weights = (heights / heights.sum(axis=1, keepdims=True)).astype(np.float32)
    return _Block(first=first, last=last, weights=weights)


def _filtered(rows: Image | FloatArray, blocks: tuple[_Block, ...], origin: int) -> FloatArray:
    """``(pixels, M)`` rows, the first of which is input pixel ``origin``, to ``(output pixels, M)`` floats."""
    made = np.empty((sum(len(block.weights) for block in blocks), rows.shape[1]), np.float32)
    at = 0
    for block in blocks:
        seen = rows[block.first - origin : block.last - origin].astype(np.float32, copy=False)
        np.matmul(block.weights, seen, out=made[at : at + len(block.weights)])
        at += len(block.weights)
    return made
