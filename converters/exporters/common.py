"""What the exporters share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from edgecv._internal.extras import require
from edgecv._internal.foreign import foreign_errors
from edgecv._internal.quiet import quiet
from edgecv.converters.source import Part
from edgecv.errors import ConversionError
from edgecv.specs import TensorSpec

MAX_FILE_BYTES = 2**31 - 1  # of a protobuf message (ONNX) and of a flatbuffer (TFLite)


@contextmanager
def library(said: str, hint: str = "Report it with the model; --debug shows the whole error.") -> Iterator[None]:
    """Calls into an exporting library, in silence; what it raises is a ``ConversionError`` that begins with ``said``."""
    with foreign_errors(ConversionError, said, hint), quiet():
        yield


def example_inputs(part: Part) -> tuple[Any, ...]:
    """Inputs for tracing."""
    torch = require("torch", "convert")
    return tuple(torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype)) for spec in part.inputs)


def weight_bytes(module: Any) -> int:
    """Bytes of a torch module's weights."""
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


def channels_last(spec: TensorSpec) -> TensorSpec:
    """An NCHW output as it leaves a runtime that computes in NHWC; any other as it is."""
    if spec.layout != "NCHW":
        return spec
    batch, channels, height, width = spec.shape
    return msgspec.structs.replace(spec, shape=(batch, height, width, channels), layout="NHWC")
