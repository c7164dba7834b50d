"""How pixels enter an ONNX network: TensorRT takes uint8 only where a ``Cast`` reads it at once (NVIDIA/TensorRT issue 3985)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgecv.quantize.ort.graph import Graph, Node

_UINT8 = 2  # TensorProto.UINT8


def readers_of_pixels(graph: Graph) -> Iterator[tuple[str, Node]]:
    """Inputs of uint8, each with an operator that reads it."""
    for value in graph.model.graph.input:
        if value.type.tensor_type.elem_type == _UINT8:
            yield from ((value.name, node) for node in graph.users(value.name))


def cast_pixels_first(model: Any) -> None:
    """Let the ``Cast`` of pixels come before the ``Transpose`` that it follows, in place: every value stays the same."""
    graph = Graph(model)
    shown = set(graph.output_names())
    for _, transpose in list(readers_of_pixels(graph)):
        users = graph.users(transpose.output[0]) if transpose.op_type == "Transpose" else []
        if len(users) == 1 and users[0].op_type == "Cast" and transpose.output[0] not in shown:
            _swap(model, transpose, users[0])


def _swap(model: Any, transpose: Node, cast: Node) -> None:
    first, second = type(cast)(), type(transpose)()
    first.CopyFrom(cast)
    second.CopyFrom(transpose)
    moved = transpose.output[0]
    first.input[0], first.output[0] = transpose.input[0], f"{moved}/cast"
    second.input[0], second.output[0] = first.output[0], cast.output[0]
    transpose.CopyFrom(first)
    cast.CopyFrom(second)
    kept = [value for value in model.graph.value_info if value.name != moved]  # nothing has that type and shape now
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
