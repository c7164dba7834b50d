"""Where the error of a static INT8 model comes from: its weights, or what it rounds between layers, kind by kind.

The graph has a pair of ``QuantizeLinear`` and ``DequantizeLinear`` wherever it rounds. The pairs of one kind stay and all others
go; what that alone does to the class scores is the error of that kind. The errors need not add up to the whole: they may cancel or
feed each other. YOLOv8n at 640, ort-u8s8, 8 images: all 0.158; after SiLU 0.060, weights 0.044, before SiLU 0.044, copies 0.017,
concatenations 0.014, outputs 0.004, additions 0.001, sigmoid 0.001; together 0.184.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from edgecv._internal.extras import require
from edgecv.protocols import Array
from edgecv.quantize.gate.class_scores import FloatScores, ScoreErrors, has_class_scores
from edgecv.quantize.ort.graph import Graph, Node, add_constant, drop_unused_constants
from edgecv.quantize.ort.layers import feeds_silu
from edgecv.quantize.record import ErrorSource
from edgecv.specs import TensorSpec

ALL, WEIGHTS = "all", "weights"
_BEFORE, _AFTER = "before_silu", "after_silu"
# By the operator that makes a tensor; a tensor that feeds a SiLU or leaves one is told apart first.
_KINDS: Mapping[str, str] = MappingProxyType(
    {
        "Concat": "concatenations",
        "Add": "additions",
        "Sigmoid": "sigmoid",
        "Relu": "activations",
        "Clip": "activations",
        "LeakyRelu": "activations",
        "HardSwish": "activations",
        "Conv": "convolutions",
        **dict.fromkeys(("Split", "Slice", "MaxPool", "Resize", "Pad", "Transpose", "Reshape"), "copies"),
    }
)

Run = Callable[[Any, Sequence[str]], Iterable[Mapping[str, Array]]]


def error_sources(
    quantized: Any, floats: Any, outputs: Sequence[TensorSpec], run: Run, source: Any = None
) -> tuple[ErrorSource, ...]:
    """The error of everything, of the weights alone, and of each kind of rounded tensor alone, the largest first.

    ``quantized`` has nodes of the same names as ``floats``. ``run`` gives tensors of a model by name, for each image. There is
    nothing to tell where no output holds class scores. ``source`` is the float model before its weights were rounded, where that
    was done before: what rounding them did is measured against it, and activations against ``floats``.
    """
    if not has_class_scores(outputs):
        return ()
    measured = _Measured(floats, outputs, run)
    against_source = measured if source is None else _Measured(source, outputs, run)
    kinds = tensor_kinds(quantized, floats)
    counts = {kind: list(kinds.values()).count(kind) for kind in dict.fromkeys(kinds.values())}
    whole = ErrorSource(kind=ALL, error=against_source.error(quantized), tensors=len(kinds))
    weights_alone = without(quantized, floats, kinds, keep=WEIGHTS)
    parts = [ErrorSource(kind=WEIGHTS, error=against_source.error(weights_alone))]
    for kind, count in counts.items():
        error = measured.error(without(quantized, floats, kinds, keep=kind))
        parts.append(ErrorSource(kind=kind, error=error, tensors=count))
    return (whole, *sorted(parts, key=lambda source: -source.error))


class _Measured:
    """The float model's class scores, and how far a model's are from them."""

    def __init__(self, floats: Any, outputs: Sequence[TensorSpec], run: Run) -> None:
        self._outputs, self._run = outputs, run
        self._names = [spec.name for spec in outputs]
        self._wanted = FloatScores()
        self._look(floats, self._wanted)
        if not self._wanted.seen():  # an untrained network sees nothing anywhere
            self._wanted = FloatScores(least=0.0)
            self._look(floats, self._wanted)

    def error(self, model: Any) -> float:
        errors = ScoreErrors(self._wanted)
        self._look(model, errors)
        return errors.error().value

    def _look(self, model: Any, looker: FloatScores | ScoreErrors) -> None:
        rows = (
            {name: tensor[row : row + 1] for name, tensor in tensors.items()}
            for tensors in self._run(model, self._names)
            for row in range(len(tensors[self._names[0]]))
        )
        for at, row in enumerate(rows):
            looker.look(at, row, self._outputs)


def tensor_kinds(quantized: Any, floats: Any) -> dict[str, str]:
    """The kind of each tensor that the graph rounds, by the name of what leaves its ``DequantizeLinear``."""
    graph, original = Graph(quantized), Graph(floats)
    outputs = set(graph.output_names())
    found = {}
    for node in graph.nodes:
        before = _rounding(graph, node)
        if before is not None:
            made = node.output[0]
            found[made] = "outputs" if made in outputs else _kind(original, before.input[0])
    return found


def without(quantized: Any, floats: Any, kinds: Mapping[str, str], keep: str) -> Any:
    """A copy of the graph that rounds one kind of tensor alone, or the weights alone."""
    model = type(quantized)()
    model.CopyFrom(quantized)
    graph, original = Graph(model), Graph(floats)
    make = require("onnx.helper", "convert").make_node
    gone: list[Node] = []
    for node in graph.nodes:
        if node.op_type != "DequantizeLinear":
            continue
        before = _rounding(graph, node)
        if before is not None and kinds[node.output[0]] != keep:
            node.CopyFrom(make("Identity", [before.input[0]], [node.output[0]], name=node.name))
        elif before is None and keep != WEIGHTS:
            value = _float_value(graph, original, node)
            if value is not None:
                gone.append(node)
                add_constant(model, node.output[0], value)
    _drop(model, gone)
    return model


def _drop(model: Any, gone: Sequence[Node]) -> None:
    """Remove nodes, what rounds for nobody, and constants that nothing uses any more."""
    used = {name for node in model.graph.node for name in node.input} | set(Graph(model).output_names())
    for node in list(model.graph.node):
        if any(node is one for one in gone) or (node.op_type == "QuantizeLinear" and node.output[0] not in used):
            model.graph.node.remove(node)
    drop_unused_constants(model)


def _rounding(graph: Graph, node: Node) -> Node | None:
    """The ``QuantizeLinear`` before a ``DequantizeLinear``; ``None`` of another node, and before integers that are constants."""
    before = graph.maker(node.input[0]) if node.op_type == "DequantizeLinear" else None
    if before is None or before.op_type != "QuantizeLinear" or graph.constant(before.input[0]) is not None:
        return None
    return before


def _kind(floats: Graph, tensor: str) -> str:
    maker = floats.maker(tensor)
    if feeds_silu(floats, tensor):
        return _BEFORE
    if maker is not None and maker.op_type == "Mul" and any(feeds_silu(floats, name) for name in maker.input):
        return _AFTER
    return _KINDS.get(maker.op_type, "others") if maker is not None else "others"


def _float_value(graph: Graph, floats: Graph, node: Node) -> Array | None:
    """What the float model has where a constant is stored as integers: the same input of the node of the same name."""
    users = graph.users(node.output[0])
    twin = next((one for one in floats.nodes if users and one.name == users[0].name), None)
    if twin is None:
        return None
    at = list(users[0].input).index(node.output[0])
    return floats.constant(twin.input[at]) if at < len(twin.input) else None
