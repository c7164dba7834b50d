"""Rows of im2col: the patches of a convolution's input that meet its weights, at places drawn by chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from edgecv.quantize.rounding.moments import FloatArray

# Drawn per layer and image: 64 images give 10,000 rows for at most a few thousand columns.
ROWS_PER_IMAGE = 160
MOST_BYTES = 1 << 30  # of the moments that are held at a time; a larger network takes several passes


class Measured(Protocol):
    """A layer whose moments are collected."""

    @property
    def groups(self) -> int:
        """How many sets of inputs it has, each with weights of its own."""

    @property
    def columns(self) -> int:
        """How many inputs meet one row of weights."""


_Layer = TypeVar("_Layer", bound=Measured)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How a convolution moves over its input; height comes before width.

    Attributes:
        kernel: Taps.
        strides: Pixels from one output to the next.
        steps: Pixels from one tap to the next: the dilation.
        pads: Zeros at the top, left, bottom and right.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    steps: tuple[int, int]
    pads: tuple[int, int, int, int]

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the output for an input of this ``size``."""
        high, wide = (
            (size[d] + self.pads[d] + self.pads[d + 2] - self.steps[d] * (self.kernel[d] - 1) - 1) // self.strides[d]
            + 1
            for d in (0, 1)
        )
        return high, wide


def passes(layers: Sequence[_Layer], most: int = 1 << 30) -> Iterator[list[_Layer]]:
    """Layers in their order, as many at a time as memory for moments allows, ``most`` at the most."""
    several: list[_Layer] = []
    held = 0
    for layer in layers:
        needed = 4 * layer.groups * layer.columns**2
        if several and (held + needed > MOST_BYTES or len(several) == most):
            yield several
            several, held = [], 0
        several.append(layer)
        held += needed
    if several:
        yield several


def draw(count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Numbers of the rows that are looked at, all of them where they are few."""
    return np.arange(count) if count <= ROWS_PER_IMAGE else rng.integers(count, size=ROWS_PER_IMAGE)


def patches(inputs: FloatArray, groups: int, window: Window, rng: np.random.Generator) -> FloatArray:
    """Rows ``(groups, count, columns)`` of the input ``(N, C, H, W)`` of a convolution."""
    high, wide = window.size((inputs.shape[2], inputs.shape[3]))
    drawn = draw(len(inputs) * high * wide, rng)
    image, place = np.divmod(drawn, high * wide)
    corners = np.divmod(place, wide)
    rows, columns = (
        (corners[d] * window.strides[d] - window.pads[d])[:, None] + np.arange(window.kernel[d]) * window.steps[d]
        for d in (0, 1)
    )
    taken = _taken(inputs, image, rows, columns).reshape(len(drawn), groups, -1)
    return np.ascontiguousarray(taken.transpose(1, 0, 2))


def _taken(
    inputs: FloatArray, image: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> FloatArray:
    """Patches ``(count, channels, height, width)`` of pixels; those beyond the edge are zero."""
    high, wide = inputs.shape[2:]
    inside = ((rows >= 0) & (rows < high))[:, :, None] & ((columns >= 0) & (columns < wide))[:, None, :]
    rows, columns = rows.clip(0, high - 1), columns.clip(0, wide - 1)
    taken = inputs[image[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    found: FloatArray = (taken * inside[..., None]).transpose(0, 3, 1, 2)
    return found
