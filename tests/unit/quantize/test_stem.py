"""The int8 first convolution: the same integers, however many pixels a row takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from edgecv.quantize.ort.stem import find_stem, nearest, pack_stem
from tests.unit.quantize.convolutions import SCALE, ZERO, integer_convolution, out_size, quantized_stem

SAME_3, SAME_6 = (1, 1, 1, 1), (2, 2, 2, 2)


def run(model: Any, pixels: np.ndarray, output: str | None = None) -> np.ndarray:
    if output is not None:  # look at the stored integers
        del model.graph.output[:]
        model.graph.output.append(
            onnx.helper.make_tensor_value_info(output, onnx.TensorProto.UINT8, ("n", "c", "h", "w"))
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # A CPU with AVX2 and without VNNI adds two products in 16 bits, which overflows here: exact arithmetic instead.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": pixels})[0]


def unpacked(stem: Any, weights: np.ndarray, scale: np.ndarray, size_wh: tuple[int, int]) -> Any:
    """The integer stem one output pixel at a time."""
    helper = onnx.helper
    bias = np.rint(stem.bias / scale).astype(np.int32)
    values = {
        "one": np.float32(1),
        "nought": np.uint8(0),
        "w": weights,
        "ws": scale,
        "wz": np.zeros(len(weights), np.int8),
        "b": bias,
        "bz": np.zeros(len(weights), np.int32),
        "s": SCALE,
        "z": ZERO,
    }
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("DequantizeLinear", ["planes", "one", "nought"], ["pixels"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["real_w"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "ws", "bz"], ["real_b"], axis=0),
        helper.make_node(
            "Conv", ["pixels", "real_w", "real_b"], ["sum"], strides=[stem.stride] * 2, pads=list(stem.pads)
        ),
        helper.make_node("QuantizeLinear", ["sum", "s", "z"], ["stored"]),
    ]
    graph = helper.make_graph(
        nodes,
        "plain",
        [helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, (1, size_wh[1], size_wh[0], 3))],
        [helper.make_tensor_value_info("stored", onnx.TensorProto.UINT8, ("n", "c", "h", "w"))],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize(
    ("size_wh", "kernel", "stride", "pads"),
    [
        ((64, 32), 3, 2, SAME_3),  # YOLOv8
        ((64, 64), 6, 2, SAME_6),  # YOLOv5
        ((64, 32), 7, 2, (3, 3, 3, 3)),  # ResNet
        ((32, 32), 3, 1, SAME_3),
        ((32, 48), 5, 1, SAME_6),
        ((32, 32), 1, 1, (0, 0, 0, 0)),
        ((48, 48), 3, 3, SAME_3),
        ((64, 64), 4, 4, (0, 0, 0, 0)),  # patches
        ((64, 64), 2, 2, (0, 0, 0, 0)),
        ((64, 64), 3, 2, (0, 0, 1, 1)),  # padded behind only, as TensorFlow does
        ((64, 64), 3, 2, (1, 1, 0, 0)),
        ((64, 32), 9, 2, (4, 4, 4, 4)),
        ((36, 32), 3, 2, SAME_3),  # no multiple of eight: two pixels a row
        ((34, 32), 3, 2, SAME_3),  # one pixel a row
        ((33, 31), 3, 1, SAME_3),
        ((8, 8), 3, 2, SAME_3),  # one group wide
        ((8, 8), 7, 2, (3, 3, 3, 3)),
    ],
)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
def test_the_packed_stem_makes_the_very_same_integers(size_wh, kernel, stride, pads, bias) -> None:
    model = quantized_stem(size_wh, kernel, stride, pads, bias=bias)
    images = [
        np.random.default_rng(seed).integers(0, 256, (1, size_wh[1], size_wh[0], 3), np.uint8) for seed in range(3)
    ]
    images += [np.zeros_like(images[0]), np.full_like(images[0], 255)]
    stem = find_stem(model)
    assert stem is not None
    weights, scale = nearest(stem.weights, 127)
    plain = unpacked(stem, weights, scale, size_wh)
    pack_stem(model, stem)
    onnx.checker.check_model(model)
    for pixels in images:
        stored = run(model, pixels, "stored")
        assert np.array_equal(stored, run(plain, pixels))
        # And both are the convolution as written out, up to one step where a sum lies between two.
        exact = integer_convolution(pixels, weights, np.rint(stem.bias / scale), stride, pads)
        wanted = np.clip(np.rint(exact * scale[:, None, None] / SCALE) + ZERO, 0, 255)
        assert stored.shape == (1, *wanted.shape)
        assert np.abs(stored[0] - wanted).max() <= 1
        assert (stored[0] != wanted).mean() < 0.001


def test_the_packed_stem_stays_close_to_the_float_one() -> None:
    model = quantized_stem((64, 64), 3, 2, SAME_3)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    before = run(model, pixels)
    stem = find_stem(model)
    assert stem is not None
    pack_stem(model, stem)
    assert np.abs(run(model, pixels) - before).max() <= 3 * SCALE


@pytest.mark.parametrize("most", [127, 64])
def test_weights_that_lie_on_their_grid_already_are_found_again(most: int) -> None:
    rng = np.random.default_rng(0)
    integers = rng.integers(-most, most + 1, (4, 3, 3, 3))
    integers[:, 0, 0, 0] = most
    scale = rng.uniform(0.001, 0.1, 4).astype(np.float32)
    stored, found = nearest(integers.astype(np.float32) * scale[:, None, None, None], most)
    assert np.array_equal(stored, integers)
    np.testing.assert_allclose(found, scale, rtol=1e-6)


def test_a_channel_of_zeros_stays_zero() -> None:
    weights = np.zeros((2, 3, 3, 3), np.float32)
    rounded, scale = nearest(weights, 127)
    assert not rounded.any()
    assert (scale > 0).all()


@pytest.mark.parametrize(
    "model",
    [
        quantized_stem((64, 64), 3, 1, (2, 2, 2, 2), dilations=[2, 2]),
        quantized_stem((64, 64), 3, 2, SAME_3, strides=[2, 1]),
        quantized_stem((63, 63), 3, 2, (0, 0, 0, 0)),  # 31 wide: not the input over the stride
        quantized_stem((64, 64), 3, 2, (0, 0, 0, 0)),
        quantized_stem((65, 64), 3, 2, SAME_3),
        quantized_stem((64, 65), 3, 2, SAME_3),
        quantized_stem((64, 64), 3, 1, (0, 0, 0, 0)),
        quantized_stem((64, 64), 1, 1, (2, 2, 2, 2)),  # larger than the input
    ],
    ids=["dilated", "two-strides", "valid-odd", "valid", "odd-width", "odd-height", "shrinking", "growing"],
)
def test_a_stem_of_another_form_is_left_alone(model: Any) -> None:
    assert find_stem(model) is None


def test_a_graph_that_does_not_begin_so_is_left_alone() -> None:
    model = quantized_stem((64, 64), 3, 2, SAME_3)
    model.graph.node[1].op_type = "Identity"
    assert find_stem(model) is None


def test_sizes_of_this_file_are_right() -> None:
    assert [out_size(64, 3, 2, 1, 1), out_size(64, 3, 2, 0, 1), out_size(64, 3, 2, 0, 0)] == [32, 32, 31]
