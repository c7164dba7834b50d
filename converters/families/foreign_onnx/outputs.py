"""Outputs of foreign ``.onnx`` files in their many forms: a classifier's becomes one row of scores, what is not read is named."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv.converters.families.foreign_onnx.graph import answers_to_noise, end_in, last_node, shape_of, take_instead
from edgecv.converters.families.foreign_onnx.inputs import described
from edgecv.errors import UnsupportedSource
from edgecv.protocols import Array
from edgecv.quantize.ort.graph import Graph, add_constant

_CHOOSING = ("ArgMax", "TopK", "ReduceMax")  # what classifiers end in that give the best class instead of all scores
_SUPPRESSION = ("NonMaxSuppression", "EfficientNMS_TRT", "BatchedNMS_TRT", "BatchedNMSDynamic_TRT", "TRTBatchedNMS")
_HEAD_ROWS = 6  # x1, y1, x2, y2, score, class: what a detector gives that suppresses by itself
# Operators of quantized networks begin with one of these.
_INTEGER_OPERATORS = (
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantize",
    "ConvInteger",
    "QLinear",
    "MatMulInteger",
    "QAttention",
    "QGemm",
    "MatMulNBits",
)
_SUM_TOLERANCE = 1e-3  # of a thousand probabilities that were computed in fp16
# Ends that may make confidences out of scores, or be part of something else.
_BOUNDED = ("HardSigmoid", "Clip", "Div", "Mul", "Reciprocal", "Tanh", "Exp", "Max", "Min", "Where")
# All that came out lies within 0 and 1, and what made it does not say whether that is so for every image.
UNSURE = "unsure"


def check_is_float(path: Path, model: Any) -> None:
    """Raise ``UnsupportedSource`` for a network that is already quantized: there is no float model to hold INT8 against."""
    counts = Counter(node.op_type for node in model.graph.node if node.op_type.startswith(_INTEGER_OPERATORS))
    if counts:
        listed = ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1])[:3])
        raise UnsupportedSource(
            f"{path} is already quantized ({listed}): INT8 is made from a float model, and held against it.",
            f"Give the float model it was made from: edgecv convert FLOAT.onnx --int8 --calib IMAGES. To run {path.name} as it is: "
            "edgecv.load(FILE, spec=edgecv.ModelSpec(...)).",
        )


def one_row(path: Path, model: Any, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Make ``(1, classes)`` of a classifier's output, in place: squeeze axes of length one, take the scores before an ArgMax.

    ``shapes`` are those of its outputs as they come out. Whole numbers alone are an ``UnsupportedSource``.

    Returns:
        Whether the outputs are others now.
    """
    onnx = require("onnx", "convert")
    outputs = list(model.graph.output)
    floats = [value for value in outputs if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    chosen = len(outputs) > 1 and len(floats) == 1 and _is_row(shapes[floats[0].name])
    if chosen:  # beside the scores stands the number of the best class
        end_in(model, floats)
        outputs = list(model.graph.output)
    if len(outputs) != 1:
        return False
    (output,) = outputs
    if not floats or _chooses(model):
        _take_off_argmax(path, model)
        return True
    shape = shapes[output.name]
    if _is_row(shape) and (len(shape), shape[:1]) != (2, (1,)):
        _flatten(model, output, shape)
        return True
    return chosen


def _is_row(shape: tuple[int, ...]) -> bool:
    """Whether a shape is ``(1, C)`` but for axes of length one, or ``(C,)``."""
    return sum(size != 1 for size in shape) <= 1 and (len(shape) == 1 or shape[0] == 1)


def _flatten(model: Any, output: Any, shape: tuple[int, ...]) -> None:
    onnx = require("onnx", "convert")
    helper = onnx.helper
    before, after = output.name, f"{output.name}/row"
    if len(shape) == 1:
        inputs = [before, add_constant(model, f"{after}_axes", np.array([0], np.int64))]
        node = helper.make_node("Unsqueeze", inputs, [after], name=after)
    else:
        node = helper.make_node("Flatten", [before], [after], name=after, axis=1)
    model.graph.node.append(node)
    output.CopyFrom(helper.make_tensor_value_info(after, onnx.TensorProto.FLOAT, (1, int(np.prod(shape)))))


def _chooses(model: Any) -> bool:
    """Whether the output is the best few scores of a row, without their classes."""
    node = last_node(Graph(model))
    if node is None or node.op_type not in _CHOOSING:
        return False
    shape = _shape_of(model, node.input[0])
    return len(shape) > 1 and _is_row(shape)


def _shape_of(model: Any, tensor: str) -> tuple[int, ...]:
    return next((shape_of(value) for value in model.graph.value_info if value.name == tensor), ())


def _take_off_argmax(path: Path, model: Any) -> None:
    """Make the scores that an ArgMax at the end takes the output, in place."""
    onnx = require("onnx", "convert")
    output = model.graph.output[0]
    node = last_node(Graph(model))
    if node is None or node.op_type not in _CHOOSING:
        raise UnsupportedSource(
            f"{path} gives no scores: its output is {described([output])}.", "Export it with one score per class."
        )
    shape = _shape_of(model, node.input[0])
    if not _is_row(shape) or not shape:
        raise UnsupportedSource(
            f"{path} ends in {node.op_type}: its output {described([output])} is the number of the best class per place, of "
            f"scores of the shape {shape or '?'}.",
            "EdgeCV reads classifiers and detectors; segmentation by class is not read.",
        )
    output.CopyFrom(onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, shape))
    end_in(model, [output])
    if len(shape) != 2:
        _flatten(model, model.graph.output[0], shape)


