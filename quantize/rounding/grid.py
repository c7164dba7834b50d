"""Which integers a quantizer will make of the weights of a layer.

A quantizer derives the scale of an output channel from its largest weight. So a rounding survives it when the largest
weight of each row stays where it is: the quantizer then finds the same scale, and every weight lies on its grid already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from edgecv.quantize.rounding.moments import RealArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The integers of one way to store weights, with one scale for each output channel.

    Attributes:
        name: What recipes call it.
        least: The smallest integer.
        most: The largest integer.
        largest: What becomes of the weight of largest magnitude: with ``signed_scale`` this integer itself, else this
            integer with the sign of the weight.
        signed_scale: The scale has the sign that makes the largest weight ``largest``.
    """

    name: str
    least: int
    most: int
    largest: int
    signed_scale: bool = False

    def scales(self, weights: RealArray) -> RealArray:
        """The scale ``(..., rows, 1)`` of each row of ``weights (..., rows, columns)``; 1 for a row of zeros.

        Quantizers compute in float32, so the scale is one.
        """
        at = np.abs(weights).argmax(axis=-1, keepdims=True)
        ends = np.take_along_axis(weights, at, axis=-1)
        ends = ends if self.signed_scale else np.abs(ends)
        scales = (ends.astype(np.float32) / np.float32(self.largest)).astype(np.float64)
        return np.where(scales == 0, 1.0, scales)

    def fixed(self, weights: RealArray) -> RealArray:
        """For each weight the integer it must become, or NaN where it is free: the largest of a row keeps its place."""
        fixed = np.full(weights.shape, np.nan)
        at = np.abs(weights).argmax(axis=-1, keepdims=True)
        ends = np.take_along_axis(weights, at, axis=-1)
        integers = np.full(ends.shape, float(self.largest)) if self.signed_scale else self.largest * np.sign(ends)
        np.put_along_axis(fixed, at, np.where(ends == 0, 0.0, integers), axis=-1)
        return fixed


# Of static INT8 in every format, and of weights alone in ONNX and TFLite.
SYMMETRIC = Grid(name="int8", least=-127, most=127, largest=127)
# AVX2 without VNNI adds two products in 16 bits: 2 x 255 x 64 fits. onnxruntime's `reduce_range` stores -64 to 64.
SEVEN_BITS = Grid(name="int7", least=-64, most=64, largest=64)
# nncf.compress_weights with INT8_SYM: the scale has the sign that makes the largest weight -128 (read in nncf 3.4.0,
# quantization/algorithms/weight_compression/weight_lowering.py).
NNCF_WEIGHTS = Grid(name="nncf-weights", least=-128, most=127, largest=-128, signed_scale=True)

GRIDS: Mapping[str, Grid] = MappingProxyType({grid.name: grid for grid in (SYMMETRIC, SEVEN_BITS, NNCF_WEIGHTS)})
