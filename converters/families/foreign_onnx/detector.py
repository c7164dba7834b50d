"""A YOLOv8 ``.onnx`` that somebody else exported: its raw head is found by the structure of the graph.

From the prediction ``(1, rows, N)`` the walk goes back to the last convolutions that have weights of their own; the one that
only takes the expectation over the box bins (weights 0, 1, 2, ...) does not count. They come in groups per grid: one gives
4 × bins channels, one a score per class, and a third, where the task has one, mask coefficients, keypoints or an angle. Node names
play no part. That the groups are what they seem is then proven: decoding them must give the prediction of the original.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.converters.families.foreign_onnx.graph import (
    answers_to,
    ending_at,
    image_shapes,
    in_memory_session,
    output_shapes,
    rename_outputs,
)
from edgecv.converters.families.foreign_onnx.inputs import from_pixels
from edgecv.converters.families.foreign_onnx.reading import (
    labels_from,
    licence_from,
    metadata_of,
    numbers_in,
    ultralytics_task,
)
from edgecv.converters.families.torch_input import normalised
from edgecv.converters.families.yolov8_tasks import HEADS, Head, detector_outputs
from edgecv.converters.source import Part, SourceModel, SourceOptions, class_labels, image_input, origin
from edgecv.errors import UnsupportedSource
from edgecv.protocols import Array, Tensors
from edgecv.quantize.ort.graph import Graph, Node
from edgecv.specs import DecodeSpec, ModelSpec, PreprocessSpec, TensorSpec
from edgecv.vision.yolov8 import Candidates, PredictionDecoder, RawHeadDecoder
from edgecv.vision.yolov8_tasks import Branch, ObbDecoder, PoseDecoder

_BOX_ROWS = 4
_PIXEL_TOLERANCE = 0.05
_SCORE_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """What the file says of itself: its head, the channels of boxes' companions, and how they are read."""

    head: Head
    classes: int
    branch_channels: int
    decode: DecodeSpec

    @property
    def group(self) -> int:
        """How many convolutions of the head belong to each grid."""
        return 3 if self.head.branch else 2


_Group = tuple[Node, ...]  # box, class and, where there is one, the third


def detector(path: Path, model: Any, size_wh: tuple[int, int], options: SourceOptions) -> SourceModel:
    """Cut a YOLOv8 ``.onnx`` for detection, segmentation, pose or rotated boxes at its raw head.

    What it is for, other than detection, only the metadata of Ultralytics' export can say. Errors are those of ``open_onnx``.
    """
    graph = Graph(model)
    metadata = metadata_of(model)
    form = _form(path, model, metadata, options)
    bins = 0
    for heads in _candidate_heads(path, graph, size_wh, form):
        found = _source(path, model, heads, size_wh, form, metadata)
        if _decodes_like_original(found, model, form):
            return found
        bins = found.parts[0].outputs[0].shape[1] // _BOX_ROWS
    if bins == 1:
        raise UnsupportedSource(
            f"{path} predicts distances without a distribution over bins, as YOLO26 does and YOLOv8 does not.",
            "Give a YOLOv8 or YOLO11 network.",
        )
    raise _no_head(path, "its outputs do not decode to its prediction")


def _form(path: Path, model: Any, metadata: Mapping[str, str], options: SourceOptions) -> _Form:
    task = ultralytics_task(metadata) or "detect"
    head = next((head for head in HEADS.values() if head.task == task and head.task != "classify"), None)
    if head is None:
        raise _no_head(path, f"it was exported for '{task}'")
    shapes = list(output_shapes(model).values())
    rows = shapes[0][1] - _BOX_ROWS if len(shapes[0]) == 3 and shapes[0][0] == 1 else 0
    if len(shapes) != (2 if head.prototypes else 1) or rows < 1:
        raise _no_head(path, f"its outputs have the shapes {shapes}, not (1, 4 + classes, N)")
    keypoint_shape = numbers_in(metadata.get("kpt_shape", "")) if head.branch == "keypoint" else ()
    channels = _branch_channels(head, shapes, keypoint_shape)
    classes = rows - channels
    if classes < 1:
        raise _no_head(path, f"{rows} rows are too few for {channels} of {head.branch} and a class")
    return _Form(
        head=head,
        classes=classes,
        branch_channels=channels,
        decode=DecodeSpec(
            task=head.task,
            decoder=head.decoder,
            labels=class_labels(options.labels, labels_from(metadata, classes), path.name),
            options={"keypoint_shape": list(keypoint_shape)} if keypoint_shape else {},
        ),
    )


def _branch_channels(head: Head, shapes: list[tuple[int, ...]], keypoint_shape: tuple[int, ...]) -> int:
    """Rows of the prediction that belong to the third branch."""
    if head.prototypes:
        return shapes[1][1]
    if head.branch == "keypoint":
        return int(np.prod(keypoint_shape)) if keypoint_shape else 0
    return int(bool(head.branch))


