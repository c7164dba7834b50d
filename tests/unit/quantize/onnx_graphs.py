"""Small ONNX graphs, written as nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper, shape_inference

Node = tuple[str, str, str] | tuple[str, str, str, dict[str, Any]]  # operator, inputs, outputs, attributes


def graph_of(
    nodes: Sequence[Node],
    constants: Mapping[str, Any],
    outputs: Sequence[str],
    *,
    shape: Sequence[int | str] = (1, 16, 8, 8),
    opset: int = 17,
) -> Any:
    """A model from ``x``, float32 of ``shape``, to ``outputs``. A node is called as what it makes first."""
    made = []
    for operator, inputs, results, *rest in nodes:
        names = results.split()
        domain = {"domain": "com.acme"} if operator.startswith("Acme") else {}
        made.append(
            helper.make_node(operator, inputs.split(), names, name=names[0], **domain, **(rest[0] if rest else {}))
        )
    graph = helper.make_graph(
        made,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return model if any(node.domain for node in made) else shape_inference.infer_shapes(model)


def pixels_of(*, cast_first: bool) -> Any:
    """A model of one convolution that reads ``x``, uint8 pixels with their channels last."""
    move, cast = {"perm": [0, 3, 1, 2]}, {"to": TensorProto.FLOAT}
    entry: list[Node] = [("Transpose", "x", "moved", move), ("Cast", "moved", "pixels", cast)]
    if cast_first:
        entry = [("Cast", "x", "cast", cast), ("Transpose", "cast", "pixels", move)]
    nodes: list[Node] = [*entry, ("Conv", "pixels w", "out", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]})]
    shape = (1, 8, 8, 3)
    model = graph_of(nodes, {"w": weights(16, 3, 3, 3)}, ["out"], shape=shape)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.UINT8, shape))
    del model.graph.value_info[:]
    return shape_inference.infer_shapes(model)


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.2, shape).astype(np.float32)


def answers(model: Any, x: np.ndarray) -> list[np.ndarray]:
    """What onnxruntime makes of an input."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})
