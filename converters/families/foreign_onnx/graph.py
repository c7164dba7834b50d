"""Foreign ``.onnx`` files: reading, fixing shapes, cutting, and taking pixels. What detectors and classifiers share."""

from __future__ import annotations

import ast
import copy
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv._internal.foreign import foreign_errors
from edgecv._internal.quiet import quiet
from edgecv.bundles.golden import cosine
from edgecv.bundles.manifest import MAX_INPUT_PIXELS, MAX_SIDE_PX
from edgecv.converters.families.foreign_onnx.forms import Input, last_node, sorted_nodes
from edgecv.converters.families.torch_input import pixel_scale
from edgecv.converters.families.yolov8_tasks import HEADS
from edgecv.converters.source import SIZE_STEP, image_input
from edgecv.errors import ConfigError, ConversionError, SessionError, UnsupportedSource
from edgecv.protocols import Array
from edgecv.quantize.ort.graph import (
    Graph,
    Node,
    add_constant,
    drop_unused_constants,
    load,
    name_nodes,
    replace_nodes,
)
from edgecv.runtimes.onnx_files import check_external
from edgecv.specs import PreprocessSpec

# onnxruntime's static quantization takes up to 20; older ones lack the axes that INT8 weights need.
OPSETS = range(17, 21)
_SAME = 0.99999
_SUM_TOLERANCE = 1e-3  # of a thousand probabilities that were computed in fp16
_MOST_LITERAL = 1 << 20  # characters; metadata of a thousand classes has 30 kB
# Ends that may make confidences out of scores, or be part of something else.
_BOUNDED = ("HardSigmoid", "Clip", "Div", "Mul", "Reciprocal", "Tanh", "Exp", "Max", "Min", "Where")
UNSURE = (
    "unsure"  # all that came out lies within 0 and 1, and what made it does not say whether that is so for every image
)


