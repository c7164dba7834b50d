"""What a layer is to the network around it: with its activation, part of the head, or the end of a residual block."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgecv.quantize.ort.graph import Graph, Node

_ACTIVATIONS = ("Sigmoid", "Relu", "Clip", "LeakyRelu", "HardSwish")
_UNARY = frozenset({"Relu", "Clip", "LeakyRelu", "HardSwish", "HardSigmoid", "Elu", "Sigmoid", "BatchNormalization"})


def feeds_silu(graph: Graph, tensor: str) -> bool:
    """Whether a tensor is the x of x * sigmoid(x)."""
    users = graph.users(tensor)
    sigmoids = [node.output[0] for node in users if node.op_type == "Sigmoid"]
    return any(node.op_type == "Mul" and set(node.input) & set(sigmoids) for node in users)


def block_of(graph: Graph, convolution: Node) -> list[Node]:
    """A convolution with its activation: of a SiLU, the sigmoid and the product."""
    users = graph.users(convolution.output[0])
    activations = [node for node in users if node.op_type in _ACTIVATIONS]
    own = {convolution.output[0], *(node.output[0] for node in activations)}
    products = [node for node in users if node.op_type == "Mul" and set(node.input) <= own]
    return [convolution, *activations, *products]


def layer_tensors(model: Any) -> dict[str, str]:
    """Of every convolution: the tensor that leaves it, after its SiLU where it has one."""
    graph = Graph(model)
    return {node.name: block_of(graph, node)[-1].output[0] for node in graph.nodes if node.op_type == "Conv"}


def rounded_tensors(model: Any, tensors: Mapping[str, str]) -> dict[str, str]:
    """The same of a quantized model, of those tensors that it rounds.

    onnxruntime names what it makes of ``x`` ``x_DequantizeLinear_Output``; of an output of the graph, which keeps its name,
    it renames what comes before.
    """
    graph = Graph(model)
    outputs = set(graph.output_names())
    rounded = {
        name: tensor if tensor in outputs else f"{tensor}_DequantizeLinear_Output" for name, tensor in tensors.items()
    }
    return {name: tensor for name, tensor in rounded.items() if graph.maker(tensor) is not None}


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
