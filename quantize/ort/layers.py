"""What a layer is to the network around it: part of its head, or the end of a residual block."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from edgecv.quantize.ort.graph import Graph, Node

_UNARY = frozenset({"Relu", "Clip", "LeakyRelu", "HardSwish", "HardSigmoid", "Elu", "Sigmoid", "BatchNormalization"})


def head_of(graph: Graph, layers: Sequence[Node]) -> list[Node]:
    """The layers that serve one output alone, where the network has several; else those that no other layer follows."""
    outputs = graph.output_names()
    reached: dict[str, set[str]] = {node.name: set() for node in layers}
    for output in outputs:
        for node in _makers_before(graph, [output]):
            if node.name in reached:
                reached[node.name].add(output)
    if len(outputs) > 1:
        return [node for node in layers if len(reached[node.name]) == 1]
    followed = {other.name for node in layers for other in _makers_before(graph, node.input)}
    return [node for node in layers if node.name not in followed]


def residual_input(graph: Graph, node: Node, convolutions: Sequence[Node]) -> int | None:
    """Of an addition at the end of a residual block: which input goes around the block; ``None`` for any other node.

    The other input comes from one of ``convolutions``, with which the runtime fuses the addition. Where both do, the one with
    the shorter way from the tensor at which the block begins goes around it.
    """
    if node.op_type != "Add" or any(_is_given(graph, name) for name in node.input):
        return None
    ends = [_convolution_before(graph, name, convolutions) for name in node.input]
    first, second = (_steps_back(graph, name) for name in node.input)
    if ends[0] is ends[1]:
        return None
    if None in ends:
        around, end, way = (0, ends[1], first) if ends[0] is None else (1, ends[0], second)
        # What a convolution gives may be added to what is made of it: that is no block around it.
        return around if end is not None and end.output[0] not in way else None
    common = min(first.keys() & second.keys(), key=lambda name: first[name] + second[name], default=None)
    if common is None:
        return None
    return 1 if first[common] > second[common] else 0


def _is_given(graph: Graph, tensor: str) -> bool:
    """Whether nothing makes a tensor: it is an input of the graph, or constant."""
    maker = graph.maker(tensor)
    return maker is None or maker.op_type == "Constant"


def _convolution_before(graph: Graph, tensor: str, convolutions: Sequence[Node]) -> Node | None:
    """The convolution that makes a tensor, but for its activation."""
    node = graph.maker(tensor)
    while node is not None and not any(node is one for one in convolutions):
        if node.op_type == "Mul":
            gates = [
                name for name in node.input if (maker := graph.maker(name)) is not None and maker.op_type == "Sigmoid"
            ]
            rest = [name for name in node.input if name not in gates]
            node = graph.maker(rest[0]) if len(gates) == len(rest) == 1 else None
        else:
            node = graph.maker(node.input[0]) if node.op_type in _UNARY else None
    return node


def _steps_back(graph: Graph, tensor: str) -> dict[str, int]:
    """Every tensor that another one is made of, with the smallest number of operators between them."""
    found = {tensor: 0}
    todo = deque([tensor])
    while todo:
        name = todo.popleft()
        node = graph.maker(name)
        for before in node.input if node is not None else ():
            maker = graph.maker(before)
            if before not in found and maker is not None and maker.op_type != "Constant":
                found[before] = found[name] + 1
                todo.append(before)
    return found


def _makers_before(graph: Graph, tensors: Iterable[str]) -> list[Node]:
    """Every node that some tensors are made by."""
    todo = list(tensors)
    found: dict[int, Node] = {}
    while todo:
        node = graph.maker(todo.pop())
        if node is not None and id(node) not in found:
            found[id(node)] = node
            todo += node.input
    return list(found.values())