def load_model(path: Path) -> Any:
    """The model, checked, its nodes named.

    Raises:
        UnsupportedSource: missing, damaged or empty.
    """
    if not path.is_file():
        raise UnsupportedSource(f"{path} does not exist.", "Check the path to the model.")
    onnx = require("onnx", "convert")
    decode_error = require("google.protobuf.message", "convert").DecodeError
    try:
        check_external(path)
        model = sorted_nodes(load(path))
        onnx.checker.check_model(model)
    except (decode_error, onnx.checker.ValidationError, SessionError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else "empty"
        raise UnsupportedSource(f"{path} is not a usable ONNX model: {reason}.", "Export it again.") from error
    if not model.graph.node:
        raise UnsupportedSource(f"{path} is not a usable ONNX model: it is empty.", "Export it again.")
    name_nodes(model)
    return model


def input_size(path: Path, model: Any, asked: tuple[int, int] | None) -> tuple[int, int] | None:
    """Width and height of the ``(N, 3, H, W)`` input: the graph's own, else what was asked for, else what its metadata say.

    Raises:
        ConfigError: the graph has fixed shapes and another size was asked for.
    """
    shape = input_shape(model)
    fixed = (shape[3], shape[2]) if shape[2] and shape[3] else None
    if max(shape[2:]) > MAX_SIDE_PX or math.prod(fixed or (0,)) > MAX_INPUT_PIXELS:
        raise UnsupportedSource(f"{path} takes {shape[3]} x {shape[2]} pixels, more than any model.", "Is it damaged?")
    if fixed and asked and fixed != asked:
        raise ConfigError(f"{path} has a fixed input of {fixed[0]}x{fixed[1]}.", "Leave --imgsz away, or export again.")
    known = fixed or asked or _size_in_metadata(model)
    if known and any(axis and axis != size for axis, size in zip((shape[3], shape[2]), known, strict=True)):
        raise ConfigError(
            f"{path} has one fixed side ({shape[3] or 'open'} x {shape[2] or 'open'}), which {known[0]}x{known[1]} does not have.",
            "Say a size with that side: --imgsz WxH.",
        )
    return known


def literal(text: str) -> Any:
    """A Python literal in an export's metadata; ``None`` for anything else."""
    if len(text) > _MOST_LITERAL:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _size_in_metadata(model: Any) -> tuple[int, int] | None:
    found = literal(next((entry.value for entry in model.metadata_props if entry.key == "imgsz"), ""))
    if not isinstance(found, (list, tuple)) or len(found) != 2 or not all(isinstance(size, int) for size in found):
        return None
    height, width = found
    return (width, height) if min(width, height) >= SIZE_STEP else None


def with_fixed_shapes(path: Path, model: Any, size_wh: tuple[int, int]) -> Any:
    """The graph for one image of a fixed size, with every shape inferred."""
    onnx = require("onnx", "convert")
    fixed = copy.deepcopy(model)
    name = Graph(fixed).input_names()[0]
    value = next(value for value in fixed.graph.input if value.name == name)
    if value.type.tensor_type.shape.dim[0].dim_value > 1:
        open_reshapes(fixed, value.type.tensor_type.shape.dim[0].dim_value)
        del fixed.graph.value_info[:]
    for axis, size in zip(value.type.tensor_type.shape.dim, (1, 3, size_wh[1], size_wh[0]), strict=True):
        axis.dim_value = size
    for output in fixed.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        return onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise UnsupportedSource(
            f"{path}: shapes cannot be inferred: {error}.", "Export it with fixed shapes."
        ) from error


def in_supported_opset(model: Any) -> Any:
    """The graph of fixed shapes in an opset that every tool on the way reads.

    It stays as it is where ONNX's converter cannot bring it there, or brings something else: floats and other formats do not
    need it, and onnxruntime's quantizer says what it does not take.
    """
    found = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    wanted = min(max(found, min(OPSETS)), max(OPSETS))
    if found == wanted:
        return model
    onnx = require("onnx", "convert")
    try:
        with foreign_errors(ConversionError, "ONNX cannot convert the opset", ""), quiet():
            changed = onnx.version_converter.convert_version(model, wanted)
            changed = onnx.shape_inference.infer_shapes(changed, data_prop=True)
            same = all(cosine(*pair) > _SAME for pair in zip(_on_noise(model), _on_noise(changed), strict=True))
    except ConversionError:
        return model
    if not same:
        return model
    name_nodes(changed)  # the converter's own have none
    onnx.helper.set_model_props(changed, {entry.key: entry.value for entry in model.metadata_props})
    return changed


def without_activation(model: Any) -> tuple[Any, str]:
    """A classifier ``(1, classes)`` without the softmax or sigmoid at its end, and what ``LogitsDecoder`` shall do instead.

    Decoders take logits: a second softmax would make every confidence of a thousand classes about a thousandth. Whether an
    activation was found is proven: applied to what comes out, it must give what came out before.

    Returns:
        The graph and ``softmax`` or ``sigmoid``; ``none`` where confidences come out and what makes them cannot be taken off;
        ``unsure`` where they may be; nothing where the file ends in plain scores.

    Raises:
        UnsupportedSource: what comes out is NaN or infinite.
    """
    (scores,) = _on_noise(model)
    if not np.isfinite(scores).all():
        raise UnsupportedSource(
            "The classifier gives no numbers (NaN or infinity) for an image.",
            "Its weights are damaged: export it again.",
        )
    end = last_node(Graph(model))
    kind = end.op_type if end is not None else ""
    if kind in _ACTIVATIONS:
        cut = _bypassed(model)
        (logits,) = _on_noise(cut)
        if np.allclose(_ACTIVATIONS[kind](logits.astype(np.float64)), scores, atol=_SUM_TOLERANCE):
            return cut, kind.lower()
    inside = bool(scores.min() >= 0 and scores.max() <= 1 + _SUM_TOLERANCE)
    if inside and scores.size > 1 and abs(float(scores.sum()) - 1) < _SUM_TOLERANCE:
        return model, "none"
    return model, UNSURE if inside and (kind in _BOUNDED or kind in _ACTIVATIONS) else ""


def _softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())


def _sigmoid(logits: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-logits)))


# What confidences come from, as it is called in ONNX.
_ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = MappingProxyType({"Softmax": _softmax, "Sigmoid": _sigmoid})


def _bypassed(model: Any) -> Any:
    """A copy without the activation on the way to the output."""
    cut = copy.deepcopy(model)
    graph = Graph(cut)
    (output,) = graph.output_names()
    node = last_node(graph)
    assert node is not None
    before, after = node.input[0], node.output[0]
    cut.graph.node.remove(node)
    if after == output:
        cut.graph.output[0].name = before
    for user in graph.users(after):
        user.input[:] = [before if name == after else name for name in user.input]
    return cut