def check_is_read(path: Path, model: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ``UnsupportedSource`` for outputs that are known to be of another kind than those which EdgeCV reads, and say which."""
    suppressing = next((node.op_type for node in model.graph.node if node.op_type in _SUPPRESSION), "")
    listed = ", ".join(f"'{name}' {shape}" for name, shape in shapes.items())
    if suppressing:
        raise UnsupportedSource(
            f"{path} suppresses boxes by itself ({suppressing} in the graph; its outputs: {listed}), which INT8 cannot hold and "
            "EdgeCV does after the model.",
            "Export the detector without it: nms=False in Ultralytics' export, or give the .pt.",
        )
    for looks_so, what, way_out in _KNOWN:
        if looks_so(list(shapes.values())):
            raise UnsupportedSource(f"{path} {what} (its outputs: {listed}).", way_out)


def _ends_in_rows_of_boxes(shapes: list[tuple[int, ...]]) -> bool:
    return len(shapes) == 1 and len(shapes[0]) == 3 and shapes[0][2] == _HEAD_ROWS and shapes[0][1] > _HEAD_ROWS


def _ends_in_objectness(shapes: list[tuple[int, ...]]) -> bool:
    """``(1, N, 5 + classes)``, N the cells of three grids: many more than there are rows of a prediction."""
    return len(shapes[0]) == 3 and shapes[0][1] > 16 * shapes[0][2] > 16 * _HEAD_ROWS


def _is_a_map(shapes: list[tuple[int, ...]]) -> bool:
    return len(shapes) == 1 and len(shapes[0]) == 4 and min(shapes[0][2:]) > 1


def _are_rows(shapes: list[tuple[int, ...]]) -> bool:
    return len(shapes) > 1 and all(_is_row(shape) for shape in shapes)


# What outputs of known kinds look like, what such a network is, and the way out.
_KNOWN: tuple[tuple[Callable[[list[tuple[int, ...]]], bool], str, str], ...] = (
    (
        _ends_in_rows_of_boxes,
        "gives finished boxes of x, y, x, y, score and class: an end-to-end detector (YOLOv10, YOLO26 or end2end=True)",
        "Give a YOLOv8 or YOLO11 detector, exported with nms=False and end2end=False, or its .pt.",
    ),
    (
        _ends_in_objectness,
        "gives rows of box, objectness and classes, as YOLOv5, YOLOv7 and YOLOX do",
        "Give a YOLOv8 or YOLO11 detector; Ultralytics' yolov5nu.pt and its relatives have YOLOv8's head.",
    ),
    (
        _are_rows,
        "gives several rows of numbers, and does not say which of them are the scores of the classes",
        "Export it with the scores alone, or cut it: onnx.utils.extract_model(FILE, NEW_FILE, [INPUT], [SCORES]).",
    ),
    (
        _is_a_map,
        "gives a map over the image, as networks for segmentation by class or depth do",
        "EdgeCV reads classifiers (1, classes) and YOLOv8's and YOLO11's detectors.",
    ),
)


def without_activation(model: Any) -> tuple[Any, str]:
    """A classifier ``(1, classes)`` without the softmax or sigmoid at its end, and what ``LogitsDecoder`` shall do instead.

    Decoders take logits: a second softmax would make every confidence of a thousand classes about a thousandth. Whether an
    activation was found is proven: applied to what comes out, it must give what came out before.

    Returns:
        The graph and ``softmax`` or ``sigmoid``; ``none`` where confidences come out and what makes them cannot be taken off;
        ``unsure`` where they may be; nothing where the file ends in plain scores.
    """
    (scores,) = answers_to_noise(model)
    if not np.isfinite(scores).all():
        raise UnsupportedSource(
            "The classifier gives no numbers (NaN or infinity) for an image.",
            "Its weights are damaged: export it again.",
        )
    end = last_node(Graph(model))
    kind = end.op_type if end is not None else ""
    if kind in _ACTIVATIONS:
        cut = _bypassed(model)
        (logits,) = answers_to_noise(cut)
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
    take_instead(graph.users(after), {after: before})
    return cut
