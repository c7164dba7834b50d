"""The int8 peak of the processors, measured: multiply-adds per second of OpenVINO's best convolution here."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import numpy as np

from edgecv._internal.extras import require
from edgecv.errors import EdgeCVError

# Convolutions alone, in sizes that suit processors: channels, side of the image, kernel. Enough of each that nothing else counts.
_SHAPES = ((64, 40, 3), (128, 40, 3), (256, 20, 3), (256, 40, 3), (512, 20, 1), (256, 40, 1))
_LAYERS = 8
_RUNS = 12
_INT8 = ("i8", "u8", "int8_t", "uint8_t")


class Peak(msgspec.Struct, frozen=True, kw_only=True):
    """The best rate that was reached.

    Attributes:
        per_s: Multiply-adds per second, with all threads together.
        threads: How many.
        shape: The convolution that reached it, in words.
        tried: The rates of all shapes, in 10^9 per second.
    """

    per_s: float
    threads: int
    shape: str
    tried: dict[str, float]


def int8_peak(threads: int) -> Peak:
    """Time chains of eight equal convolutions on unsigned bytes with signed weights; the best run of the best shape counts.

    Raises:
        EdgeCVError: OpenVINO computed them in another type than int8.
        MissingDependency: openvino is not installed.
    """
    openvino = require("openvino", "openvino")
    core = openvino.Core()
    rates = {_words(shape): _rate(openvino, core, shape, threads) for shape in _SHAPES}
    best = max(rates, key=lambda name: rates[name])
    tried = {name: round(rate / 1e9, 1) for name, rate in rates.items()}
    return Peak(per_s=rates[best], threads=threads, shape=best, tried=tried)


def _words(shape: tuple[int, int, int]) -> str:
    channels, side, kernel = shape
    return f"{kernel} × {kernel}, {channels} channels, {side} × {side} pixels"


def _rate(openvino: Any, core: Any, shape: tuple[int, int, int], threads: int) -> float:
    channels, side, kernel = shape
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(_chain(openvino, *shape), "CPU", settings)
    _check(compiled)
    request = compiled.create_infer_request()
    tensor = np.random.default_rng(0).random((1, channels, side, side), np.float32)
    request.infer([tensor])
    fastest_s = min(_seconds(request) for _ in range(_RUNS))
    return _LAYERS * channels * channels * kernel * kernel * side * side / fastest_s


def _seconds(request: Any) -> float:
    start = time.perf_counter()
    request.infer()
    return time.perf_counter() - start


def _chain(openvino: Any, channels: int, side: int, kernel: int) -> Any:
    """Convolutions between quantizers to 8 bits, as NNCF writes them: OpenVINO fuses them to int8."""
    ops = openvino.opset13
    rng = np.random.default_rng(0)
    given = ops.parameter([1, channels, side, side], np.float32, "x")
    node = ops.fake_quantize(given, *_limits(0.0, 1.0), 256)
    pad = kernel // 2
    for _ in range(_LAYERS):
        weights = rng.integers(-127, 128, (channels, channels, kernel, kernel)).astype(np.int8)
        floats = ops.multiply(ops.convert(ops.constant(weights), np.float32), np.float32(1e-4))
        node = ops.convolution(node, floats, [1, 1], [pad, pad], [pad, pad], [1, 1])
        node = ops.fake_quantize(ops.relu(node), *_limits(0.0, 1.0), 256)
    return openvino.Model([ops.result(node)], [given], "chain")


def _limits(low: float, high: float) -> tuple[Any, ...]:
    """Input and output range of a quantizer."""
    return np.float32(low), np.float32(high), np.float32(low), np.float32(high)


def _check(compiled: Any) -> None:
    """The convolutions that run take bytes."""
    nodes = [
        node for node in compiled.get_runtime_model().get_ordered_ops() if _said(node, "layerType") == "Convolution"
    ]
    types = {_said(node, "runtimePrecision") for node in nodes}
    if len(nodes) != _LAYERS or not types <= set(_INT8):
        raise EdgeCVError(f"OpenVINO ran {len(nodes)} convolutions in {sorted(types)}, not in int8.")


def _said(node: Any, name: str) -> str:
    info = node.get_rt_info()
    return str(info[name].astype(str)) if name in info else ""
