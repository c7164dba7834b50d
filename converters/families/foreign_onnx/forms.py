"""Foreign ``.onnx`` files in their many forms, brought to the one that the rest reads: float32, ``(N, 3, H, W)``, one output.

What can be changed without a change of its answers is changed: nodes in another order, fp16, NHWC, uint8 and grey inputs, axes of
length one at the end. What cannot is refused with what was found and a way out.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv.errors import UnsupportedSource
from edgecv.protocols import Array
from edgecv.quantize.ort.graph import Graph, Node, add_constant, attribute, drop_unused_constants

# ITU-R BT.601, as Pillow ("L"), OpenCV and torchvision's Grayscale weigh red, green and blue.
GREY = (0.299, 0.587, 0.114)
_COPYING = ("Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Cast", "Dropout")
_CHOOSING = ("ArgMax", "TopK", "ReduceMax")  # what classifiers end in that give the best class instead of all scores
_SUPPRESSION = ("NonMaxSuppression", "EfficientNMS_TRT", "BatchedNMS_TRT", "BatchedNMSDynamic_TRT", "TRTBatchedNMS")
_TYPES = MappingProxyType({"float": "float32", "double": "float64"})  # where ONNX has another word than NumPy
_HEAD_ROWS = 6  # x1, y1, x2, y2, score, class: what a detector gives that suppresses by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What a file's own input was.

    Attributes:
        pixels: Whether it takes pixels of 0 to 255 (it is uint8), which the network normalises itself.
        grey: Whether it has one channel.
        last: Whether its channels come last.
    """

    pixels: bool = False
    grey: bool = False
    last: bool = False


def sorted_nodes(model: Any) -> Any:
    """The model with every node behind those that it takes from, in place; as it is where that is impossible.

    ONNX wants it so, and some programs do not keep to it: onnxruntime's fp16 converter puts its casts at the end.
    """
    _sort(model.graph)
    return model


def _sort(graph: Any) -> None:
    nodes = list(graph.node)
    made = {name: number for number, node in enumerate(nodes) for name in node.output if name}
    needs = [{made[name] for name in _taken(node) if name in made} - {number} for number, node in enumerate(nodes)]
    for node in nodes:
        for body in _bodies(node):
            _sort(body)
    if all(before < number for number, these in enumerate(needs) for before in these):
        return
    order: list[int] = []
    done: set[int] = set()
    waiting = list(range(len(nodes)))[::-1]
    opened: set[int] = set()
    while waiting:
        number = waiting[-1]
        missing = [before for before in sorted(needs[number], reverse=True) if before not in done]
        if number in done or not missing:
            waiting.pop()
            if number not in done:
                done.add(number)
                order.append(number)
        elif number in opened:
            return  # a circle; the checker says so
        else:
            opened.add(number)
            waiting.extend(missing)
    ordered = [copy.deepcopy(nodes[number]) for number in order]
    del graph.node[:]
    graph.node.extend(ordered)


def _bodies(node: Any) -> Iterator[Any]:
    for item in node.attribute:
        if item.HasField("g"):
            yield item.g
        yield from item.graphs


def _taken(node: Any) -> Iterator[str]:
    """What a node takes, and what the graphs inside it take from outside."""
    yield from node.input
    for body in _bodies(node):
        own = {name for inner in body.node for name in inner.output} | {value.name for value in body.input}
        yield from (name for inner in body.node for name in _taken(inner) if name not in own)
        yield from (value.name for value in body.output if value.name not in own)


def check_is_float(path: Path, model: Any) -> None:
    """Raise ``UnsupportedSource`` for a network that is already quantized: there is no float model to hold INT8 against."""
    counts: dict[str, int] = {}
    for node in model.graph.node:
        if _is_integer(node.op_type):
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
    if counts:
        listed = ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1])[:3])
        raise UnsupportedSource(
            f"{path} is already quantized ({listed}): INT8 is made from a float model, and held against it.",
            f"Give the float model it was made from: edgecv convert FLOAT.onnx --int8 --calib IMAGES. To run {path.name} as it is: "
            "edgecv.load(FILE, spec=edgecv.ModelSpec(...)).",
        )


def _is_integer(op_type: str) -> bool:
    return op_type in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger") or (
        op_type.startswith(("QLinear", "MatMulInteger", "QAttention", "QGemm", "DynamicQuantize", "MatMulNBits"))
    )


def in_float32(model: Any) -> Any:
    """A model of half precision with the same weights in float32, in place: it computes the same, with less rounding."""
    onnx = require("onnx", "convert")
    halves = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    _widen(model.graph, halves, onnx)
    return model


def _widen(graph: Any, halves: tuple[int, ...], onnx: Any) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor, halves, onnx)
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type
        if kind.elem_type in halves:
            kind.elem_type = onnx.TensorProto.FLOAT
    for node in graph.node:
        for item in node.attribute:
            if item.name in ("to", "dtype") and item.i in halves:
                item.i = onnx.TensorProto.FLOAT
            if item.HasField("t"):
                _widen_tensor(item.t, halves, onnx)
            for tensor in item.tensors:
                _widen_tensor(tensor, halves, onnx)
        for body in _bodies(node):
            _widen(body, halves, onnx)


