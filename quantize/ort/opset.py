"""Bringing an ONNX graph down to the opset that TensorRT 8.6 still reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from edgecv.quantize.ort.graph import Graph, Node, add_constant, attribute, drop_unused_constants

WANTED = 17  # the last one of TensorRT 8.6; later releases read it as well
_ABOVE = 18
_NEW_IN_18 = frozenset(
    {"BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad", "Col2Im", "GroupNormalization", "Mish"}
    | {"OptionalGetElement", "OptionalHasElement"}
)
_AXES_AS_INPUT = frozenset(
    {"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"}
    | {"ReduceSumSquare"}
)

_Change = Callable[[], None]


def opset_of(model: Any) -> int:
    """Version of the standard operators that a model uses."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def lower_opset(model: Any) -> bool:
    """Rewrite a graph of opset 18 in 17, in place, where every operator can be said in 17 as well.

    ONNX's own converter has no way back for ``Split``. What changed between the two is little (ONNX's changelog): the operators
    below, and some new ones.

    Returns:
        Whether the graph is in opset 17 or below now; otherwise it is as it was.
    """
    if opset_of(model) != _ABOVE:
        return opset_of(model) <= WANTED
    if len(model.functions) or any(_has_body(node) for node in model.graph.node):
        return False
    graph = Graph(model)
    changes = [_change(graph, node) for node in graph.nodes if node.domain in ("", "ai.onnx")]
    if any(change is None for change in changes):
        return False
    for change in changes:
        if change is not None:
            change()
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = WANTED
    drop_unused_constants(model)  # axes that are attributes now: onnxruntime warns of what no node uses
    return True


def _has_body(node: Node) -> bool:
    return any(item.HasField("g") or item.graphs for item in node.attribute)


def _change(graph: Graph, node: Node) -> _Change | None:
    """How to say a node in opset 17; ``None`` when that is impossible."""
    if node.op_type in _NEW_IN_18:
        return None
    if node.op_type in _AXES_AS_INPUT:
        return _axes_as_attribute(graph, node)
    return _CHANGES.get(node.op_type, _same)(graph, node)


def _same(graph: Graph, node: Node) -> _Change | None:  # noqa: ARG001
    return lambda: None


def _axes_as_attribute(graph: Graph, node: Node) -> _Change | None:
    if attribute(node, "noop_with_empty_axes", 0):
        return None
    axes = graph.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else np.array([], np.int64)
    if axes is None:
        return None

    def change() -> None:
        del node.input[1:]
        _drop(node, "noop_with_empty_axes")
        if axes.size:
            added = node.attribute.add(name="axes", ints=axes.reshape(-1).tolist())
            added.type = added.INTS

    return change


def _split(graph: Graph, node: Node) -> _Change | None:
    """Without sizes, opset 17 splits evenly; ``num_outputs`` of 18 may leave a shorter rest, which needs sizes."""
    if len(node.input) > 1 and node.input[1]:
        return lambda: _drop(node, "num_outputs")
    size = _size(graph, node.input[0], attribute(node, "axis", 0))
    if size is None:
        return None
    each = -(-size // len(node.output))
    sizes = [each] * (len(node.output) - 1)
    sizes.append(size - sum(sizes))

    def change() -> None:
        _drop(node, "num_outputs")
        if sizes[-1] != each:
            del node.input[1:]
            node.input.append(add_constant(graph.model, f"{node.output[0]}/sizes", np.array(sizes, np.int64)))

    return change if sizes[-1] > 0 else None


def _size(graph: Graph, tensor: str, axis: int) -> int | None:
    """Size of a tensor along an axis, where the graph says it."""
    values = (*graph.model.graph.value_info, *graph.model.graph.input)
    found = next((value for value in values if value.name == tensor), None)
    dims = found.type.tensor_type.shape.dim if found is not None else ()
    return (dims[axis].dim_value or None) if -len(dims) <= axis < len(dims) else None


def _without(*changed: tuple[str, Any]) -> Callable[[Graph, Node], _Change | None]:
    """For operators that got attributes: they must have the value that means what 17 does."""

    def change_of(graph: Graph, node: Node) -> _Change | None:  # noqa: ARG001
        if any(attribute(node, name, old) != old for name, old in changed):
            return None
        return lambda: _drop(node, *(name for name, _ in changed))

    return change_of


def _resize(graph: Graph, node: Node) -> _Change | None:
    if (
        attribute(node, "axes") is not None
        or attribute(node, "coordinate_transformation_mode") == b"half_pixel_symmetric"
    ):
        return None
    return _without(("antialias", 0), ("keep_aspect_ratio_policy", b"stretch"))(graph, node)


def _pad(graph: Graph, node: Node) -> _Change | None:  # noqa: ARG001
    return None if len(node.input) > 3 and node.input[3] else (lambda: None)


def _scatter(graph: Graph, node: Node) -> _Change | None:  # noqa: ARG001
    return (lambda: None) if attribute(node, "reduction", b"none") in (b"none", b"add", b"mul") else None


def _drop(node: Node, *names: str) -> None:
    for item in [item for item in node.attribute if item.name in names]:
        node.attribute.remove(item)


_CHANGES: Mapping[str, Callable[[Graph, Node], _Change | None]] = MappingProxyType(
    {
        "Split": _split,
        "Resize": _resize,
        "Pad": _pad,
        "LpPool": _without(("ceil_mode", 0), ("dilations", None)),
        "ScatterElements": _scatter,
        "ScatterND": _scatter,
    }
)
