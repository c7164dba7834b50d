"""Constants of an ONNX graph: who reads them, what they hold, and where another value goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv.protocols import Array
from edgecv.quantize.ort.graph import Graph, Node, add_constant


def root_of(graph: Graph, tensor: str) -> str:
    """The tensor of which this one is a copy by ``Identity``, or itself."""
    maker = graph.maker(tensor)
    return tensor if maker is None or maker.op_type != "Identity" else root_of(graph, maker.input[0])


def value_of(graph: Graph, tensor: str) -> Array | None:
    """What a constant holds, also where ``Identity`` copies it; ``None`` for anything else."""
    return graph.constant(root_of(graph, tensor))


def reads(node: Node) -> Iterator[str]:
    """Tensors that a node reads, with those that the bodies of ``If`` and ``Loop`` take from outside."""
    yield from (name for name in node.input if name)
    for item in node.attribute:
        for body in (*([item.g] if item.HasField("g") else []), *item.graphs):
            yield from (name for inner in body.node for name in reads(inner))


def count_readers(graph: Graph) -> Counter[str]:
    """How often each constant is read; what reads a copy reads the constant, and so does an output of the graph."""
    names = [name for node in graph.nodes if node.op_type != "Identity" for name in reads(node)]
    return Counter(root_of(graph, name) for name in (*names, *graph.output_names()))


def store(model: Any, readers: Counter[str], node: Node, at: int, value: Array) -> None:
    """Let a node read ``value`` as its input ``at``; a constant that others read, too, stays as it is."""
    helper = require("onnx.numpy_helper", "convert")
    old = node.input[at] if at < len(node.input) else ""
    tensor = next((one for one in model.graph.initializer if old and one.name == old), None)
    if tensor is not None and readers[old] == 1 and tuple(tensor.dims) == value.shape:
        tensor.CopyFrom(helper.from_array(np.ascontiguousarray(value), old))
        return
    while len(node.input) <= at:
        node.input.append("")
    node.input[at] = add_constant(model, f"{node.output[0]}/rounded_{at}", value)


def drop_unread(model: Any) -> None:
    """Remove ``Constant`` and ``Identity`` nodes and initializers that nothing reads any more, in place."""
    wanted = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if node.op_type not in ("Constant", "Identity") or wanted.intersection(node.output):
            kept.append(node)
            wanted.update(reads(node))
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    listed = {value.name for value in model.graph.input}  # in old files initializers are inputs, too
    held = [tensor for tensor in model.graph.initializer if tensor.name in wanted | listed]
    del model.graph.initializer[:]
    model.graph.initializer.extend(held)
