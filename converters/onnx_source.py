"""A YOLOv8 ``.onnx`` that somebody else exported: its raw head is found by the structure of the graph.

From the prediction ``(1, 4 + classes, N)`` the walk goes back to the last convolutions that have weights of their own; the one
that only takes the expectation over the box bins (weights 0, 1, 2, ...) does not count. They come in pairs per grid: one
gives 4 × bins channels, the other one score per class. Node names play no part. That the pairs are what they seem is then
proven: decoding them must give the prediction of the original.
"""

from __future__ import annotations

import ast
import copy
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.bundle import sha256_of
from edgecv.converters.source import SIZE_STEP, SourceModel, SourceOptions, image_input, origin, raw_head_outputs
from edgecv.errors import ConfigError, UnsupportedSource
from edgecv.extras import require
from edgecv.protocols import Array
from edgecv.quantize.onnx_graph import Graph, Node, add_constant, drop_unused_constants, load, replace_nodes
from edgecv.quiet import quiet
from edgecv.results import Image
from edgecv.specs import DecodeSpec, ModelSpec, PreprocessSpec, TensorSpec
from edgecv.vision.yolov8 import PredictionDecoder, RawHeadDecoder

_BOX_ROWS = 4
_BOX_TOLERANCE_PX = 0.05
_SCORE_TOLERANCE = 1e-4


def open_onnx(path: Path, options: SourceOptions) -> SourceModel:
    """Read a YOLOv8 detection ``.onnx`` and cut it at its raw head.

    Raises:
        UnsupportedSource: missing, damaged, without a recognisable head, or of another form than float NCHW pixels in.
        ConfigError: the graph has fixed shapes and another size was asked for.
        MissingDependency: onnx is not installed.
    """
    model = _load(path)
    size_wh = _size(path, model, options.size_wh)
    model = _with_fixed_shapes(path, model, size_wh)
    graph = Graph(model)
    classes = _classes(path, model)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    labels = _labels(metadata, classes)
    for heads in _candidate_heads(path, graph, size_wh, classes):
        found = _source(path, model, heads, size_wh, labels, metadata)
        if _decodes_like_original(found, model):
            return found
    raise _no_head(path, "its outputs do not decode to its prediction")