def _on_noise(model: Any) -> list[Array]:
    """What a graph of fixed shapes makes of a noisy image."""
    image = np.random.default_rng(0).random(input_shape(model), np.float32)
    found: list[Array] = in_memory_session(model).run(None, {Graph(model).input_names()[0]: image})
    return found


def open_reshapes(model: Any, batch: int) -> None:
    """Let reshapes that were written for ``batch`` images keep the number they are given (a 0 means that), in place."""
    graph = Graph(require("onnx", "convert").shape_inference.infer_shapes(model))
    leading = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim][:1]
        for value in (*graph.model.graph.value_info, *graph.model.graph.input)
    }
    for node in model.graph.node:
        shape = graph.constant(node.input[1]) if node.op_type == "Reshape" else None
        if shape is not None and shape.size > 1 and shape[0] == batch and leading.get(node.input[0]) == [batch]:
            node.input[1] = add_constant(model, f"{node.output[0]}/rows", np.array([0, *shape[1:]], np.int64))
    drop_unused_constants(model)


def prove_pixels(path: Path, original: Any, made: Any, given: Input) -> None:
    """Raise ``UnsupportedSource`` unless a graph over float pixels gives what the original gives over uint8 ones."""
    shape = input_shape(made)
    image = np.random.default_rng(0).integers(0, 256, (1, 1 if given.grey else 3, *shape[2:]), np.uint8)
    fed = np.ascontiguousarray(image.transpose(0, 2, 3, 1)) if given.last else image
    planes = np.repeat(image, 3, axis=1) if given.grey else image
    wanted = in_memory_session(original).run(None, {Graph(original).input_names()[0]: fed})
    found = in_memory_session(made).run(None, {Graph(made).input_names()[0]: planes.astype(np.float32)})
    if not all(a.shape == b.shape and cosine(a, b) > _SAME for a, b in zip(wanted, found, strict=True)):
        raise UnsupportedSource(
            f"{path} takes uint8 pixels and computes with them as whole numbers before they become floats.",
            "Export it with a float32 input (1, 3, H, W).",
        )


def output_shapes(model: Any) -> list[tuple[int, ...]]:
    """Shapes of the outputs, by running the model once."""
    zero = np.zeros(input_shape(model), np.float32)
    return [output.shape for output in in_memory_session(model).run(None, {Graph(model).input_names()[0]: zero})]


def input_shape(model: Any) -> tuple[int, ...]:
    """The shape of the first input; a dynamic size is 0."""
    name = Graph(model).input_names()[0]
    value = next(value for value in model.graph.input if value.name == name)
    return tuple(size.dim_value for size in value.type.tensor_type.shape.dim)


