"""Input and output tensors of a model, whatever their layout and whether they hold integers."""

from __future__ import annotations

import msgspec
import numpy as np

from edgecv.errors import SpecMismatch
from edgecv.protocols import Array
from edgecv.results import FloatArray
from edgecv.specs import TensorSpec

_EXP_LIMIT = 80.0  # exp(80) still fits in a float32


def image_input(inputs: tuple[TensorSpec, ...]) -> TensorSpec:
    """The one image input of a session, with its layout; ``SpecMismatch`` where it has none, or others beside it."""
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise SpecMismatch(f"Expected one image input of four axes, not {[spec.shape for spec in inputs]}.")
    spec = inputs[0]
    if spec.layout:
        return spec
    return msgspec.structs.replace(spec, layout="NHWC" if spec.shape[3] == 3 else "NCHW")


def of_one_image(outputs: tuple[TensorSpec, ...], batch: int) -> tuple[TensorSpec, ...]:
    """What a decoder gets: the outputs of one row; ``SpecMismatch`` where they do not have ``batch`` rows."""
    if batch == 1:
        return outputs
    if any(spec.shape[:1] not in ((batch,), (-1,)) for spec in outputs):
        raise SpecMismatch(f"{batch} images go in, but {[spec.shape for spec in outputs]} comes out.")
    return tuple(msgspec.structs.replace(spec, shape=(1, *spec.shape[1:])) for spec in outputs)


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
