"""The rules of TensorRT for models with explicit rounding; docs/adr/0019 has where each is from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgecv.protocols import Array
from edgecv.quantize.lint.rule import Found, Rule
from edgecv.quantize.ort.graph import Graph, Node, attribute
from edgecv.quantize.ort.opset import WANTED, opset_of
from edgecv.quantize.ort.pixels import readers_of_pixels

_PAIR = ("QuantizeLinear", "DequantizeLinear")
_STANDARD = ("", "ai.onnx")
_INTEGER_OPERATORS = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")
_FLOAT_OPERATORS = ("Sigmoid", "Softmax", "Resize", "Slice", "Split", "Reshape", "Transpose", "Pad", "Relu")
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def _operators(graph: Graph) -> Iterator[Found]:
    for node in graph.nodes:
        if node.domain not in _STANDARD:
            yield _called(node), f"{node.op_type} is of the domain {node.domain}."
        elif node.op_type in _INTEGER_OPERATORS:
            yield _called(node), f"{node.op_type} computes on integers by itself."


def _zero_points(graph: Graph) -> Iterator[Found]:
    for node in _pairs(graph):
        zero = _input_value(graph, node, 2)
        if zero is not None and np.any(zero != 0):
            yield _called(node), f"Its zero point is {zero.reshape(-1)[np.flatnonzero(zero)[0]]}."


def _types(graph: Graph) -> Iterator[Found]:
    for node in _pairs(graph):
        name = _stored_type(graph, node)
        if name not in ("int8", "int32"):  # int32 is a bias, which has a rule of its own
            yield _called(node), f"It stores {name}."


def _weight_axes(graph: Graph) -> Iterator[Found]:
    for node in graph.nodes:
        made = graph.maker(node.input[1]) if node.op_type in _WEIGHTED and len(node.input) > 1 else None
        if made is None or made.op_type != _PAIR[1] or not _is_constant(graph, made):
            continue
        scale = _input_value(graph, made, 1)
        axis, wanted = attribute(made, "axis", 1), _axis_of(node)
        rank = _rank(graph, made)
        if scale is not None and scale.size > 1 and axis not in (wanted, wanted - rank):
            yield _called(node), f"Its weights have a scale for each slice along axis {axis}, not {wanted}."


def _activation_scales(graph: Graph) -> Iterator[Found]:
    for node in _pairs(graph):
        scale = _input_value(graph, node, 1)
        if scale is not None and scale.size > 1 and not _is_constant(graph, node):
            yield _called(node), f"It has {scale.size} scales for an activation."


def _biases(graph: Graph) -> Iterator[Found]:
    for node in graph.nodes:
        if node.op_type in _WEIGHTED and len(node.input) > 2 and _is_dequantized(graph, node.input[2]):
            yield _called(node), "Its bias is dequantized."


def _float_operators(graph: Graph) -> Iterator[Found]:
    for node in graph.nodes:
        rounded = any(_is_dequantized(graph, name) for name in node.input)
        if rounded and node.op_type in _FLOAT_OPERATORS:
            yield _called(node), f"What {node.op_type} reads was rounded."
        elif rounded and _is_silu(graph, node):
            yield _called(node), "What the product of a SiLU reads was rounded."
        elif node.op_type == "Softmax" and any(_quantizers(graph, name) for name in node.output):
            yield _called(node), "What Softmax gives is rounded."


def _additions(graph: Graph) -> Iterator[Found]:
    for node in graph.nodes:
        if node.op_type == "Add" and sum(_is_dequantized(graph, name) for name in node.input) > 1:
            yield _called(node), "Both of its inputs were rounded."


def _concatenations(graph: Graph) -> Iterator[Found]:
    for node in graph.nodes:
        if node.op_type == "Concat":
            scales = {scale for name in (*node.input, *node.output) for scale in _scales_at(graph, name)}
            if len(scales) > 1:
                yield _called(node), f"Its tensors have {len(scales)} scales."


def _open_sizes(graph: Graph) -> Iterator[Found]:
    inputs = set(graph.input_names())
    for value in graph.model.graph.input:
        kind = value.type.tensor_type
        if value.name in inputs and (not kind.HasField("shape") or any(dim.dim_value < 1 for dim in kind.shape.dim)):
            yield value.name, "The size of this input is open."


def _pixels(graph: Graph) -> Iterator[Found]:
    for name, node in readers_of_pixels(graph):
        if node.op_type != "Cast":
            yield _called(node), f"{node.op_type} reads {name}, which is uint8."


def _opset(graph: Graph) -> Iterator[Found]:
    version = opset_of(graph.model)
    if version > WANTED:
        yield "model", f"Its opset is {version}."


def _called(node: Node) -> str:
    """What to call a node: by its name, else by what it makes."""
    return str(node.name or f"{node.op_type} -> {node.output[0]}")


def _pairs(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.op_type in _PAIR]


def _input_value(graph: Graph, node: Node, at: int) -> Array | None:
    return graph.constant(node.input[at]) if len(node.input) > at and node.input[at] else None


def _stored_type(graph: Graph, node: Node) -> str:
    """The type of the integers: that of the zero point; without one that of the stored constant, else uint8, as ONNX says."""
    zero = _input_value(graph, node, 2)
    if zero is not None:
        return zero.dtype.name
    if node.op_type == _PAIR[0]:
        return _TYPES.get(attribute(node, "output_dtype", 0), "uint8")
    stored, maker = graph.constant(node.input[0]), graph.maker(node.input[0])
    if stored is not None:
        return stored.dtype.name
    return _stored_type(graph, maker) if maker is not None and maker.op_type == _PAIR[0] else "uint8"


_TYPES = {0: "uint8", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 17: "float8", 21: "uint4", 22: "int4"}


def _is_dequantized(graph: Graph, tensor: str) -> bool:
    maker = graph.maker(tensor)
    return maker is not None and maker.op_type == _PAIR[1]


def _is_constant(graph: Graph, node: Node) -> bool:
    """Whether what a node of a pair reads is constant: weights, stored as integers or as floats that are rounded."""
    if graph.constant(node.input[0]) is not None:
        return True
    maker = graph.maker(node.input[0])
    return maker is not None and maker.op_type == _PAIR[0] and graph.constant(maker.input[0]) is not None


def _rank(graph: Graph, dequantize: Node) -> int:
    maker = graph.maker(dequantize.input[0])
    stored = graph.constant(dequantize.input[0] if maker is None or maker.op_type == "Constant" else maker.input[0])
    return stored.ndim if stored is not None else 0


def _axis_of(node: Node) -> int:
    """The axis of the output channels in the weights of an operator."""
    return 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1


def _is_silu(graph: Graph, node: Node) -> bool:
    """Whether a node multiplies a tensor by its own sigmoid, however often either was rounded on the way."""
    if node.op_type != "Mul" or len(node.input) != 2:
        return False
    first, second = (_before_rounding(graph, name) for name in node.input)
    return _gated_by(graph, first) == second or _gated_by(graph, second) == first


def _gated_by(graph: Graph, tensor: str) -> str | None:
    maker = graph.maker(tensor)
    return _before_rounding(graph, maker.input[0]) if maker is not None and maker.op_type == "Sigmoid" else None


def _before_rounding(graph: Graph, tensor: str) -> str:
    for _ in graph.nodes:  # a file may hold a circle
        maker = graph.maker(tensor)
        if maker is None or maker.op_type not in _PAIR:
            break
        tensor = maker.input[0]
    return tensor


def _quantizers(graph: Graph, tensor: str) -> list[Node]:
    return [node for node in graph.users(tensor) if node.op_type == _PAIR[0]]


def _scales_at(graph: Graph, tensor: str) -> Iterator[float]:
    """The scales with which a tensor is rounded before or after it gets here."""
    maker = graph.maker(tensor)
    made = [maker] if maker is not None and maker.op_type == _PAIR[1] else []
    for node in (*made, *_quantizers(graph, tensor)):
        scale = _input_value(graph, node, 1)
        if scale is not None and scale.size == 1:
            yield float(scale.reshape(-1)[0])


RULES: Sequence[Rule] = (
    Rule(
        name="operator",
        why="TensorRT knows standard operators, and integers only where QuantizeLinear and DequantizeLinear say so.",
        fix="Quantize the float model in QDQ form: edgecv convert MODEL --int8 --target tensorrt.",
        check=_operators,
    ),
    Rule(
        name="zero-point",
        why="TensorRT takes a zero point of 0 alone (NVIDIA/TensorRT issues 2774 and 4698).",
        fix="Quantize symmetrically, activations as well: edgecv convert MODEL --int8 --target tensorrt.",
        check=_zero_points,
    ),
    Rule(
        name="int8",
        why="TensorRT computes on signed integers of 8 bits, activations and weights alike.",
        fix="Quantize both to int8: edgecv convert MODEL --int8 --target tensorrt.",
        check=_types,
    ),
    Rule(
        name="weight-axis",
        why="TensorRT wants a scale per output channel: axis 0 of Conv and of Gemm with transB, 1 of ConvTranspose and MatMul.",
        fix="Quantize the weights per output channel.",
        check=_weight_axes,
    ),
    Rule(
        name="activation-scale",
        why="TensorRT takes one scale for an activation.",
        fix="Quantize activations per tensor.",
        check=_activation_scales,
    ),
    Rule(
        name="bias",
        why="TensorRT refuses a dequantized bias: only activation types are allowed (microsoft/onnxruntime issue 14229).",
        fix="Leave biases float: QuantizeBias=False in onnxruntime's quantizer.",
        check=_biases,
    ),
    Rule(
        name="float-operator",
        why="A rounded input keeps TensorRT from fusing this operator (NVIDIA/TensorRT issues 3629 and 3861).",
        fix="Round the inputs of weighted operators alone.",
        check=_float_operators,
    ),
    Rule(
        name="add",
        why="TensorRT fuses an addition with the convolution before it only where that side was not rounded (issue 2383).",
        fix="Round the input that goes around the residual block, and no other.",
        check=_additions,
    ),
    Rule(
        name="concat",
        why="With different scales TensorRT rescales what a concatenation could copy.",
        fix="Give the inputs and the output of a concatenation one scale.",
        check=_concatenations,
    ),
    Rule(
        name="input-size",
        why="An engine is built for fixed sizes.",
        fix="Export the model with fixed sizes, or give edgecv convert an --imgsz.",
        check=_open_sizes,
    ),
    Rule(
        name="pixels",
        why="In TensorRT a cast alone reads uint8 (NVIDIA/TensorRT issue 3985): another operator is left to CUDA or the processor.",
        fix="Let the cast to float come first; onnx-fp16 and onnx-int8-tensorrt have it so.",
        check=_pixels,
        level="warn",
    ),
    Rule(
        name="opset",
        why=f"TensorRT 8.6 reads opsets up to {WANTED}, later releases more of them.",
        fix=f"Export the model with opset {WANTED} for that release; from TensorRT 10 on it matters no more.",
        check=_opset,
        level="warn",
    ),
)
