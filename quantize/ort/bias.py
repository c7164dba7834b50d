"""Bias correction for ONNX: what rounding shifts on average, the biases take back.

Rounded weights and clipped inputs shift the mean of a convolution's output, channel by channel (Nagel et al. 2019, Data-Free
Quantization, section 4.2). The shift of each convolution is measured on the float model's own activations, so that none takes
back what an earlier one did.

Weights that GPTQ rounded shift no mean: their biases took it back before the export. What is left comes from activations. Measured
on YOLOv8n with such weights and ranges by gradient (each half of coco128 judges what the other calibrated, 687 boxes; F1 at IoU
0.5, mean squared error of the class scores, without and with): first convolution int8 0.9515, 0.092 and 0.9564, 0.094; float
0.9567, 0.094 and 0.9633, 0.092. The error of each score stays, its bias goes: so it counts at a threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv.protocols import Array
from edgecv.quantize.ort.graph import Graph, Node, add_constant

IMAGES = 24  # means settle long before
_COPY = "rounded/"
_AXES_ARE_AN_INPUT = 18  # of ReduceMean, from this opset on; an attribute before
_ALL_BUT_CHANNELS = (0, 2, 3)

Run = Callable[[Any, Sequence[str]], Iterable[Mapping[str, Array]]]


def correct_biases(quantized: Any, floats: Any, run: Run) -> None:
    """Take the mean shift of every quantized convolution back by its bias, in place.

    ``quantized`` has ``QuantizeLinear`` and ``DequantizeLinear`` around its convolutions; ``floats`` has nodes of the same names,
    and is changed. ``run`` gives tensors of a model by name, for each image.
    """
    graph = Graph(quantized)
    chosen = [node for node in graph.nodes if _has_integer_bias(graph, node)]
    if not chosen:
        return
    originals = {node.name: node for node in floats.graph.node if node.op_type == "Conv"}
    shifts = {node.name: _add_shift(floats, graph, node, originals[node.name]) for node in chosen}
    means = _means(run(floats, list(shifts.values())))
    helper = require("onnx.numpy_helper", "convert")
    constants = {tensor.name: tensor for tensor in quantized.graph.initializer}
    for node in chosen:
        stored, scale = _maker(graph, node.input[2]).input[:2]
        steps = np.rint(means[shifts[node.name]] / np.asarray(graph.constant(scale), np.float64))
        bias = np.asarray(graph.constant(stored)) + steps.astype(np.int32)
        constants[stored].CopyFrom(helper.from_array(bias.astype(np.int32), stored))


def _has_integer_bias(graph: Graph, node: Node) -> bool:
    """Whether a node is a convolution of rounded inputs whose bias is stored as integers."""
    if node.op_type != "Conv" or len(node.input) < 3:
        return False
    image, bias = graph.maker(node.input[0]), graph.maker(node.input[2])
    if image is None or bias is None or {image.op_type, bias.op_type} != {"DequantizeLinear"}:
        return False
    stored = graph.constant(bias.input[0])
    before = graph.maker(image.input[0])
    return stored is not None and stored.dtype == np.int32 and before is not None and before.op_type == "QuantizeLinear"


def _add_shift(floats: Any, graph: Graph, node: Node, original: Node) -> str:
    """Add the rounded twin of one convolution to the float model; the tensor that holds how far its means are off."""
    make_node = require("onnx.helper", "convert").make_node
    real = _maker(graph, node.input[0])
    _copy(floats, graph, _maker(graph, real.input[0]), {0: original.input[0]})
    inputs = [_copy(floats, graph, real, {0: _COPY + real.input[0]})]
    inputs += [_copy(floats, graph, _maker(graph, name), {}) for name in node.input[1:]]
    twin = _copy(floats, graph, node, dict(enumerate(inputs)))
    gap, mean = f"{_COPY}{node.name}/gap", f"{_COPY}{node.name}/mean"
    floats.graph.node.append(make_node("Sub", [original.output[0], twin], [gap]))
    if _opset(floats) < _AXES_ARE_AN_INPUT:
        floats.graph.node.append(make_node("ReduceMean", [gap], [mean], axes=_ALL_BUT_CHANNELS, keepdims=0))
    else:
        axes = add_constant(floats, f"{_COPY}{node.name}/axes", np.array(_ALL_BUT_CHANNELS, np.int64))
        floats.graph.node.append(make_node("ReduceMean", [gap, axes], [mean], keepdims=0))
    return mean


def _opset(model: Any) -> int:
    return next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _copy(floats: Any, graph: Graph, node: Node, inputs: Mapping[int, str]) -> str:
    """Add a copy of a node, and of the constants it uses, unless it is there; the name of what it makes."""
    made = _COPY + node.output[0]
    if any(made in there.output for there in floats.graph.node):
        return made
    names = [inputs.get(at, _COPY + name) for at, name in enumerate(node.input)]
    known = {tensor.name for tensor in floats.graph.initializer}
    for at, name in enumerate(node.input):
        if at not in inputs and names[at] not in known:
            add_constant(floats, names[at], np.asarray(graph.constant(name)))
            known.add(names[at])
    copy = floats.graph.node.add()
    copy.CopyFrom(node)
    copy.name = _COPY + node.name
    copy.input[:] = names
    copy.output[0] = made
    return made


def _maker(graph: Graph, tensor: str) -> Node:
    node = graph.maker(tensor)
    assert node is not None
    return node


def _means(images: Iterable[Mapping[str, Array]]) -> dict[str, Array]:
    total: dict[str, Array] = {}
    count = 0
    for tensors in images:
        count += 1
        for name, tensor in tensors.items():
            total[name] = total.get(name, np.zeros(tensor.shape)) + tensor
    return {name: tensor / count for name, tensor in total.items()}