def image_shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Shapes of all four-dimensional tensors, by name."""
    values = [*graph.model.graph.value_info, *graph.model.graph.output]
    shapes = {v.name: tuple(size.dim_value for size in v.type.tensor_type.shape.dim) for v in values}
    return {name: shape for name, shape in shapes.items() if len(shape) == 4 and all(shape)}


def ending_at(model: Any, tensors: list[str]) -> Any:
    """A copy whose outputs are ``tensors``, without the nodes that nothing needs any more."""
    helper, onnx = require("onnx.helper", "convert"), require("onnx", "convert")
    cut = copy.deepcopy(model)
    shapes = image_shapes(Graph(cut))
    graph = Graph(cut)
    needed: set[str] = set()
    pending = list(tensors)
    while pending:
        name = pending.pop()
        node = graph.maker(name)
        if node is not None and name not in needed:
            needed |= set(node.output)
            pending.extend(node.input)
    kept = [node for node in graph.nodes if needed & set(node.output)]
    del cut.graph.node[:], cut.graph.output[:], cut.graph.value_info[:]
    cut.graph.node.extend(kept)
    cut.graph.output.extend(helper.make_tensor_value_info(t, onnx.TensorProto.FLOAT, shapes[t]) for t in tensors)
    drop_unused_constants(cut)
    return cut


def from_pixels(model: Any, spec: PreprocessSpec) -> Any:
    """The graph with a uint8 BGR ``(1, H, W, 3)`` input, in place: colour order and normalisation become part of it.

    Where the model begins with a convolution over plain pixels over 255, its first weights carry all of it. Else nodes before it
    normalise, and put the colours in order.
    """
    onnx, helper = require("onnx", "convert"), require("onnx.helper", "convert")
    image = image_input(spec.size_wh)
    rename_outputs(model, {Graph(model).input_names()[0]: "stem/planar", image.name: f"{image.name}/inner"})
    graph = Graph(model)
    users = graph.users(graph.input_names()[0])
    weights = graph.constant(users[0].input[1]) if len(users) == 1 and users[0].op_type == "Conv" else None
    factor, shift = pixel_scale(spec)
    flip = spec.color == "rgb"
    gone: list[Node] = []
    nodes: list[Node] = []
    if weights is not None and weights.shape[1] == 3:
        convolution = copy.deepcopy(users[0])
        weights = weights[:, ::-1] if flip else weights
        if not shift.any():
            weights, factor = weights * factor.reshape(1, 3, 1, 1), np.ones_like(factor)
        convolution.input[1] = add_constant(model, "stem/pixel_weights", weights.astype(np.float32))
        gone, flip = [users[0]], False
    last = image.name
    if flip:
        order = add_constant(model, "stem/order", np.array([2, 1, 0], np.int64))
        nodes.append(helper.make_node("Gather", [last, order], ["stem/colours"], name="stem/gather", axis=3))
        last = "stem/colours"
    nodes += [
        helper.make_node("Transpose", [last], ["stem/planes"], name="stem/transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["stem/planes"], ["stem/floats"], name="stem/cast", to=onnx.TensorProto.FLOAT),
    ]
    last = "stem/floats"
    if shift.any() or (factor != 1).any():
        factor, shift = (factor[::-1], shift[::-1]) if flip else (factor, shift)
        scale = add_constant(model, "stem/factor", factor.reshape(1, 3, 1, 1))
        offset = add_constant(model, "stem/shift", shift.reshape(1, 3, 1, 1))
        nodes += [
            helper.make_node("Mul", [last, scale], ["stem/scaled"], name="stem/scale"),
            helper.make_node("Add", ["stem/scaled", offset], ["stem/normalised"], name="stem/offset"),
        ]
        last = "stem/normalised"
    if gone:
        convolution.input[0] = last
        replace_nodes(model, gone, [*nodes, convolution])
    else:
        nodes[-1].output[0] = graph.input_names()[0]  # what was the network's own input
        model.graph.node.extend(nodes)
        sorted_nodes(model)
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info(image.name, onnx.TensorProto.UINT8, image.shape))
    drop_unused_constants(model)
    return model


def rename_outputs(model: Any, names: dict[str, str]) -> None:
    """Rename tensors, inputs and outputs among them, in place; one that has such a name already gets another."""
    taken = {tensor for node in model.graph.node for tensor in (*node.input, *node.output)}
    names = {**{name: f"{name}/inner" for name in names.values() if name in taken}, **names}
    for node in model.graph.node:
        node.output[:] = [names.get(name, name) for name in node.output]
        node.input[:] = [names.get(name, name) for name in node.input]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.name = names.get(value.name, value.name)


def in_memory_session(model: Any) -> Any:
    """A plain session of onnxruntime.

    Raises:
        UnsupportedSource: the graph holds what onnxruntime does not know.
    """
    runtime = require("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    hint = f"Export it with operators of standard ONNX, opset {min(OPSETS)} to {max(OPSETS)}."
    with foreign_errors(UnsupportedSource, "onnxruntime cannot run the model", hint), quiet():
        return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def ultralytics_task(metadata: Mapping[str, str]) -> str:
    """What an export of Ultralytics is for, such as ``detect``, by its head where the metadata name it; empty for other files."""
    if metadata.get("author") != "Ultralytics":
        return ""
    head = HEADS.get(metadata.get("head", ""))
    return head.task if head is not None else metadata.get("task", "")


def licence_from(metadata: Mapping[str, str]) -> str:
    """The licence in an export's metadata, without the words around its identifier; ``unknown`` where it has none."""
    return metadata.get("license", "").split(" ")[0] or "unknown"


def labels_from(metadata: Mapping[str, str], classes: int) -> tuple[str, ...]:
    """Names of the classes in an export's metadata; their numbers where it has none."""
    names = literal(metadata.get("names", "{}"))
    if isinstance(names, (list, tuple)):
        names = dict(enumerate(names))
    known = {str(key): value for key, value in names.items()} if isinstance(names, dict) else {}
    return tuple(str(known.get(str(index), index)) for index in range(classes))
