"""The bias of a layer of an ONNX graph, which takes back the mean change of the outputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecv.protocols import Array
from edgecv.quantize.ort.graph import Graph, Node, attribute
from edgecv.quantize.rounding.constants import value_of


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bias:
    """Where the shift of a layer's outputs goes.

    Attributes:
        at: The number of the node that adds it.
        place: Which input of that node it is.
        value: What it is so far.
        factor: What a shift is multiplied with to become one of this value.
    """

    at: int
    place: int
    value: Array
    factor: float = 1.0


def bias_of(graph: Graph, at: int, outputs: int) -> Bias | None:
    """The bias of the layer that is node ``at`` and has ``outputs`` channels.

    Convolutions and ``Gemm`` without one can be given one. ``None`` where it is no constant, and for a ``MatMul`` after
    which no constant is added: another operator would cost time.
    """
    node = graph.nodes[at]
    if node.op_type == "MatMul":
        return _added(graph, node)
    factor = _factor(node)
    if factor is None:
        return None
    if len(node.input) < 3 or not node.input[2]:
        return Bias(at=at, place=2, value=np.zeros(outputs, np.float32), factor=factor)
    value = value_of(graph, node.input[2])
    return None if value is None else Bias(at=at, place=2, value=value, factor=factor)


def _factor(node: Node) -> float | None:
    """``Gemm`` computes ``alpha A B + beta C``."""
    if node.op_type != "Gemm":
        return 1.0
    beta = float(attribute(node, "beta", 1.0))
    return float(attribute(node, "alpha", 1.0)) / beta if beta else None


def _added(graph: Graph, node: Node) -> Bias | None:
    """The constant that the only operator after a ``MatMul`` adds."""
    users = graph.users(node.output[0])
    if len(users) != 1 or users[0].op_type != "Add" or node.output[0] in graph.output_names():
        return None
    place = 1 - list(users[0].input).index(node.output[0])
    value = value_of(graph, users[0].input[place])
    at = next(number for number, one in enumerate(graph.nodes) if one is users[0])
    return None if value is None else Bias(at=at, place=place, value=value)
