"""Foreign ONNX graphs: their shapes, runs, order and ends; what every step of reading one asks of it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv._internal.foreign import foreign_errors
from edgecv._internal.quiet import quiet
from edgecv.errors import UnsupportedSource
from edgecv.protocols import Array
from edgecv.quantize.ort.graph import Graph, Node, drop_unused_constants

# onnxruntime's static quantization takes up to 20; older ones lack the axes that INT8 weights need.
OPSETS = range(17, 21)
SAME = 0.99999  # cosine between what a graph gives before and after a change that changes nothing
_COPYING = ("Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Cast", "Dropout")


def in_memory_session(model: Any) -> Any:
    """A plain session of onnxruntime; ``UnsupportedSource`` where the graph holds what onnxruntime does not know."""
    runtime = require("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    hint = f"Export it with operators of standard ONNX, opset {min(OPSETS)} to {max(OPSETS)}."
    with foreign_errors(UnsupportedSource, "onnxruntime cannot run the model", hint), quiet():
        return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def answers_to(model: Any, image: Array) -> list[Array]:
    """What the graph makes of its one input."""
    found: list[Array] = in_memory_session(model).run(None, {Graph(model).input_names()[0]: image})
    return found


def answers_to_noise(model: Any) -> list[Array]:
    """What a graph of fixed shapes makes of a noisy image."""
    return answers_to(model, np.random.default_rng(0).random(input_shape(model), np.float32))


def output_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the outputs by name, by running the model once."""
    outputs = answers_to(model, np.zeros(input_shape(model), np.float32))
    return {name: output.shape for name, output in zip(Graph(model).output_names(), outputs, strict=True)}


def image_input_of(model: Any) -> Any:
    """The description of the first input that is no constant, to read or to change."""
    name = Graph(model).input_names()[0]
    return next(value for value in model.graph.input if value.name == name)


def input_shape(model: Any) -> tuple[int, ...]:
    """The shape of the first input; a dynamic size is 0."""
    return shape_of(image_input_of(model))


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape in the description of a tensor; a dynamic size is 0."""
    return tuple(size.dim_value for size in value.type.tensor_type.shape.dim)


def image_shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Shapes of all four-dimensional tensors, by name."""
    shapes = {v.name: shape_of(v) for v in (*graph.model.graph.value_info, *graph.model.graph.output)}
    return {name: shape for name, shape in shapes.items() if len(shape) == 4 and all(shape)}


def sort_nodes(graph: Any) -> None:
    """Put every node behind those that it takes from, in place; nothing changes where that is impossible.

    ONNX wants it so, and some programs do not keep to it: onnxruntime's fp16 converter puts its casts at the end.
    """
    nodes = list(graph.node)
    made = {name: number for number, node in enumerate(nodes) for name in node.output if name}
    needs = [{made[name] for name in _taken(node) if name in made} - {number} for number, node in enumerate(nodes)]
    for body in (body for node in nodes for body in bodies(node)):
        sort_nodes(body)
    if all(before < number for number, these in enumerate(needs) for before in these):
        return
    try:
        set_nodes(graph, [nodes[number] for number in TopologicalSorter(dict(enumerate(needs))).static_order()])
    except CycleError:
        return  # the checker says so


def bodies(node: Any) -> Iterator[Any]:
    """The graphs inside a node: branches and loops."""
    for item in node.attribute:
        if item.HasField("g"):
            yield item.g
        yield from item.graphs


def _taken(node: Any) -> Iterator[str]:
    """What a node takes, and what the graphs inside it take from outside."""
    yield from node.input
    for body in bodies(node):
        own = {name for inner in body.node for name in inner.output} | {value.name for value in body.input}
        yield from (name for inner in body.node for name in _taken(inner) if name not in own)
        yield from (value.name for value in body.output if value.name not in own)


def set_nodes(graph: Any, nodes: Iterable[Node]) -> None:
    """Give a graph other nodes, in place; they may be its own."""
    kept = list(nodes)
    del graph.node[:]
    graph.node.extend(kept)


def take_instead(nodes: Iterable[Node], names: Mapping[str, str]) -> None:
    """Let nodes take other tensors than those they took, in place."""
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]


def rename_outputs(model: Any, names: dict[str, str]) -> None:
    """Rename tensors, inputs and outputs among them, in place; one that has such a name already gets another."""
    taken = {tensor for node in model.graph.node for tensor in (*node.input, *node.output)}
    names = {**{name: f"{name}/inner" for name in names.values() if name in taken}, **names}
    take_instead(model.graph.node, names)
    for node in model.graph.node:
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.name = names.get(value.name, value.name)


def last_node(graph: Graph) -> Node | None:
    """The node that makes the only output, past operators that only copy."""
    (output,) = graph.output_names()
    node = graph.maker(output)
    while node is not None and node.op_type in _COPYING:
        node = graph.maker(node.input[0])
    return node


def ending_at(model: Any, tensors: list[str]) -> Any:
    """A copy whose outputs are ``tensors``, without the nodes that nothing needs any more."""
    onnx = require("onnx", "convert")
    cut = copy.deepcopy(model)
    shapes = image_shapes(Graph(cut))
    del cut.graph.value_info[:]
    floats = onnx.TensorProto.FLOAT
    end_in(cut, [onnx.helper.make_tensor_value_info(tensor, floats, shapes[tensor]) for tensor in tensors])
    return cut


def end_in(model: Any, outputs: Iterable[Any]) -> None:
    """Let the graph give these outputs alone, and remove what none of them needs, in place."""
    kept = list(outputs)
    del model.graph.output[:]
    model.graph.output.extend(kept)
    graph = Graph(model)
    needed: set[str] = set()
    waiting = graph.output_names()
    while waiting:
        name = waiting.pop()
        node = graph.maker(name)
        if node is not None and name not in needed:
            needed |= set(node.output)
            waiting.extend(_taken(node))
    set_nodes(model.graph, [node for node in graph.nodes if needed & set(node.output)])
    drop_unused_constants(model)
