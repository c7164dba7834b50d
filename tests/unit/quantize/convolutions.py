"""Small convolution graphs over pixels, as the converters make them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SCALE, ZERO = np.float32(0.37), np.uint8(31)


def out_size(size: int, kernel: int, stride: int, before: int, after: int) -> int:
    return (size + before + after - kernel) // stride + 1


def quantized_stem(size_wh, kernel: int, stride: int, pads, outs: int = 5, *, bias: bool = True, **attributes) -> Any:
    """Pixels, transpose, cast, float convolution, ``QuantizeLinear``, ``DequantizeLinear``."""
    rng = np.random.default_rng(kernel * 100 + stride)
    width, height = size_wh
    kernel_hw = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    constants = {
        "w": rng.normal(0, 0.02, (outs, 3, *kernel_hw)).astype(np.float32),
        "scale": SCALE,
        "zero": ZERO,
        **({"b": rng.normal(0, 5, outs).astype(np.float32)} if bias else {}),
    }
    settings = {"strides": [stride, stride], "pads": list(pads)} | attributes
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["floats", "w", *(["b"] if bias else [])], ["sum"], **settings),
        helper.make_node("QuantizeLinear", ["sum", "scale", "zero"], ["stored"]),
        helper.make_node("DequantizeLinear", ["stored", "scale", "zero"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "stem",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, (1, height, width, 3))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ("n", "c", "h", "w"))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def integer_convolution(pixels: np.ndarray, weights: np.ndarray, bias: np.ndarray, stride: int, pads) -> np.ndarray:
    """``(1, H, W, 3)`` pixels under ``(out, 3, kh, kw)`` integers: exact sums ``(out, h, w)``, written out."""
    top, left, bottom, right = pads
    planes = np.pad(pixels[0].transpose(2, 0, 1).astype(np.int64), ((0, 0), (top, bottom), (left, right)))
    kernel = weights.shape[2:]
    windows = np.lib.stride_tricks.sliding_window_view(planes, kernel, axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("chwij,ocij->ohw", windows, weights.astype(np.int64)) + bias.astype(np.int64)[:, None, None]


def silu_network(path: Path, convolutions: int = 11, side: int = 32, *, bias: bool = False) -> Path:
    """uint8 pixels to ``out (1, 6, side / 2, side / 2)`` through convolutions with SiLU."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], name="planes", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["x0"], name="cast", to=TensorProto.FLOAT),
    ]
    constants = []
    channels = 3
    for index in range(convolutions):
        last = index == convolutions - 1
        outs = 6 if last else 16
        weights = rng.normal(0, (2 / (9 * channels)) ** 0.5, (outs, channels, 3, 3)).astype(np.float32)
        constants.append(numpy_helper.from_array(weights / (255 if index == 0 else 1), f"w{index}"))
        if bias:
            constants.append(numpy_helper.from_array(rng.normal(0, 0.1, outs).astype(np.float32), f"b{index}"))
        stride = 2 if index == 0 else 1
        made = "out" if last else f"c{index}"
        nodes.append(
            helper.make_node(
                "Conv",
                [f"x{index}", f"w{index}", *([f"b{index}"] if bias else [])],
                [made],
                name=f"conv{index}",
                pads=[1] * 4,
                strides=[stride, stride],
                kernel_shape=[3, 3],
            )
        )
        if not last:
            nodes.append(helper.make_node("Sigmoid", [made], [f"s{index}"], name=f"sigmoid{index}"))
            nodes.append(helper.make_node("Mul", [made, f"s{index}"], [f"x{index + 1}"], name=f"mul{index}"))
        channels = outs
    graph = helper.make_graph(
        nodes,
        "silu",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, (1, side, side, 3))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, (1, 6, side // 2, side // 2))],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
