"""Output tensors of a head, whatever their layout and whether they hold integers."""

from __future__ import annotations

import numpy as np

from edgecv.protocols import Array
from edgecv.results import FloatArray
from edgecv.specs import TensorSpec

_EXP_LIMIT = 80.0  # exp(80) still fits in a float32


def cells_last(tensor: Array, spec: TensorSpec) -> Array:
    """``(1, C, H, W)`` or ``(1, H, W, C)`` as ``(C, H × W)``, without a copy."""
    if spec.layout == "NHWC":
        return tensor.reshape(-1, tensor.shape[-1]).T
    return tensor.reshape(tensor.shape[1], -1)


def cell_count(spec: TensorSpec) -> int:
    """Cells of an output's grid."""
    return spec.shape[1] * spec.shape[2] if spec.layout == "NHWC" else spec.shape[2] * spec.shape[3]


def channels_of(spec: TensorSpec) -> int:
    """How many channels an output has, whatever its layout."""
    return spec.shape[3] if spec.layout == "NHWC" else spec.shape[1]


def width_of(spec: TensorSpec) -> int:
    """Width of an output's grid in cells."""
    return spec.shape[2] if spec.layout == "NHWC" else spec.shape[3]


def real_values(stored: Array, spec: TensorSpec) -> FloatArray:
    """Stored numbers as the real values they stand for."""
    if spec.scale is None:
        return stored.astype(np.float32, copy=False)
    return (stored.astype(np.float32) - (spec.zero_point or 0)) * np.float32(spec.scale)


def sigmoid(logits: FloatArray) -> FloatArray:
    """Logits to 0..1, of any shape."""
    return (1.0 / (1.0 + np.exp(-logits.clip(-_EXP_LIMIT)))).astype(np.float32)
