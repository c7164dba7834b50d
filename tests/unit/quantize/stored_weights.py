"""The integers of weights, as the files of the three formats hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

Stored = list[np.ndarray]  # in the order the layers run, outputs first: ``(out, in, height, width)`` or ``(out, in)``


def in_onnx(path: Path) -> Stored:
    """Of ``DequantizeLinear`` before convolutions and products, and of ``MatMulInteger``."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    found = []
    for node in graph.node:
        maker = makers.get(node.input[1]) if node.op_type in ("Conv", "Gemm", "MatMul") else None
        if maker is not None and maker.op_type == "DequantizeLinear" and maker.input[0] in held:
            values = held[maker.input[0]]
            by_column = node.op_type == "MatMul" or (
                node.op_type == "Gemm" and not any(item.name == "transB" and item.i for item in node.attribute)
            )
            found.append(values.T if by_column else values)
        elif node.op_type == "MatMulInteger":
            found.append(held[node.input[1]].T)
    return found


def in_openvino(path: Path) -> Stored:
    """Of the int8 constants behind convolutions and products."""
    import openvino

    found = []
    for op in openvino.Core().read_model(str(path)).get_ordered_ops():
        if op.get_type_name() not in ("Convolution", "GroupConvolution", "MatMul"):
            continue
        stored = _constant_behind(op.input_value(1).get_node())
        if stored is None:
            continue
        if op.get_type_name() == "GroupConvolution":
            stored = stored.reshape(-1, *stored.shape[2:])
        if op.get_type_name() == "MatMul" and not op.get_attributes()["transpose_b"]:
            stored = stored.T
        found.append(stored)
    return found


def _constant_behind(node: Any) -> np.ndarray | None:
    while node.get_type_name() != "Constant":
        if node.get_type_name() not in ("Multiply", "Convert", "Subtract", "Reshape", "FakeQuantize", "Transpose"):
            return None
        node = node.input_value(0).get_node()
    values = np.asarray(node.data)
    return values if values.dtype == np.int8 else None


def in_tflite(path: Path) -> Stored:
    """Of convolutions, with the channels moved from the end, and of fully connected layers."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    interpreter.allocate_tensors()
    found = []
    for op in interpreter._get_ops_details():
        if op["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            values = interpreter.get_tensor(int(op["inputs"][1]))
            if values.dtype == np.int8:
                axes = (3, 0, 1, 2) if op["op_name"] == "DEPTHWISE_CONV_2D" else (0, 3, 1, 2)
                found.append(values.transpose(axes) if values.ndim == 4 else values)
    return found
