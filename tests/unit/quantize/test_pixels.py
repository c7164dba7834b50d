"""Pixels are cast before they are moved, and nothing else changes."""

from __future__ import annotations

import numpy as np
import onnx

from edgecv.quantize.ort.pixels import cast_pixels_first
from tests.unit.quantize.onnx_graphs import answers, graph_of, pixels_of

X = np.random.default_rng(5).integers(0, 256, (1, 8, 8, 3), np.uint8)


def test_a_cast_after_the_transpose_of_pixels_comes_before_it() -> None:
    model = pixels_of(cast_first=False)
    (wanted,) = answers(model, X)
    cast_pixels_first(model)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Cast", "Transpose", "Conv"]
    np.testing.assert_array_equal(answers(model, X)[0], wanted)
    again = model.SerializeToString()
    cast_pixels_first(model)
    assert model.SerializeToString() == again


def test_what_is_shown_or_used_twice_or_is_no_pixel_stays() -> None:
    shown = pixels_of(cast_first=False)
    shown.graph.output.append(onnx.helper.make_tensor_value_info("moved", onnx.TensorProto.UINT8, (1, 3, 8, 8)))
    twice = pixels_of(cast_first=False)
    twice.graph.node.append(onnx.helper.make_node("Identity", ["moved"], ["other"]))
    floats = graph_of([("Transpose", "x", "moved"), ("Cast", "moved", "out", {"to": 1})], {}, ["out"])
    for model in (shown, twice, floats, pixels_of(cast_first=True)):
        before = model.SerializeToString()
        cast_pixels_first(model)
        assert model.SerializeToString() == before