def _candidate_heads(path: Path, graph: Graph, size_wh: tuple[int, int], form: _Form) -> list[dict[int, _Group]]:
    """Ways to read the last convolutions by stride: several where two kinds have equally many channels."""
    by_stride: dict[int, list[Node]] = defaultdict(list)
    shapes = image_shapes(graph)
    for node in _last_convolutions(graph):
        shape = shapes.get(node.output[0])
        if shape is None or size_wh[0] % shape[3]:
            raise _no_head(path, "a last convolution has no shape")
        by_stride[size_wh[0] // shape[3]].append(node)
    if not by_stride or any(len(group) != form.group for group in by_stride.values()):
        kinds = f"boxes, classes and {form.head.branch}" if form.head.branch else "boxes and classes"
        raise _no_head(path, f"its last convolutions do not come in groups of {kinds}")
    found = []
    for order in permutations(range(form.group)):
        heads = {stride: tuple(by_stride[stride][at] for at in order) for stride in sorted(by_stride)}
        if all(_fits([shapes[node.output[0]][1] for node in group], form) for group in heads.values()):
            found.append(heads)
    if not found:
        raise _no_head(path, f"no group of its last convolutions gives boxes and {form.classes} classes")
    return found


def _fits(channels: list[int], form: _Form) -> bool:
    box, *others = channels
    wanted = [form.classes, form.branch_channels][: form.group - 1]
    return box % _BOX_ROWS == 0 and others == wanted


def _last_convolutions(graph: Graph) -> list[Node]:
    """The last convolutions with weights of their own on every way back from the prediction, in graph order."""
    found: list[Node] = []
    seen: set[str] = set()
    tensors = graph.output_names()[:1]
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
    heads: Mapping[int, _Group],
    size_wh: tuple[int, int],
    form: _Form,
    metadata: Mapping[str, str],
) -> SourceModel:
    graph = Graph(model)
    first = next(iter(heads.values()))
    bins = image_shapes(graph)[first[0].output[0]][1] // _BOX_ROWS
    outputs = detector_outputs(form.head, size_wh, tuple(heads), bins, form.classes, form.branch_channels)
    pairs = [node.output[0] for group in heads.values() for node in group[:2]]
    thirds = [group[2].output[0] for group in heads.values()] if form.head.branch else []
    tensors = [*pairs, *thirds, *(graph.output_names()[1:] if form.head.prototypes else [])]
    names = {output.name: tensor for output, tensor in zip(outputs, tensors, strict=True)}
    original = in_memory_session(ending_at(model, tensors))
    source_input = graph.input_names()[0]
    preprocess = PreprocessSpec(size_wh=size_wh)

    def reference(feeds: Tensors) -> dict[str, Array]:
        values = original.run(tensors, {source_input: normalised(feeds["image"][0], preprocess)})
        return dict(zip(names, values, strict=True))

    cut = ending_at(model, tensors)
    rename_outputs(cut, {tensor: name for name, tensor in names.items()})
    part = Part(
        inputs=(image_input(size_wh),), outputs=outputs, reference=reference, graph=from_pixels(cut, preprocess)
    )
    return SourceModel(
        name=path.stem,
        family="yolov8",
        licence=licence_from(metadata),
        origin=origin(path),
        spec=ModelSpec(preprocess=preprocess, decode=form.decode),
        parts=(part,),
    )


def _decodes_like_original(source: SourceModel, model: Any, form: _Form) -> bool:
    """Whether the raw outputs, decoded, are the prediction of the original, cell by cell, on a noisy image."""
    size_wh = source.spec.preprocess.size_wh
    image = np.random.default_rng(0).integers(0, 256, (size_wh[1], size_wh[0], 3), np.uint8)
    prediction = answers_to(model, normalised(image, source.spec.preprocess))[0]
    raw, specs = source.parts[0].reference({"image": image[None]}), source.parts[0].outputs
    pairs = tuple(spec for spec in specs if spec.role.startswith(("box/", "class/")))
    plain = prediction[:, : _BOX_ROWS + form.classes]
    if not 0 <= plain[:, _BOX_ROWS:].min() <= plain[:, _BOX_ROWS:].max() <= 1:
        return False
    output = TensorSpec(name="prediction", role="prediction", shape=plain.shape, dtype="float32")
    wanted = PredictionDecoder(form.decode, (output,)).candidates({"prediction": plain}, -1.0)
    given = RawHeadDecoder(form.decode, pairs).candidates(raw, 0.0)
    if given.xyxy.shape != wanted.xyxy.shape:
        return False
    boxes = given.xyxy
    if form.head.task == "obb":
        rotated = ObbDecoder(form.decode, specs).rotated(given, raw)
        boxes = np.concatenate([rotated[:, :2] - rotated[:, 2:4] / 2, rotated[:, :2] + rotated[:, 2:4] / 2], axis=1)
    return bool(
        np.abs(boxes - wanted.xyxy).max() < _PIXEL_TOLERANCE
        and np.abs(given.confidence - wanted.confidence).max() < _SCORE_TOLERANCE
        and _thirds_match(prediction[0, _BOX_ROWS + form.classes :].T, raw, specs, given, form)
    )


def _thirds_match(wanted: Array, raw: Tensors, specs: tuple[TensorSpec, ...], cells: Candidates, form: _Form) -> bool:
    """Whether the rows ``(N, channels)`` of the prediction beyond boxes and scores come out, too."""
    if not form.head.branch:
        return True
    if form.head.branch == "keypoint":
        points = PoseDecoder(form.decode, specs).keypoints(raw, cells.cells)
        given = points[..., : form.decode.options["keypoint_shape"][1]].reshape(len(wanted), -1)
    elif form.head.branch == "angle":
        given = ObbDecoder(form.decode, specs).rotated(cells, raw)[:, 4:]
    else:
        strides = tuple(sorted(int(spec.role.partition("/")[2]) for spec in specs if spec.role.startswith("box/")))
        given = Branch(form.head.branch, strides, specs).at(raw, cells.cells).T
    return bool(np.abs(given - wanted).max() < _PIXEL_TOLERANCE)


def _no_head(path: Path, reason: str) -> UnsupportedSource:
    return UnsupportedSource(
        f"{path} has no recognisable YOLOv8 detection head: {reason}.",
        "Export the detector without built-in suppression (nms=False, end2end=False), or give the .pt.",
    )
