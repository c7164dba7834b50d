"""A YOLOv8 ``.onnx`` that somebody else exported: its raw head is found by the structure of the graph.

From the prediction ``(1, 4 + classes, N)`` the walk goes back to the last convolutions that have weights of their own; the one
that only takes the expectation over the box bins (weights 0, 1, 2, ...) does not count. They come in pairs per grid: one
gives 4 × bins channels, the other one score per class. Node names play no part. That the pairs are what they seem is then
proven: decoding them must give the prediction of the original.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.bundle import sha256_of
from edgecv.converters.onnx_classifier import classifier
from edgecv.converters.onnx_parts import (
    ending_at,
    from_pixels,
    image_shapes,
    in_memory_session,
    in_supported_opset,
    input_size,
    labels_from,
    licence_from,
    load_model,
    output_shapes,
    rename_outputs,
    ultralytics_task,
    with_fixed_shapes,
)
from edgecv.converters.pixels import normalised
from edgecv.converters.source import (
    Part,
    SourceModel,
    SourceOptions,
    class_labels,
    image_input,
    origin,
    raw_head_outputs,
)
from edgecv.errors import UnsupportedSource
from edgecv.foreign import first_line
from edgecv.protocols import Array, Tensors
from edgecv.quantize.onnx_graph import Graph, Node
from edgecv.specs import DecodeSpec, ModelSpec, PreprocessSpec, TensorSpec
from edgecv.vision.yolov8 import PredictionDecoder, RawHeadDecoder

_DETECTOR_SIZE = (640, 640)  # what YOLOv8 is trained in, where neither graph nor metadata know
_BOX_ROWS = 4
_BOX_TOLERANCE_PX = 0.05
_SCORE_TOLERANCE = 1e-4


def open_onnx(path: Path, options: SourceOptions) -> SourceModel:
    """Read a ``.onnx``: a classifier when it gives one row of scores, else a YOLOv8 detector.

    Raises:
        UnsupportedSource: missing, damaged, or neither of the two.
        ConfigError: the graph has fixed shapes and another size was asked for, or options that mean nothing for it.
        MissingDependency: onnx is not installed.
    """
    options.accept(path.name, "preprocess", "labels")
    model = load_model(path)
    known_size = input_size(path, model, options.size_wh)
    size_wh = known_size or _DETECTOR_SIZE
    model = with_fixed_shapes(path, model, size_wh)
    try:
        shapes = output_shapes(model)
    except Exception as error:  # onnxruntime has an exception class per status code, without a base of their own
        raise UnsupportedSource(
            f"{path} does not run on one picture of {size_wh[0]}x{size_wh[1]}: {first_line(error)}",
            "Export it with a batch of 1, or with open axes.",
        ) from error
    model = in_supported_opset(path, model)
    if len(shapes) == 1 and len(shapes[0]) == 2 and shapes[0][0] == 1:
        return classifier(path, model, known_size, shapes[0][1], options)
    options.accept(f"{path.name}, a detector", "labels")
    return _detector(path, model, size_wh, options)


def _detector(path: Path, model: Any, size_wh: tuple[int, int], options: SourceOptions) -> SourceModel:
    """Cut a YOLOv8 detection ``.onnx`` at its raw head.

    Raises:
        UnsupportedSource: missing, damaged, without a recognisable head, or of another form than float NCHW pixels in.
        ConfigError: the graph has fixed shapes and another size was asked for.
        MissingDependency: onnx is not installed.
    """
    graph = Graph(model)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    task = ultralytics_task(metadata)
    if task not in ("", "detect"):
        raise UnsupportedSource(
            f"{path} is an Ultralytics export for {task}; of .onnx files, detectors and classifiers are read.",
            "Give the .pt that it was exported from.",
        )
    classes = _classes(path, model)
    labels = class_labels(options.labels, labels_from(metadata, classes), path.name)
    for heads in _candidate_heads(path, graph, size_wh, classes):
        found = _source(path, model, heads, size_wh, labels, metadata)
        if _decodes_like_original(found, model):
            return found
    raise _no_head(path, "its outputs do not decode to its prediction")


def _classes(path: Path, model: Any) -> int:
    shapes = output_shapes(model)
    if len(shapes) != 1 or len(shapes[0]) != 3 or shapes[0][0] != 1 or shapes[0][1] <= _BOX_ROWS:
        raise _no_head(path, f"its outputs have the shapes {shapes}, not (1, 4 + classes, N)")
    return shapes[0][1] - _BOX_ROWS


def _candidate_heads(
    path: Path, graph: Graph, size_wh: tuple[int, int], classes: int
) -> list[list[tuple[int, Node, Node]]]:
    """Ways to read the last convolutions as ``(stride, box, class)``: two when boxes and classes have equally many channels."""
    by_stride: dict[int, list[tuple[int, Node]]] = defaultdict(list)
    shapes = image_shapes(graph)
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


def _source(
    path: Path,
    model: Any,
    heads: list[tuple[int, Node, Node]],
    size_wh: tuple[int, int],
    labels: tuple[str, ...],
    metadata: dict[str, str],
) -> SourceModel:
    shapes = image_shapes(Graph(model))
    bins = shapes[heads[0][1].output[0]][1] // _BOX_ROWS
    outputs = raw_head_outputs(size_wh, tuple(stride for stride, _, _ in heads), bins, len(labels))
    tensors = [node.output[0] for _, box, score in heads for node in (box, score)]
    names = {output.name: tensor for output, tensor in zip(outputs, tensors, strict=True)}
    original = in_memory_session(ending_at(model, tensors))
    source_input = Graph(model).input_names()[0]
    preprocess = PreprocessSpec(size_wh=size_wh)

    def reference(feeds: Tensors) -> dict[str, Array]:
        values = original.run(tensors, {source_input: normalised(feeds["image"][0], preprocess)})
        return dict(zip(names, values, strict=True))

    return SourceModel(
        name=path.stem,
        family="yolov8",
        licence=licence_from(metadata),
        origin=origin(path, sha256_of(path)),
        spec=ModelSpec(
            preprocess=preprocess,
            decode=DecodeSpec(task="detect", decoder="yolov8-raw", labels=labels),
        ),
        parts=(
            Part(
                name="main",
                inputs=(image_input(size_wh),),
                outputs=outputs,
                reference=reference,
                graph=_pixel_graph(model, names, preprocess),
            ),
        ),
    )


def _pixel_graph(model: Any, names: dict[str, str], spec: PreprocessSpec) -> Any:
    """The graph from uint8 BGR pixels to the raw head."""
    cut = ending_at(model, list(names.values()))
    rename_outputs(cut, {tensor: name for name, tensor in names.items()})
    return from_pixels(cut, spec)


def _decodes_like_original(source: SourceModel, model: Any) -> bool:
    """Whether the raw outputs, decoded, are the prediction of the original, cell by cell, on a noisy picture."""
    size_wh, part = source.spec.preprocess.size_wh, source.parts[0]
    picture = np.random.default_rng(0).integers(0, 256, (size_wh[1], size_wh[0], 3), np.uint8)
    (prediction,) = in_memory_session(model).run(
        None, {Graph(model).input_names()[0]: normalised(picture, source.spec.preprocess)}
    )
    output = TensorSpec(name="prediction", role="prediction", shape=prediction.shape, dtype="float32")
    wanted = PredictionDecoder(source.spec.decode, (output,)).candidates({"prediction": prediction}, -1.0)
    given = RawHeadDecoder(source.spec.decode, part.outputs).candidates(part.reference({"image": picture[None]}), 0.0)
    if given.xyxy.shape != wanted.xyxy.shape:
        return False
    return bool(
        np.abs(given.xyxy - wanted.xyxy).max() < _BOX_TOLERANCE_PX
        and np.abs(given.confidence - wanted.confidence).max() < _SCORE_TOLERANCE
    )


def _no_head(path: Path, reason: str) -> UnsupportedSource:
    return UnsupportedSource(
        f"{path} has no recognisable YOLOv8 detection head: {reason}.",
        "Export the detector without built-in suppression (nms=False, end2end=False), or give the .pt.",
    )
