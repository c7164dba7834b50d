"""Inputs of foreign ``.onnx`` files in their many forms: brought to float32 ``(N, 3, H, W)``, and from there to uint8 pixels.

What can be changed without a change of its answers is changed: fp16, NHWC, uint8 and grey inputs. What cannot is refused with what
was found and a way out.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv.bundles.golden import cosine
from edgecv.converters.families.foreign_onnx.graph import (
    SAME,
    answers_to,
    bodies,
    image_input_of,
    input_shape,
    rename_outputs,
    set_nodes,
    shape_of,
    take_instead,
)
from edgecv.converters.families.torch_input import pixel_scale
from edgecv.converters.source import image_input
from edgecv.errors import UnsupportedSource
from edgecv.protocols import Array
from edgecv.quantize.ort.graph import Graph, Node, add_constant, attribute, drop_unused_constants, replace_nodes
from edgecv.specs import PreprocessSpec

# ITU-R BT.601, as Pillow ("L"), OpenCV and torchvision's Grayscale weigh red, green and blue.
GREY = (0.299, 0.587, 0.114)
_TYPES = MappingProxyType({"float": "float32", "double": "float64"})  # where ONNX has another word than NumPy


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What a file's own input was."""

    pixels: bool = False  # it takes pixels of 0 to 255 (it is uint8), which the network normalises itself
    grey: bool = False  # it has one channel
    last: bool = False  # its channels come last


def in_float32(model: Any) -> Any:
    """A model of half precision with the same weights in float32, in place: it computes the same, with less rounding."""
    _widen(model.graph, require("onnx", "convert"))
    return model


def _widen(graph: Any, onnx: Any) -> None:
    kinds = onnx.TensorProto
    halves = (kinds.FLOAT16, kinds.BFLOAT16)
    tensors = list(graph.initializer)
    for item in (item for node in graph.node for item in node.attribute):
        if item.name in ("to", "dtype") and item.i in halves:
            item.i = kinds.FLOAT
        tensors += [*([item.t] if item.HasField("t") else []), *item.tensors]
    for tensor in tensors:
        if tensor.data_type in halves:
            value = np.asarray(onnx.numpy_helper.to_array(tensor)).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in halves:
            value.type.tensor_type.elem_type = kinds.FLOAT
    for body in (body for node in graph.node for body in bodies(node)):
        _widen(body, onnx)


def with_planes(path: Path, model: Any) -> tuple[Any, Input]:
    """The model with one float32 ``(N, 3, H, W)`` input, and which of the usual forms its own has.

    Several inputs, and one that is no image, are an ``UnsupportedSource``.
    """
    onnx = require("onnx", "convert")
    names = Graph(model).input_names()
    values = [value for value in model.graph.input if value.name in names]
    shape = shape_of(values[0]) if len(values) == 1 else ()
    kind = values[0].type.tensor_type.elem_type if len(values) == 1 else 0
    last = len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3)
    channels = shape[3 if last else 1] if len(shape) == 4 else -1
    if channels not in (0, 1, 3) or kind not in (onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8):
        raise UnsupportedSource(
            f"{path} does not take one image: its input{' is' if len(values) == 1 else 's are'} {described(values)}. "
            "EdgeCV reads one float32 or uint8 input of (1, 3, H, W) or (1, H, W, 3), or with one grey channel.",
            _way_out_of_input(shape, len(values)),
        )
    changed = copy.deepcopy(model)
    value = image_input_of(changed)
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
    take_instead(model.graph.node, {value.name: after})
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
    kept = [node for node in model.graph.node if not any(node is gone for gone in (first, *users))]
    take_instead(kept, {user.output[0]: first.input[0] for user in users})
    set_nodes(model.graph, kept)


def described(values: list[Any]) -> str:
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


def from_pixels(model: Any, spec: PreprocessSpec) -> Any:
    """The graph with a uint8 BGR ``(1, H, W, 3)`` input, in place: colour order and normalisation become part of it.

    Where the model begins with a convolution over plain pixels over 255, its first weights carry all of it. Else nodes before it
    normalise, and put the colours in order.
    """
    onnx = require("onnx", "convert")
    helper = onnx.helper
    image = image_input(spec.size_wh)
    rename_outputs(model, {Graph(model).input_names()[0]: "stem/planar", image.name: f"{image.name}/inner"})
    graph = Graph(model)
    users = graph.users(graph.input_names()[0])
    weights = graph.constant(users[0].input[1]) if len(users) == 1 and users[0].op_type == "Conv" else None
    factor, shift = pixel_scale(spec)
    flip = spec.color == "rgb"
    convolution = None
    if weights is not None and weights.shape[1] == 3:
        convolution = copy.deepcopy(users[0])
        weights = weights[:, ::-1] if flip else weights
        flip = False
        if not shift.any():
            weights, factor = weights * factor.reshape(1, 3, 1, 1), np.ones_like(factor)
        convolution.input[1] = add_constant(model, "stem/pixel_weights", weights.astype(np.float32))
    nodes: list[Node] = []

    def then(op_type: str, name: str, *constants: Array, **attributes: Any) -> None:
        taken = nodes[-1].output[0] if nodes else image.name
        given = [add_constant(model, f"stem/{name}_constant", value) for value in constants]
        nodes.append(helper.make_node(op_type, [taken, *given], [f"stem/{name}"], name=f"stem/{name}", **attributes))

    if flip:
        then("Gather", "colours", np.array([2, 1, 0], np.int64), axis=3)
    then("Transpose", "planes", perm=[0, 3, 1, 2])
    then("Cast", "floats", to=onnx.TensorProto.FLOAT)
    if shift.any() or (factor != 1).any():
        factor, shift = (factor[::-1], shift[::-1]) if flip else (factor, shift)
        then("Mul", "scaled", factor.reshape(1, 3, 1, 1))
        then("Add", "normalised", shift.reshape(1, 3, 1, 1))
    if convolution is not None:
        convolution.input[0] = nodes[-1].output[0]
        replace_nodes(model, [users[0]], [*nodes, convolution])
    else:
        nodes[-1].output[0] = graph.input_names()[0]  # what was the network's own input
        set_nodes(model.graph, [*nodes, *model.graph.node])
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info(image.name, onnx.TensorProto.UINT8, image.shape))
    drop_unused_constants(model)
    return model


def prove_pixels(path: Path, original: Any, made: Any, given: Input) -> None:
    """Raise ``UnsupportedSource`` unless a graph over float pixels gives what the original gives over uint8 ones."""
    shape = input_shape(made)
    image = np.random.default_rng(0).integers(0, 256, (1, 1 if given.grey else 3, *shape[2:]), np.uint8)
    fed = np.ascontiguousarray(image.transpose(0, 2, 3, 1)) if given.last else image
    planes = np.repeat(image, 3, axis=1) if given.grey else image
    pairs = zip(answers_to(original, fed), answers_to(made, planes.astype(np.float32)), strict=True)
    if not all(wanted.shape == found.shape and cosine(wanted, found) > SAME for wanted, found in pairs):
        raise UnsupportedSource(
            f"{path} takes uint8 pixels and computes with them as whole numbers before they become floats.",
            "Export it with a float32 input (1, 3, H, W).",
        )