def _widen_tensor(tensor: Any, halves: tuple[int, ...], onnx: Any) -> None:
    if tensor.data_type in halves:
        value = np.asarray(onnx.numpy_helper.to_array(tensor)).astype(np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))


def with_planes(path: Path, model: Any) -> tuple[Any, Input]:
    """The model with one float32 ``(N, 3, H, W)`` input, and which of the usual forms its own has.

    Raises:
        UnsupportedSource: it has several inputs, or one that is no image.
    """
    onnx = require("onnx", "convert")
    names = Graph(model).input_names()
    values = [value for value in model.graph.input if value.name in names]
    shape = _shape(values[0]) if len(values) == 1 else ()
    kind = values[0].type.tensor_type.elem_type if len(values) == 1 else 0
    last = len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3)
    channels = shape[3 if last else 1] if len(shape) == 4 else -1
    if channels not in (0, 1, 3) or kind not in (onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8):
        raise UnsupportedSource(
            f"{path} does not take one image: its {_counted('input', values)} {_described(values)}. "
            "EdgeCV reads one float32 or uint8 input of (1, 3, H, W) or (1, H, W, 3), or with one grey channel.",
            _way_out_of_input(shape, len(values)),
        )
    changed = copy.deepcopy(model)
    value = next(value for value in changed.graph.input if value.name == names[0])
    pixels = kind == onnx.TensorProto.UINT8
    if pixels:
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        del changed.graph.value_info[:]
    if last:
        _put_before(changed, value, "planes", "Transpose", perm=[0, 2, 3, 1])
        axes = [copy.deepcopy(value.type.tensor_type.shape.dim[at]) for at in (0, 3, 1, 2)]
        del value.type.tensor_type.shape.dim[:]
        value.type.tensor_type.shape.dim.extend(axes)
        _cancel_transposes(changed)
    if channels == 1:
        weights = np.array(GREY, np.float32).reshape(1, 3, 1, 1)
        _put_before(changed, value, "grey", "Conv", weights)
        value.type.tensor_type.shape.dim[1].dim_value = 3
    return changed, Input(pixels=pixels, grey=channels == 1, last=last)


def _put_before(
    model: Any, value: Any, name: str, op_type: str, weights: Array | None = None, **attributes: Any
) -> None:
    """Put a node between the input and all that takes it, in place."""
    helper = require("onnx.helper", "convert")
    after = f"form/{name}"
    for node in model.graph.node:
        node.input[:] = [after if tensor == value.name else tensor for tensor in node.input]
    inputs = [value.name]
    if weights is not None:
        inputs.append(add_constant(model, f"form/{name}_weights", weights))
    model.graph.node.insert(0, helper.make_node(op_type, inputs, [after], name=after, **attributes))


def _cancel_transposes(model: Any) -> None:
    """Leave out the first transpose where the next one takes it back, as in what tf2onnx writes, in place."""
    graph = Graph(model)
    first = model.graph.node[0]
    users = graph.users(first.output[0])
    if not users or any(user.op_type != "Transpose" or list(attribute(user, "perm")) != [0, 3, 1, 2] for user in users):
        return
    outputs = set(graph.output_names())
    if any(user.output[0] in outputs for user in users):
        return
    gone = {user.output[0]: first.input[0] for user in users}
    kept = [node for node in model.graph.node if node is not first and not any(node is user for user in users)]
    for node in kept:
        node.input[:] = [gone.get(name, name) for name in node.input]
    kept = [copy.deepcopy(node) for node in kept]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(size.dim_value for size in value.type.tensor_type.shape.dim)


def _counted(what: str, values: list[Any]) -> str:
    return f"{what} is" if len(values) == 1 else f"{what}s are"


def _described(values: list[Any]) -> str:
    """Names, types and shapes, for a message."""
    types = require("onnx", "convert").TensorProto.DataType
    told = []
    for value in values:
        tensor = value.type.tensor_type
        shape = ", ".join(str(size.dim_value or size.dim_param or "?") for size in tensor.shape.dim)
        kind = types.Name(tensor.elem_type).lower()
        told.append(f"'{value.name}' {_TYPES.get(kind, kind)} ({shape})")
    return "; ".join(told) or "none"


def _way_out_of_input(shape: tuple[int, ...], count: int) -> str:
    if count != 1:
        return "Export the part that takes the image alone; what else it takes (sizes, masks) as constants."
    if len(shape) == 3:
        return "Export it with an axis for the images of a batch: (1, 3, H, W)."
    if len(shape) == 4 and {shape[1], shape[3]} & {2, 4}:
        return "Images of 2 or 4 channels cannot come from a camera here: give a model of 3 channels or of one."
    if len(shape) == 5:
        return "Clips of several frames are not read: give a model that sees one image."
    return "Export it in float32 with one image input: (1, 3, H, W)."


