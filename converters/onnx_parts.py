"""Foreign ``.onnx`` files: reading, fixing shapes, cutting, and taking pixels. What detectors and classifiers share."""

from __future__ import annotations

import ast
import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.bundle import MAX_INPUT_PIXELS, MAX_SIDE_PX
from edgecv.converters.pixels import pixel_scale
from edgecv.converters.source import SIZE_STEP, image_input
from edgecv.converters.yolov8_tasks import HEADS
from edgecv.errors import ConfigError, ConversionError, SessionError, UnsupportedSource
from edgecv.extras import require
from edgecv.foreign import first_line, foreign_errors
from edgecv.golden import cosine
from edgecv.protocols import Array
from edgecv.quantize.onnx_graph import (
    Graph,
    add_constant,
    drop_unused_constants,
    load,
    name_nodes,
    replace_nodes,
)
from edgecv.quiet import quiet
from edgecv.runtimes.onnx_files import check_external
from edgecv.specs import PreprocessSpec

# onnxruntime's static quantization takes up to 20; older ones lack the axes that INT8 weights need.
OPSETS = range(17, 21)
_SAME = 0.99999
_SUM_TOLERANCE = 1e-3  # of a thousand probabilities that were computed in fp16
_MOST_LITERAL = 1 << 20  # characters; metadata of a thousand classes has 30 kB
_COPYING = ("Identity", "Flatten", "Reshape", "Squeeze", "Cast", "Dropout")


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
        model = load(path)
        onnx.checker.check_model(model)
    except (decode_error, onnx.checker.ValidationError, SessionError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else "empty"
        raise UnsupportedSource(f"{path} is not a usable ONNX model: {reason}.", "Export it again.") from error
    if not model.graph.node:
        raise UnsupportedSource(f"{path} is not a usable ONNX model: it is empty.", "Export it again.")
    name_nodes(model)
    return model


def input_size(path: Path, model: Any, asked: tuple[int, int] | None) -> tuple[int, int] | None:
    """Width and height of the image input: the graph's own, else what was asked for, else what its metadata say, if they do.

    Raises:
        UnsupportedSource: it does not take one float (1, 3, H, W) image.
        ConfigError: the graph has fixed shapes and another size was asked for.
    """
    inputs = Graph(model).input_names()
    value = next(value for value in model.graph.input if value.name == inputs[0]) if len(inputs) == 1 else None
    shape = [size.dim_value for size in value.type.tensor_type.shape.dim] if value is not None else []
    is_float = value is not None and value.type.tensor_type.elem_type == 1
    if len(shape) != 4 or shape[1] not in (0, 3) or not is_float:
        raise UnsupportedSource(
            f"{path} does not take one float (1, 3, H, W) image.", "Export it in float32 with one image input."
        )
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
    """The graph for one picture of a fixed size, with every shape inferred."""
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


def without_softmax(model: Any) -> Any:
    """A classifier ``(1, classes)`` whose output is what its final softmax takes; as it is where it ends in none.

    Decoders take logits: a second softmax would make every confidence of a thousand classes about a thousandth. Whether one was
    found is proven: the softmax of what comes out must be what came out before.

    Raises:
        UnsupportedSource: it gives probabilities, and no softmax that can be taken off.
    """
    (scores,) = _on_noise(model)
    if scores.min() < 0 or abs(float(scores.sum()) - 1) > _SUM_TOLERANCE:
        return model
    cut = _bypassed_softmax(model)
    if cut is not None:
        (logits,) = _on_noise(cut)
        weights = np.exp(logits.astype(np.float64) - logits.max())
        if np.allclose(weights / weights.sum(), scores, atol=_SUM_TOLERANCE):
            return cut
    raise UnsupportedSource(
        "The classifier gives probabilities instead of logits, and what makes them cannot be taken off.",
        "Export it without its last layer (softmax, normalisation).",
    )


def _bypassed_softmax(model: Any) -> Any | None:
    """A copy without the softmax on the way to the output, past operators that only copy; ``None`` without one."""
    cut = copy.deepcopy(model)
    graph = Graph(cut)
    (output,) = graph.output_names()
    node = graph.maker(output)
    while node is not None and node.op_type in _COPYING:
        node = graph.maker(node.input[0])
    if node is None or node.op_type != "Softmax":
        return None
    before, after = node.input[0], node.output[0]
    cut.graph.node.remove(node)
    if after == output:
        cut.graph.output[0].name = before
    for user in graph.users(after):
        user.input[:] = [before if name == after else name for name in user.input]
    return cut


def _on_noise(model: Any) -> list[Array]:
    """What a graph of fixed shapes makes of a noisy picture."""
    picture = np.random.default_rng(0).random(input_shape(model), np.float32)
    found: list[Array] = in_memory_session(model).run(None, {Graph(model).input_names()[0]: picture})
    return found


def open_reshapes(model: Any, batch: int) -> None:
    """Let reshapes that were written for ``batch`` pictures keep the number they are given (a 0 means that), in place."""
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


def output_shapes(model: Any) -> list[tuple[int, ...]]:
    """Shapes of the outputs, by running the model once."""
    zero = np.zeros(input_shape(model), np.float32)
    return [output.shape for output in in_memory_session(model).run(None, {Graph(model).input_names()[0]: zero})]


def input_shape(model: Any) -> tuple[int, ...]:
    """Shape of the input."""
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

    Where the model takes plain pixels over 255, its first weights carry all of it; else two nodes normalise first.

    Raises:
        UnsupportedSource: the graph does not begin with one convolution over the image.
    """
    onnx, helper = require("onnx", "convert"), require("onnx.helper", "convert")
    graph = Graph(model)
    users = graph.users(graph.input_names()[0])
    weights = graph.constant(users[0].input[1]) if len(users) == 1 and users[0].op_type == "Conv" else None
    if weights is None or weights.shape[1] != 3:
        raise UnsupportedSource(
            "The graph does not begin with one convolution over the image.", "Export it without preprocessing inside."
        )
    image = image_input(spec.size_wh)
    factor, shift = pixel_scale(spec)
    ordered = weights[:, ::-1] if spec.color == "rgb" else weights
    plain = not shift.any()
    folded = ordered * factor.reshape(1, 3, 1, 1) if plain else ordered
    changed = copy.deepcopy(users[0])
    changed.input[1] = add_constant(model, "stem/pixel_weights", folded.astype(np.float32))
    changed.input[0] = "stem/floats" if plain else "stem/normalised"
    nodes = [
        helper.make_node("Transpose", [image.name], ["stem/planes"], name="stem/transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["stem/planes"], ["stem/floats"], name="stem/cast", to=onnx.TensorProto.FLOAT),
    ]
    if not plain:
        scale = add_constant(model, "stem/factor", factor.reshape(1, 3, 1, 1))
        offset = add_constant(model, "stem/shift", shift.reshape(1, 3, 1, 1))
        nodes += [
            helper.make_node("Mul", ["stem/floats", scale], ["stem/scaled"], name="stem/scale"),
            helper.make_node("Add", ["stem/scaled", offset], ["stem/normalised"], name="stem/offset"),
        ]
    replace_nodes(model, [users[0]], [*nodes, changed])
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info(image.name, onnx.TensorProto.UINT8, image.shape))
    drop_unused_constants(model)
    return model


def rename_outputs(model: Any, names: dict[str, str]) -> None:
    """Rename tensors, outputs among them, in place; one that has such a name already gets another."""
    taken = {tensor for node in model.graph.node for tensor in (*node.input, *node.output)}
    names = {**{name: f"{name}/inner" for name in names.values() if name in taken}, **names}
    for node in model.graph.node:
        node.output[:] = [names.get(name, name) for name in node.output]
        node.input[:] = [names.get(name, name) for name in node.input]
    for value in (*model.graph.output, *model.graph.initializer):
        value.name = names.get(value.name, value.name)


def in_memory_session(model: Any) -> Any:
    """A plain session of onnxruntime.

    Raises:
        UnsupportedSource: the graph holds what onnxruntime does not know.
    """
    runtime = require("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    try:
        with quiet():
            return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no class in common
        raise UnsupportedSource(
            f"onnxruntime cannot run the model: {first_line(error)}",
            f"Export it with operators of standard ONNX, opset {min(OPSETS)} to {max(OPSETS)}.",
        ) from error


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
