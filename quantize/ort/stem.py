"""The first convolution in int8: exact pixels in, several output pixels per row.

Kept float, the first convolution of YOLOv8n costs a sixth of the INT8 model's time: uint8 to float, a convolution over three
channels, back to uint8, two changes of layout. Two things make it int8 at a quarter of that:

* Pixels are integers, so quantizing them with scale 1 and zero point 0 is exact.
* onnxruntime's QLinearConv pays about 40 ns per output pixel, however few channels there are. Four neighbouring output
  pixels become one with four times the channels; the same integers come out (a test compares them).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv.protocols import Array
from edgecv.quantize.ort.graph import Graph, Node, add_constant, attribute, drop_unused_constants, replace_nodes

PIXELS_PER_ROW = (4, 2, 1)  # 4 is fastest for YOLOv8n at 640 (29.6 ms; 2: 30.0, 8: 30.0, 1: 32.8)
_TINY = np.float32(1e-12)  # a row of zeros needs a scale, too


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stem:
    """The nodes from the image to the first convolution, and the ``QuantizeLinear`` after it."""

    transpose: Node
    cast: Node
    convolution: Node
    quantize: Node
    weights: Array  # (out, in, kernel height, kernel width)
    bias: Array  # (out,)
    stride: int
    pads: tuple[int, int, int, int]  # top, left, bottom, right
    size_wh: tuple[int, int]


def find_stem(model: Any) -> Stem | None:
    """The stem of a graph quantized with a float first convolution, or ``None`` when its form is another."""
    graph = Graph(model)
    (image,) = graph.input_names()
    chain: list[Node] = []
    tensor = image
    for op_type in ("Transpose", "Cast", "Conv", "QuantizeLinear"):
        users = graph.users(tensor)
        if len(users) != 1 or users[0].op_type != op_type:
            return None
        chain.append(users[0])
        tensor = users[0].output[0]
    convolution = chain[2]
    weights = graph.constant(convolution.input[1])
    bias = graph.constant(convolution.input[2]) if len(convolution.input) > 2 else None
    strides = attribute(convolution, "strides", [1, 1])
    plain = attribute(convolution, "group", 1) == 1 and set(attribute(convolution, "dilations", [1, 1])) == {1}
    square = strides[0] == strides[1] and attribute(convolution, "auto_pad", b"NOTSET") == b"NOTSET"
    if weights is None or not plain or not square:
        return None
    pads = tuple(attribute(convolution, "pads", [0, 0, 0, 0]))
    shape = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim]
    if not _divides_the_image((shape[2], shape[1]), weights.shape[2:], strides[0], pads):
        return None
    return Stem(
        transpose=chain[0],
        cast=chain[1],
        convolution=convolution,
        quantize=chain[3],
        weights=weights,
        bias=np.zeros(len(weights), np.float32) if bias is None else bias,
        stride=strides[0],
        pads=pads,
        size_wh=(shape[2], shape[1]),
    )


def _divides_the_image(size_wh: tuple[int, int], kernel: tuple[int, ...], stride: int, pads: tuple[int, ...]) -> bool:
    """Whether the output is the input over the stride, exactly: packing splits rows of pixels into equal groups."""
    width, height = size_wh
    wide = (width + pads[1] + pads[3] - kernel[1]) // stride + 1
    high = (height + pads[0] + pads[2] - kernel[0]) // stride + 1
    return (wide * stride, high * stride) == size_wh


def nearest(weights: Array, most: int) -> tuple[Array, Array]:
    """int8 weights ``(out, in, kh, kw)`` at their nearest steps, and the scale ``(out,)``; ``most`` is the largest integer."""
    largest = np.abs(weights).max(axis=(1, 2, 3))
    scale = (np.maximum(largest, _TINY) / np.float32(most)).astype(np.float32)
    return np.rint(weights / scale[:, None, None, None]).astype(np.int8), scale


def pack_stem(model: Any, stem: Stem, most: int = 127) -> None:
    """Replace the float stem by the int8 one, in place; weights lie between ``-most`` and ``most``."""
    helper = require("onnx.helper", "convert")
    width_out = stem.size_wh[0] // stem.stride
    pixels = next((p for p in PIXELS_PER_ROW if stem.size_wh[0] % (stem.stride * p) == 0), 1)
    weights, scale = nearest(stem.weights, most)
    packed, before, after = _pack_weights(weights, stem, pixels)
    channels = weights.shape[1]
    group = stem.stride * pixels
    heights = [stem.size_wh[1], stem.size_wh[1] // stem.stride]
    bias = np.rint(stem.bias / scale).astype(np.int32)
    # The 0 keeps the number of images, whatever it is.
    names = {
        "shape_in": np.array([0, heights[0], stem.size_wh[0] // group, group * channels], np.int64),
        "shape_out": np.array([0, heights[1], width_out, len(weights)], np.int64),
        "pixel_scale": np.float32(1.0),
        "pixel_zero": np.uint8(0),
        "weight": packed,
        "weight_scale": np.tile(scale, pixels),
        "weight_zero": np.zeros(len(packed), np.int8),
        "bias": np.tile(bias, pixels),
        "bias_zero": np.zeros(len(packed), np.int32),
    }
    c = {name: add_constant(model, f"stem/{name}", np.asarray(value)) for name, value in names.items()}
    image, made = stem.transpose.input[0], stem.quantize.output[0]
    node = helper.make_node
    replace_nodes(
        model,
        [stem.transpose, stem.cast, stem.convolution, stem.quantize],
        [
            node("Reshape", [image, c["shape_in"]], ["stem/groups"]),
            node("Transpose", ["stem/groups"], ["stem/planes"], perm=[0, 3, 1, 2]),
            node("DequantizeLinear", ["stem/planes", c["pixel_scale"], c["pixel_zero"]], ["stem/pixels"]),
            node("DequantizeLinear", [c["weight"], c["weight_scale"], c["weight_zero"]], ["stem/w"], axis=0),
            node("DequantizeLinear", [c["bias"], c["weight_scale"], c["bias_zero"]], ["stem/b"], axis=0),
            node(
                "Conv",
                ["stem/pixels", "stem/w", "stem/b"],
                ["stem/sum"],
                name="stem/conv",
                kernel_shape=list(packed.shape[2:]),
                strides=[stem.stride, 1],
                pads=[stem.pads[0], before, stem.pads[2], after],
            ),
            node("QuantizeLinear", ["stem/sum", *stem.quantize.input[1:]], ["stem/quantized"]),
            node("Transpose", ["stem/quantized"], ["stem/rows"], perm=[0, 2, 3, 1]),
            node("Reshape", ["stem/rows", c["shape_out"]], ["stem/split"]),
            node("Transpose", ["stem/split"], [made], perm=[0, 3, 1, 2]),
        ],
    )
    del model.graph.value_info[:]  # shapes of tensors that are gone
    drop_unused_constants(model)


def _pack_weights(weights: Array, stem: Stem, pixels: int) -> tuple[Array, int, int]:
    """Weights for ``pixels`` outputs at once over groups of input pixels, and the groups of padding left and right."""
    outs, channels, height, width = weights.shape
    group = stem.stride * pixels
    offsets = [pixel * stem.stride + tap - stem.pads[1] for pixel in range(pixels) for tap in range(width)]
    first, last = min(offsets) // group, max(offsets) // group
    packed = np.zeros((pixels * outs, group * channels, height, last - first + 1), np.int8)
    for number, offset in enumerate(offsets):
        pixel, tap = divmod(number, width)
        place, within = divmod(offset, group)
        rows = slice(pixel * outs, (pixel + 1) * outs)
        packed[rows, within * channels : (within + 1) * channels, :, place - first] = weights[:, :, :, tap]
    return packed, -first, last