def one_row(path: Path, model: Any, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Make ``(1, classes)`` of a classifier's output, in place: squeeze axes of length one, take the scores before an ArgMax.

    Args:
        path: For messages.
        model: Of fixed shapes for one image.
        shapes: Of its outputs as they come out.

    Returns:
        Whether the outputs are others now.

    Raises:
        UnsupportedSource: it gives whole numbers alone.
    """
    onnx = require("onnx", "convert")
    outputs = list(model.graph.output)
    floats = [value for value in outputs if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    chosen = len(outputs) > 1 and len(floats) == 1 and _is_row(shapes[floats[0].name])
    if chosen:  # beside the scores stands the number of the best class
        outputs = _only(model, floats[0])
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


def _only(model: Any, output: Any) -> list[Any]:
    kept = copy.deepcopy(output)
    del model.graph.output[:]
    model.graph.output.append(kept)
    _drop_unneeded(model)
    return [model.graph.output[0]]


def _flatten(model: Any, output: Any, shape: tuple[int, ...]) -> None:
    onnx, helper = require("onnx", "convert"), require("onnx.helper", "convert")
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
    return next((_shape(value) for value in model.graph.value_info if value.name == tensor), ())


def _take_off_argmax(path: Path, model: Any) -> None:
    """Make the scores that an ArgMax at the end takes the output, in place.

    Raises:
        UnsupportedSource: the output is of whole numbers for another reason.
    """
    onnx = require("onnx", "convert")
    output = model.graph.output[0]
    node = last_node(Graph(model))
    if node is None or node.op_type not in _CHOOSING:
        raise UnsupportedSource(
            f"{path} gives no scores: its output is {_described([output])}.", "Export it with one score per class."
        )
    shape = _shape_of(model, node.input[0])
    if not _is_row(shape) or not shape:
        raise UnsupportedSource(
            f"{path} ends in {node.op_type}: its output {_described([output])} is the number of the best class per place, of "
            f"scores of the shape {shape or '?'}.",
            "EdgeCV reads classifiers and detectors; segmentation by class is not read.",
        )
    output.CopyFrom(onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, shape))
    _drop_unneeded(model)
    if len(shape) != 2:
        _flatten(model, output, shape)


def last_node(graph: Graph) -> Node | None:
    """The node that makes the only output, past operators that only copy."""
    (output,) = graph.output_names()
    node = graph.maker(output)
    while node is not None and node.op_type in _COPYING:
        node = graph.maker(node.input[0])
    return node


def _drop_unneeded(model: Any) -> None:
    """Remove the nodes that no output needs, in place."""
    graph = Graph(model)
    needed: set[str] = set()
    waiting = graph.output_names()
    while waiting:
        name = waiting.pop()
        node = graph.maker(name)
        if node is not None and name not in needed:
            needed |= set(node.output)
            waiting.extend(_taken(node))
    kept = [copy.deepcopy(node) for node in graph.nodes if needed & set(node.output)]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    drop_unused_constants(model)


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
    found = next((words for test, words in _KNOWN if test(list(shapes.values()))), None)
    if found is not None:
        raise UnsupportedSource(f"{path} {found[0]} (its outputs: {listed}).", found[1])


def _ends_in_rows_of_boxes(shapes: list[tuple[int, ...]]) -> bool:
    return len(shapes) == 1 and len(shapes[0]) == 3 and shapes[0][2] == _HEAD_ROWS and shapes[0][1] > _HEAD_ROWS


def _ends_in_objectness(shapes: list[tuple[int, ...]]) -> bool:
    """``(1, N, 5 + classes)``, N the cells of three grids: many more than there are rows of a prediction."""
    return len(shapes[0]) == 3 and shapes[0][1] > 16 * shapes[0][2] > 16 * _HEAD_ROWS


def _is_a_map(shapes: list[tuple[int, ...]]) -> bool:
    return len(shapes) == 1 and len(shapes[0]) == 4 and min(shapes[0][2:]) > 1


def _are_rows(shapes: list[tuple[int, ...]]) -> bool:
    return len(shapes) > 1 and all(_is_row(shape) for shape in shapes)


_KNOWN: tuple[tuple[Any, tuple[str, str]], ...] = (
    (
        _ends_in_rows_of_boxes,
        (
            "gives finished boxes of x, y, x, y, score and class: an end-to-end detector (YOLOv10, YOLO26 or end2end=True)",
            "Give a YOLOv8 or YOLO11 detector, exported with nms=False and end2end=False, or its .pt.",
        ),
    ),
    (
        _ends_in_objectness,
        (
            "gives rows of box, objectness and classes, as YOLOv5, YOLOv7 and YOLOX do",
            "Give a YOLOv8 or YOLO11 detector; Ultralytics' yolov5nu.pt and its relatives have YOLOv8's head.",
        ),
    ),
    (
        _are_rows,
        (
            "gives several rows of numbers, and does not say which of them are the scores of the classes",
            "Export it with the scores alone, or cut it: onnx.utils.extract_model(FILE, NEW_FILE, [INPUT], [SCORES]).",
        ),
    ),
    (
        _is_a_map,
        (
            "gives a map over the image, as networks for segmentation by class or depth do",
            "EdgeCV reads classifiers (1, classes) and YOLOv8's and YOLO11's detectors.",
        ),
    ),
)
