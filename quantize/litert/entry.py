"""Pixels that enter a TFLite network as integers, as the Edge TPU wants it.

A network begins with ``CAST`` to float and ``QUANTIZE`` to int8. Google's compiler stops at the first operator that works on
floats, and leaves all that follows to the CPU (coral.ai/docs/edgetpu/models-intro; Axis, Optimization tips for ARTPEC-7). A
pixel is an integer with the scale 1, so ``QUANTIZE`` can read it as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv.errors import QuantizationError


def take_pixels_as_integers(path: Path) -> None:
    """Let the first ``QUANTIZE`` of an int8 model read its uint8 pixels, in place; every integer after it stays the same.

    Raises:
        QuantizationError: the model does not begin with ``CAST`` and ``QUANTIZE``, so it would run on the CPU.
    """
    files = require("ai_edge_litert.tools.flatbuffer_utils", "convert")
    schema = require("ai_edge_litert.schema_py_generated", "convert")
    model = files.read_model(str(path))
    graph = model.subgraphs[0]
    kinds = {id(operator): _kind(model, operator) for operator in graph.operators}
    cast = next((one for one in graph.operators if kinds[id(one)] == schema.BuiltinOperator.CAST), None)
    users = [one for one in graph.operators if cast is not None and cast.outputs[0] in one.inputs]
    if cast is None or not users or any(kinds[id(one)] != schema.BuiltinOperator.QUANTIZE for one in users):
        raise QuantizationError(
            "The pixels of this network do not enter it as integers: an Edge TPU would leave all of it to the CPU.",
            "Use --to tflite without --target edgetpu.",
        )
    for one in users:
        one.inputs = cast.inputs
    graph.operators.remove(cast)
    pixels = schema.QuantizationParametersT()
    pixels.scale, pixels.zeroPoint = np.array([1], np.float32), np.array([0], np.int64)
    graph.tensors[cast.inputs[0]].quantization = pixels
    files.write_model(model, str(path))


def _kind(model: Any, operator: Any) -> int:
    code = model.operatorCodes[operator.opcodeIndex]
    return max(code.builtinCode, code.deprecatedBuiltinCode)  # the older field holds codes up to 127