def _load(path: Path) -> Any:
    if not path.is_file():
        raise UnsupportedSource(f"{path} does not exist.", "Check the path to the model.")
    onnx = require("onnx", "convert")
    decode_error = require("google.protobuf.message", "convert").DecodeError
    try:
        model = load(path)
        onnx.checker.check_model(model)
    except (decode_error, onnx.checker.ValidationError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else "empty"
        raise UnsupportedSource(f"{path} is not a usable ONNX model: {reason}.", "Export it again.") from error
    if not model.graph.node:
        raise UnsupportedSource(f"{path} is not a usable ONNX model: it is empty.", "Export it again.")
    return model


def _size(path: Path, model: Any, asked: tuple[int, int] | None) -> tuple[int, int]:
    inputs = Graph(model).input_names()
    value = next(value for value in model.graph.input if value.name == inputs[0]) if len(inputs) == 1 else None
    shape = [size.dim_value for size in value.type.tensor_type.shape.dim] if value is not None else []
    is_float = value is not None and value.type.tensor_type.elem_type == 1
    if len(shape) != 4 or shape[1] not in (0, 3) or not is_float:
        raise UnsupportedSource(
            f"{path} does not take one float (1, 3, H, W) image.", "Export it in float32 with one image input."
        )
    fixed = (shape[3], shape[2]) if shape[2] and shape[3] else None
    if fixed and asked and fixed != asked:
        raise ConfigError(f"{path} has a fixed input of {fixed[0]}x{fixed[1]}.", "Leave --imgsz away, or export again.")
    return fixed or asked or _size_in_metadata(model) or (640, 640)


def _size_in_metadata(model: Any) -> tuple[int, int] | None:
    text = next((entry.value for entry in model.metadata_props if entry.key == "imgsz"), "")
    try:
        height, width = (int(size) for size in ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError):
        return None
    return (width, height) if min(width, height) >= SIZE_STEP else None


def _with_fixed_shapes(path: Path, model: Any, size_wh: tuple[int, int]) -> Any:
    """The graph with a fixed input and every shape inferred."""
    onnx = require("onnx", "convert")
    fixed = copy.deepcopy(model)
    name = Graph(fixed).input_names()[0]
    value = next(value for value in fixed.graph.input if value.name == name)
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


def _classes(path: Path, model: Any) -> int:
    shapes = _run_shapes(model)
    if len(shapes) != 1 or len(shapes[0]) != 3 or shapes[0][0] != 1 or shapes[0][1] <= _BOX_ROWS:
        raise _no_head(path, f"its outputs have the shapes {shapes}, not (1, 4 + classes, N)")
    return shapes[0][1] - _BOX_ROWS


def _run_shapes(model: Any) -> list[tuple[int, ...]]:
    zero = np.zeros(_input_shape(model), np.float32)
    return [output.shape for output in _session(model).run(None, {Graph(model).input_names()[0]: zero})]


def _input_shape(model: Any) -> tuple[int, ...]:
    name = Graph(model).input_names()[0]
    value = next(value for value in model.graph.input if value.name == name)
    return tuple(size.dim_value for size in value.type.tensor_type.shape.dim)


def _candidate_heads(
    path: Path, graph: Graph, size_wh: tuple[int, int], classes: int
) -> list[list[tuple[int, Node, Node]]]:
    """Ways to read the last convolutions as ``(stride, box, class)``: two when boxes and classes have equally many channels."""
    by_stride: dict[int, list[tuple[int, Node]]] = defaultdict(list)
    shapes = _conv_shapes(graph)
    for node in _last_convolutions(graph):
        shape = shapes.get(node.output[0])
        if shape is None or size_wh[0] % shape[3]:
            raise _no_head(path, "a last convolution has no shape")
        by_stride[size_wh[0] // shape[3]].append((shape[1], node))
    if not by_stride or any(len(pair) != 2 for pair in by_stride.values()):
        raise _no_head(path, "its last convolutions do not come in pairs of boxes and classes")
    readings = []
    for swap in (False, True):
        heads = []
        for stride, pair in sorted(by_stride.items()):
            (box_channels, box), (class_channels, score) = reversed(pair) if swap else pair
            if class_channels == classes and box_channels % _BOX_ROWS == 0:
                heads.append((stride, box, score))
        if len(heads) == len(by_stride):
            readings.append(heads)
    if not readings:
        raise _no_head(path, f"no pair of its last convolutions gives boxes and {classes} classes")
    return readings


def _last_convolutions(graph: Graph) -> list[Node]:
    """The last convolutions with weights of their own on every way back from the output, in graph order."""
    found: list[Node] = []
    seen: set[str] = set()
    tensors = list(graph.output_names())
    while tensors:
        name = tensors.pop()
        node = graph.maker(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type == "Shape":
            continue  # exports with open shapes place their cells by the size of a feature map, not by its values
        if node.op_type == "Conv" and not _is_expectation(graph, node):
            found.append(node)
        else:
            tensors.extend(node.input)
    return [node for node in graph.nodes if any(node is last for last in found)]


def _is_expectation(graph: Graph, node: Node) -> bool:
    weights = graph.constant(node.input[1])
    return weights is not None and np.array_equal(weights.reshape(-1), np.arange(weights.size))


def _conv_shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    values = [*graph.model.graph.value_info, *graph.model.graph.output]
    shapes = {v.name: tuple(size.dim_value for size in v.type.tensor_type.shape.dim) for v in values}
    return {name: shape for name, shape in shapes.items() if len(shape) == 4 and all(shape)}


def _source(
    path: Path,
    model: Any,
    heads: list[tuple[int, Node, Node]],
    size_wh: tuple[int, int],
    labels: tuple[str, ...],
    metadata: dict[str, str],
) -> SourceModel:
    shapes = _conv_shapes(Graph(model))
    bins = shapes[heads[0][1].output[0]][1] // _BOX_ROWS
    outputs = raw_head_outputs(size_wh, tuple(stride for stride, _, _ in heads), bins, len(labels))
    tensors = [node.output[0] for _, box, score in heads for node in (box, score)]
    names = {output.name: tensor for output, tensor in zip(outputs, tensors, strict=True)}
    original = _session(_ending_at(model, tensors))
    source_input = Graph(model).input_names()[0]

    def reference(picture: Image) -> dict[str, Array]:
        values = original.run(tensors, {source_input: _normalised(picture)})
        return dict(zip(names, values, strict=True))

    return SourceModel(
        name=path.stem,
        family="yolov8",
        licence=metadata.get("license", "unknown").split(" ")[0] or "unknown",
        origin=origin(path, sha256_of(path)),
        spec=ModelSpec(
            preprocess=PreprocessSpec(size_wh=size_wh),
            decode=DecodeSpec(task="detect", decoder="yolov8-raw", labels=labels),
        ),
        input=image_input(size_wh),
        outputs=outputs,
        reference=reference,
        graph=_pixel_graph(model, names, size_wh),
    )


def _pixel_graph(model: Any, names: dict[str, str], size_wh: tuple[int, int]) -> Any:
    """The graph from uint8 BGR pixels to the raw head."""
    onnx, helper = require("onnx", "convert"), require("onnx.helper", "convert")
    cut = _ending_at(model, list(names.values()))
    _rename_outputs(cut, {tensor: name for name, tensor in names.items()})
    graph = Graph(cut)
    source_input = graph.input_names()[0]
    spec = image_input(size_wh)
    users = graph.users(source_input)
    weights = graph.constant(users[0].input[1]) if len(users) == 1 and users[0].op_type == "Conv" else None
    if weights is None or weights.shape[1] != 3:
        raise UnsupportedSource(
            "The graph does not begin with one convolution over the image.", "Export it without preprocessing inside."
        )
    first = users[0]
    # RGB in 0..1 to BGR in 0..255 costs nothing when the weights carry it; zero padding stays zero.
    folded = add_constant(cut, "stem/pixel_weights", (weights[:, ::-1] / 255).astype(np.float32))
    changed = copy.deepcopy(first)
    changed.input[0], changed.input[1] = "stem/floats", folded
    replace_nodes(
        cut,
        [first],
        [
            helper.make_node("Transpose", [spec.name], ["stem/planes"], name="stem/transpose", perm=[0, 3, 1, 2]),
            helper.make_node("Cast", ["stem/planes"], ["stem/floats"], name="stem/cast", to=onnx.TensorProto.FLOAT),
            changed,
        ],
    )
    image = helper.make_tensor_value_info(spec.name, onnx.TensorProto.UINT8, spec.shape)
    del cut.graph.input[:]
    cut.graph.input.append(image)
    drop_unused_constants(cut)
    return cut


def _ending_at(model: Any, tensors: list[str]) -> Any:
    """A copy whose outputs are ``tensors``, without the nodes that nothing needs any more."""
    helper, onnx = require("onnx.helper", "convert"), require("onnx", "convert")
    cut = copy.deepcopy(model)
    shapes = _conv_shapes(Graph(cut))
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


def _rename_outputs(model: Any, names: dict[str, str]) -> None:
    for node in model.graph.node:
        node.output[:] = [names.get(name, name) for name in node.output]
        node.input[:] = [names.get(name, name) for name in node.input]
    for value in model.graph.output:
        value.name = names.get(value.name, value.name)


def _decodes_like_original(source: SourceModel, model: Any) -> bool:
    """Whether the raw outputs, decoded, are the prediction of the original, cell by cell, on a noisy picture."""
    size_wh = source.spec.preprocess.size_wh
    picture = np.random.default_rng(0).integers(0, 256, (size_wh[1], size_wh[0], 3), np.uint8)
    (prediction,) = _session(model).run(None, {Graph(model).input_names()[0]: _normalised(picture)})
    output = TensorSpec(name="prediction", role="prediction", shape=prediction.shape, dtype="float32")
    wanted = PredictionDecoder(source.spec.decode, (output,)).candidates({"prediction": prediction}, -1.0)
    given = RawHeadDecoder(source.spec.decode, source.outputs).candidates(source.reference(picture), 0.0)
    if given.xyxy.shape != wanted.xyxy.shape:
        return False
    return bool(
        np.abs(given.xyxy - wanted.xyxy).max() < _BOX_TOLERANCE_PX
        and np.abs(given.confidence - wanted.confidence).max() < _SCORE_TOLERANCE
    )


def _normalised(picture: Image) -> Array:
    return np.ascontiguousarray(picture[..., ::-1].transpose(2, 0, 1)[None]).astype(np.float32) / 255


def _session(model: Any) -> Any:
    runtime = require("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    with quiet():
        return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _labels(metadata: dict[str, str], classes: int) -> tuple[str, ...]:
    try:
        names = ast.literal_eval(metadata.get("names", "{}"))
    except (ValueError, SyntaxError):
        names = {}
    known = names if isinstance(names, dict) else dict(enumerate(names))
    return tuple(str(known.get(index, index)) for index in range(classes))


def _no_head(path: Path, reason: str) -> UnsupportedSource:
    return UnsupportedSource(
        f"{path} has no recognisable YOLOv8 detection head: {reason}.",
        "Export the detector without built-in suppression (nms=False, end2end=False), or give the .pt.",
    )
