"""Round the weights of an ONNX graph: its convolutions and matrix products, each by the inputs that it sees in onnxruntime.

Batch norms stay as they are: folding one into its convolution scales whole rows of weights, and their integers stay the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv._internal.progress import Progress, counted, silent
from edgecv.protocols import Array
from edgecv.quantize.ort.graph import Graph, Node, attribute
from edgecv.quantize.record import LayerRounding
from edgecv.quantize.rounding.biases import Bias, bias_of
from edgecv.quantize.rounding.constants import count_readers, drop_unread, reads, root_of, store, value_of
from edgecv.quantize.rounding.grid import Grid
from edgecv.quantize.rounding.layers import STAYS_FLOAT, RoundedNetwork, on_grid
from edgecv.quantize.rounding.moments import FloatArray, Moments
from edgecv.quantize.rounding.patches import Window, draw, passes, patches

_LAYERS = 32  # whose inputs are kept of an image at a time
_MOST_BYTES = 2**31 - 1  # of a protobuf message
_STEP = "Collecting moments of the layers"
_DIMENSIONS: Mapping[str, tuple[int, ...]] = MappingProxyType({"Conv": (3, 4), "Gemm": (2,), "MatMul": (2,)})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Layer:
    """One convolution or matrix product: the number of its node, its weights as they are stored, its bias."""

    at: int
    node: Node
    stored: Array
    bias: Bias | None

    @property
    def name(self) -> str:
        return _name(self.node)

    @property
    def groups(self) -> int:
        return int(attribute(self.node, "group", 1)) if self.node.op_type == "Conv" else 1

    @property
    def columns(self) -> int:
        return int(self.weights.shape[2])

    @property
    def weights(self) -> FloatArray:
        """``(groups, rows, columns)``."""
        rows = self.stored.T if _has_columns(self.node) else self.stored
        return rows.reshape(self.groups, len(rows) // self.groups, -1)

    def stored_as(self, weights: FloatArray) -> FloatArray:
        """Other ``weights (groups, rows, columns)``, in the form in which these are stored."""
        return weights[0].T if _has_columns(self.node) else weights.reshape(self.stored.shape)

    def rows(self, inputs: Array, rng: np.random.Generator) -> FloatArray:
        """Some of the rows ``(groups, count, columns)`` that meet the weights."""
        if self.node.op_type == "Conv":
            planes = inputs if inputs.ndim == 4 else inputs[:, :, None]
            return patches(planes, self.groups, _window(self.node, self.stored.shape[2:], planes.shape[2:]), rng)
        flat = inputs.T if attribute(self.node, "transA", 0) else inputs.reshape(-1, self.columns)
        return flat[draw(len(flat), rng)][None]


def round_graph(
    graph: Any,
    images: Sequence[Array],
    grids: Sequence[Grid],
    progress: Progress = silent,
    seed: int = 0,
    *,
    products_only: bool = False,
) -> dict[str, RoundedNetwork]:
    """Copies of an ONNX model, one for each grid by its name, whose weights lie on that grid.

    Args:
        graph: Takes ``(N, H, W, 3)`` uint8 images, as its only input.
        images: Calibration images.
        grids: What the quantizers will use.
        progress: Called as images are run.
        seed: Of the draw of rows.
        products_only: The quantizers leave convolutions float, so these stay what they are.
    """
    known = Graph(graph)
    readers = count_readers(known)
    layers, left = _layers(known, readers, products_only)
    copies = {grid.name: _copy(graph) for grid in grids}
    records: dict[str, list[LayerRounding]] = {grid.name: [] for grid in grids}
    for several in passes(layers, _LAYERS):
        moments = _collect(known, several, images, progress, seed)
        for grid in grids:
            for layer in several:
                records[grid.name].append(_round(copies[grid.name], readers, layer, moments[layer.at], grid))
    for model in copies.values():
        drop_unread(model)
    return {name: RoundedNetwork(network=copies[name], layers=(*records[name], *left)) for name in copies}


def _name(node: Node) -> str:
    return str(node.name or node.output[0])


def _has_columns(node: Node) -> bool:
    """Whether each column of the stored weights makes an output, not each row."""
    return node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0))


def _copy(model: Any) -> Any:
    copied = type(model)()
    copied.CopyFrom(model)
    return copied


def _layers(graph: Graph, readers: Counter[str], products_only: bool) -> tuple[list[_Layer], tuple[LayerRounding, ...]]:
    """The layers that can be rounded, and why the others cannot."""
    large = sum(len(tensor.raw_data) for tensor in graph.model.graph.initializer) > _MOST_BYTES
    found, left = [], []
    for at, node in enumerate(graph.nodes):
        weights = value_of(graph, node.input[1]) if node.op_type in _DIMENSIONS else None
        reason = "its model is larger than onnxruntime reads at once" if large else ""
        reason = STAYS_FLOAT if products_only and node.op_type in ("Conv", "ConvTranspose") else reason
        reason = reason or _unfit(node, weights, readers[root_of(graph, node.input[1])] if len(node.input) > 1 else 0)
        if weights is not None and not reason:
            outputs = weights.shape[1] if _has_columns(node) else weights.shape[0]
            found.append(_Layer(at=at, node=node, stored=weights, bias=bias_of(graph, at, outputs)))
        elif node.op_type in (*_DIMENSIONS, "ConvTranspose") and (node.op_type != "MatMul" or weights is not None):
            left.append(LayerRounding(name=_name(node), reason=reason))
    return found, tuple(left)


def _unfit(node: Node, weights: Array | None, readers: int) -> str:
    if node.op_type == "ConvTranspose":
        return "transposed convolutions are rounded to the nearest step"
    if weights is None:
        return "its weights are no constants"
    if weights.ndim not in _DIMENSIONS[node.op_type]:
        return f"its weights have {weights.ndim} dimensions"
    if weights.dtype != np.float32:
        return f"its weights are {weights.dtype.name}"
    if readers > 1:
        return "several layers share its weights"
    return "" if bool(np.isfinite(weights).all()) else "its weights are not finite"


def _collect(
    graph: Graph, layers: Sequence[_Layer], images: Sequence[Array], progress: Progress, seed: int
) -> dict[int, Moments]:
    moments = {layer.at: Moments.empty(layer.groups, layer.columns) for layer in layers}
    rng = np.random.default_rng(seed)
    for tensors in _runs(graph, [layer.node.input[0] for layer in layers], images, progress):
        for layer in layers:
            moments[layer.at].add(layer.rows(tensors[layer.node.input[0]], rng))
    return moments


def _runs(
    graph: Graph, wanted: Sequence[str], images: Sequence[Array], progress: Progress
) -> Iterator[Mapping[str, Array]]:
    """Tensors of the float graph by name, for each image; what does not serve them does not run."""
    runtime = require("onnxruntime", "onnx")
    (entry,) = graph.input_names()
    names = [name for name in dict.fromkeys(wanted) if name != entry]
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    model = _cut(graph, names or graph.output_names())
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for image in counted(progress, _STEP, images):
        made = session.run(names, {entry: image}) if names else ()
        yield {entry: image, **dict(zip(names, made, strict=True))}


def _cut(graph: Graph, names: Sequence[str]) -> Any:
    """The part of a model that makes some tensors, with these as its outputs."""
    value = require("onnx.helper", "convert").ValueInfoProto
    model = _copy(graph.model)
    wanted, kept = set(names), []
    for node in reversed(model.graph.node):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(reads(node))
    del model.graph.node[:], model.graph.output[:]
    model.graph.node.extend(reversed(kept))
    model.graph.output.extend(value(name=name) for name in names)
    return model


def _window(node: Node, kernel: Sequence[int], size: Sequence[int]) -> Window:
    """How a convolution moves over an input of this ``size``, height and width; one dimension is a single row."""

    def both(name: str) -> tuple[int, int]:
        said = attribute(node, name, [1] * len(kernel))
        return (1, int(said[0])) if len(said) == 1 else (int(said[0]), int(said[1]))

    strides, steps = both("strides"), both("dilations")
    taps = (1, kernel[0]) if len(kernel) == 1 else (kernel[0], kernel[1])
    pads = _pads(node, [steps[d] * (taps[d] - 1) + 1 for d in (0, 1)], strides, size)
    return Window(kernel=taps, strides=strides, steps=steps, pads=pads)


def _pads(node: Node, spans: Sequence[int], strides: Sequence[int], size: Sequence[int]) -> tuple[int, int, int, int]:
    """Top, left, bottom, right; ``spans`` are the pixels from the first tap to the last."""
    automatic = attribute(node, "auto_pad", b"NOTSET").decode()
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        totals = [max((-(-size[d] // strides[d]) - 1) * strides[d] + spans[d] - size[d], 0) for d in (0, 1)]
        halves = [(total // 2, total - total // 2) for total in totals]
        (top, bottom), (left, right) = halves if automatic == "SAME_UPPER" else [pair[::-1] for pair in halves]
        return top, left, bottom, right
    said = [int(pad) for pad in attribute(node, "pads", [])] if automatic == "NOTSET" else []
    if len(said) == 2:
        said = [0, said[0], 0, said[1]]
    top, left, bottom, right = said or (0, 0, 0, 0)
    return top, left, bottom, right


def _round(model: Any, readers: Counter[str], layer: _Layer, moments: Moments, grid: Grid) -> LayerRounding:
    """Put the weights of a layer on the grid, in place."""
    if layer.bias is None:  # nothing takes back a mean change: it is an error like any other
        moments = Moments(count=moments.count, total=np.zeros_like(moments.total), products=moments.products)
    weights, shift, record = on_grid(layer.name, layer.weights, moments, grid)
    if weights is None or shift is None:
        return record
    store(model, readers, model.graph.node[layer.at], 1, layer.stored_as(weights))
    if layer.bias is not None:
        moved = layer.bias.value + np.float32(layer.bias.factor) * shift.reshape(-1)
        store(model, readers, model.graph.node[layer.bias.at], layer.bias.place, moved.astype(np.float32))
    return record
