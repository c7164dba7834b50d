"""INT8 for TensorRT: which tensors are rounded, and with which scales.

TensorRT takes a model with explicit ``QuantizeLinear`` and ``DequantizeLinear`` nodes, and fuses them by rules of its own. NVIDIA's
ModelOpt follows the same ones (``modelopt.onnx.quantization``, Apache-2.0; read, no code taken); docs/adr/0019 has them with their
sources. ``edgecv.quantize.lint`` checks the outcome.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv.protocols import Array
from edgecv.quantize.ort.graph import Graph, Node, add_constant, attribute, drop_unused_constants
from edgecv.quantize.ort.layers import head_of, residual_input
from edgecv.quantize.ort.pixels import cast_pixels_first
from edgecv.quantize.ranges import TensorStats, largest_magnitude
from edgecv.quantize.recipes import QuantizeRecipe

LEAST_CHANNELS = 16  # convolutions with fewer, depthwise ones among them, are no faster in int8
_MOST = 127


def quantize_for_tensorrt(model: Any, stats: Mapping[str, TensorStats], recipe: QuantizeRecipe) -> None:
    """Round weights and inputs of the weighted operators of a float model, in place; everything else stays float."""
    cast_pixels_first(model)
    graph = Graph(model)
    axes = {node.name: axis for node in graph.nodes if (axis := _weight_axis(graph, node, stats)) is not None}
    kept = set(recipe.float_layers)
    if recipe.head == "float":
        kept |= {node.name for node in head_of(graph, [node for node in graph.nodes if node.name in axes])}
    chosen = [node for node in graph.nodes if node.name in axes and node.name not in kept]
    rounded = _Rounded(model=model)
    uses = [(node, 0) for node in chosen]
    uses += [(node, at) for node, at in _around_blocks(graph, chosen) if node.input[at] in stats]
    ends = _shared_ends(graph, stats, {node.input[at] for node, at in uses}, recipe.method)
    for node in chosen:
        weights = np.asarray(graph.constant(node.input[1]))
        node.input[1] = rounded.weights(node.input[1], weights, axes[node.name])
    for node, at in uses:
        node.input[at] = rounded.tensor(node.input[at], ends[node.input[at]])
    rounded.place()


_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def _around_blocks(graph: Graph, layers: Sequence[Node]) -> Iterator[tuple[Node, int]]:
    """Additions at the ends of residual blocks, and which of their inputs goes around the block."""
    convolutions = [node for node in layers if node.op_type in ("Conv", "ConvTranspose")]
    for node in graph.nodes:
        at = residual_input(graph, node, convolutions)
        if at is not None:
            yield node, at


def _weight_axis(graph: Graph, node: Node, stats: Mapping[str, TensorStats]) -> int | None:
    """The axis of the output channels in the weights of an operator that TensorRT runs faster in int8; ``None`` for all others."""
    weights = graph.constant(node.input[1]) if node.op_type in _WEIGHTED and len(node.input) > 1 else None
    if weights is None or weights.dtype != np.float32 or node.input[0] not in stats or weights.ndim < 2:
        return None
    if min(weights.shape[:2]) < LEAST_CHANNELS or attribute(node, "group", 1) != 1:
        return None
    if node.op_type in ("Conv", "ConvTranspose"):
        return int(node.op_type == "ConvTranspose")
    plain = weights.ndim == 2 and not attribute(node, "transA", 0) and not _is_one_row(graph, node.input[0])
    return (0 if attribute(node, "transB", 0) else 1) if plain else None


def _is_one_row(graph: Graph, tensor: str) -> bool:
    """Whether a tensor is a single vector, so that its product with a matrix has no use for tensor cores."""
    values = (*graph.model.graph.value_info, *graph.model.graph.input)
    found = next((value for value in values if value.name == tensor), None)
    sizes = [dim.dim_value for dim in found.type.tensor_type.shape.dim[:-1]] if found is not None else []
    return bool(sizes) and set(sizes) == {1}


def _shared_ends(graph: Graph, stats: Mapping[str, TensorStats], names: set[str], method: str) -> dict[str, float]:
    """The largest magnitude of each tensor that is rounded; around a concatenation they are one, so that it only copies."""
    groups = {name: {name} for name in names}
    for node in graph.nodes:
        joined = [name for name in (*node.input, *node.output) if name in groups] if node.op_type == "Concat" else []
        merged = set().union(*(groups[name] for name in joined))
        groups |= dict.fromkeys(merged, merged)
    own = {name: largest_magnitude(stats[name], method) for name in names}
    return {name: max(own[other] for other in group) for name, group in groups.items()}


@dataclass(slots=True, kw_only=True)
class _Rounded:
    """The nodes that round, each tensor once, until they are put into the graph."""

    model: Any
    of_weights: dict[tuple[str, int], Node] = field(default_factory=dict)
    of_tensors: dict[str, tuple[Node, Node]] = field(default_factory=dict)

    def weights(self, name: str, values: Array, axis: int) -> str:
        """Store weights as int8 with a scale per channel; the tensor that holds them as floats again."""
        if (name, axis) not in self.of_weights:
            others = tuple(at for at in range(values.ndim) if at != axis)
            ends = np.abs(values).max(axis=others)
            scale = (np.where(ends > 0, ends, _MOST) / _MOST).astype(np.float32)
            shape = [-1 if at == axis else 1 for at in range(values.ndim)]
            stored = np.clip(np.rint(values / scale.reshape(shape)), -_MOST, _MOST).astype(np.int8)
            parts = self._constants(f"{name}/axis{axis}", stored, scale, np.zeros(len(scale), np.int8))
            self.of_weights[name, axis] = _node("DequantizeLinear", parts, f"{name}/axis{axis}", axis=axis)
        return str(self.of_weights[name, axis].output[0])

    def tensor(self, name: str, end: float) -> str:
        """Round a tensor; the name of what is left of it. They are called as onnxruntime's quantizer calls them."""
        if name not in self.of_tensors:
            _, scale, zero = self._constants(name, None, np.float32(end / _MOST), np.int8(0))
            quantize = _node("QuantizeLinear", [name, scale, zero], name)
            self.of_tensors[name] = quantize, _node("DequantizeLinear", [quantize.output[0], scale, zero], name)
        return str(self.of_tensors[name][1].output[0])

    def place(self) -> None:
        """Put the nodes into the graph, each after what it reads."""
        inputs = [self.of_tensors[name] for name in Graph(self.model).input_names() if name in self.of_tensors]
        nodes = [*self.of_weights.values(), *(node for pair in inputs for node in pair)]
        for node in self.model.graph.node:
            nodes.append(node)
            nodes += [made for name in node.output if name in self.of_tensors for made in self.of_tensors[name]]
        del self.model.graph.node[:]
        self.model.graph.node.extend(nodes)
        drop_unused_constants(self.model)
        _drop_unused_domains(self.model)

    def _constants(self, name: str, stored: Array | None, scale: Any, zero: Any) -> list[str]:
        parts = {"quantized": stored, "scale": scale, "zero_point": zero}
        return [
            add_constant(self.model, f"{name}_{part}", np.asarray(value)) if value is not None else name
            for part, value in parts.items()
        ]


def _drop_unused_domains(model: Any) -> None:
    """Without the domains that onnxruntime lists in what it has prepared: a parser need not know them."""
    used = {"", *(node.domain for node in model.graph.node)}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _node(op_type: str, inputs: Sequence[str], name: str, **attributes: Any) -> Node:
    made = f"{name}_{op_type}_Output"
    return require("onnx.helper", "convert").make_node(
        op_type, list(inputs), [made], name=f"{name}_{op_type}", **attributes
    )
