"""Models in ONNX whose weights alone are small integers, or half as long: activations stay float."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv.quantize.ort.graph import Graph, Node, add_constant, drop_unused_constants, load, save
from edgecv.quantize.quantizer import library

_TABLE = 2**16  # elements; below it, halving saves nothing
_FLOAT = 1  # TensorProto.FLOAT


def quantize_products(model: Path, out: Path) -> None:
    """Write weights of matrix products as int8, activations quantized as they come: what transformers bear."""
    tools: Any = require("onnxruntime.quantization", "convert")
    with library("onnxruntime"):
        tools.quantize_dynamic(
            str(model),
            str(out),
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=tools.QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )


def halve_tables(path: Path) -> None:
    """Store large float constants (position tables, convolutions) as fp16, cast back when the model is loaded, in place.

    They keep eleven bits, three more than the weights around them; SAM ViT-B's are a fifth of its INT8 file.
    """
    model = load(path)
    helper, arrays = require("onnx.helper", "convert"), require("onnx.numpy_helper", "convert")
    for tensor in model.graph.initializer:
        values = arrays.to_array(tensor)
        if values.dtype != np.float32 or values.size < _TABLE or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = tensor.name
        tensor.CopyFrom(arrays.from_array(values.astype(np.float16), f"{name}/half"))
        model.graph.node.insert(0, helper.make_node("Cast", [tensor.name], [name], to=_FLOAT))
    save(model, path)


def store_convolutions(path: Path) -> None:
    """Store the weights of the convolutions of a model as int8, a scale per channel; they are floats again when it runs."""
    model = load(path)
    graph = Graph(model)
    make_node = require("onnx.helper", "convert").make_node
    made: dict[str, Node] = {}
    for node in graph.nodes:
        weights = graph.constant(node.input[1]) if node.op_type == "Conv" else None
        if weights is None:
            continue
        name = node.input[1]
        if name not in made:
            scale = np.maximum(np.abs(weights).max(axis=(1, 2, 3)), 1e-12).astype(np.float32) / np.float32(127)
            parts = [
                add_constant(model, f"{name}/int8", np.rint(weights / scale[:, None, None, None]).astype(np.int8)),
                add_constant(model, f"{name}/scale", scale),
            ]
            made[name] = make_node("DequantizeLinear", parts, [f"{name}/real"], axis=0)
        node.input[1] = f"{name}/real"
    for dequantize in made.values():
        model.graph.node.insert(0, dequantize)
    drop_unused_constants(model)
    save(model, path)
