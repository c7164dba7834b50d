"""The recipe for TensorRT rounds the inputs of weighted operators and what goes around residual blocks, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from edgecv.quantize.lint.lint import lint_model
from edgecv.quantize.ort.graph import Graph, attribute
from edgecv.quantize.ort.tensorrt import quantize_for_tensorrt
from edgecv.quantize.ranges import TensorStats, largest_magnitude
from edgecv.quantize.recipes import ACCELERATED, RECIPES
from tests.unit.quantize.onnx_graphs import Node, answers, graph_of, weights

CONV = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
SILU: tuple[Node, ...] = (("Conv", "x w1 b1", "c1", CONV), ("Sigmoid", "c1", "s1"), ("Mul", "c1 s1", "a1"))
BLOCK: tuple[Node, ...] = (
    ("Conv", "a1 w2 b1", "c2", CONV),
    ("Relu", "c2", "r2"),
    ("Conv", "r2 w3 b1", "c3", CONV),
    ("Add", "c3 a1", "sum"),
)
NET: tuple[Node, ...] = (
    *SILU,
    *BLOCK,
    ("Concat", "sum a1", "joined", {"axis": 1}),
    ("Conv", "joined w4 b1", "out", {"kernel_shape": [1, 1]}),
)
CONSTANTS = {
    **{f"w{at}": weights(16, 16, 3, 3, seed=at) for at in (1, 2, 3)},
    "w4": weights(16, 32, 1, 1, seed=4),
    "b1": weights(16, seed=9),
}
X = np.random.default_rng(1).normal(0, 1, (1, 16, 8, 8)).astype(np.float32)


def stats_of(model: Any) -> dict[str, TensorStats]:
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    known = {value.name for value in shown.graph.output}
    names = [name for node in model.graph.node for name in node.output if name not in known]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    sizes = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(1).normal(0, 1, sizes).astype(np.float32)
    values = zip([value.name for value in shown.graph.output], answers(shown, x), strict=True)
    found = {name: value.reshape(-1) for name, value in (("x", x), *values)}
    return {
        name: TensorStats(low=v.min(), high=v.max(), sample=v) for name, v in found.items() if v.dtype == np.float32
    }


def quantized(model: Any, recipe: str = "tensorrt") -> Graph:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    quantize_for_tensorrt(made, stats_of(model), RECIPES[recipe])
    onnx.checker.check_model(made)
    return Graph(made)


def rounded_inputs(graph: Graph) -> dict[str, list[int]]:
    """By the name of a node: which of its inputs were rounded, 1 being the weights of a convolution."""
    found = {}
    for node in graph.nodes:
        at = [
            n
            for n, name in enumerate(node.input)
            if (m := graph.maker(name)) is not None and m.op_type == "DequantizeLinear"
        ]
        if at and node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            found[node.name] = at
    return found


def test_inputs_and_weights_are_rounded_and_of_an_addition_the_side_around_the_block() -> None:
    graph = quantized(graph_of(NET, CONSTANTS, ["out"]))
    assert rounded_inputs(graph) == {"c1": [0, 1], "c2": [0, 1], "c3": [0, 1], "sum": [1], "out": [0, 1]}
    assert lint_model(graph.model) == ()


def test_it_gives_what_the_float_model_gives() -> None:
    model = graph_of(NET, CONSTANTS, ["out"])
    (wanted,), (found,) = answers(model, X), answers(quantized(model).model, X)
    assert found.dtype == np.float32
    gap = np.abs(found - wanted)
    assert 0 < gap.mean() < 0.02 * np.abs(wanted).max()


def test_around_a_concatenation_there_is_one_scale_the_largest() -> None:
    model = graph_of(NET, CONSTANTS, ["out"])
    graph, stats = quantized(model), stats_of(model)
    scales = {name: float(graph.constant(f"{name}_scale")) for name in ("a1", "joined", "r2")}
    wanted = max(largest_magnitude(stats[name], "mse") for name in ("a1", "joined")) / 127
    assert scales["a1"] == scales["joined"] == pytest.approx(wanted)
    assert scales["r2"] != scales["a1"]


def test_where_both_sides_of_an_addition_are_convolutions_the_longer_way_stays_float() -> None:
    shortcut = (*SILU, *BLOCK[:3], ("Conv", "a1 w5 b1", "c5", {"kernel_shape": [1, 1]}))
    constants = CONSTANTS | {"w5": weights(16, 16, 1, 1, seed=5)}
    for order, at in (("c3 c5", 1), ("c5 c3", 0)):
        graph = quantized(graph_of([*shortcut, ("Add", order, "out")], constants, ["out"]))
        assert rounded_inputs(graph)["out"] == [at]


@pytest.mark.parametrize(
    ("last", "constants"),
    [
        (("Add", "a1 c1", "out"), {}),  # what a convolution gives, and what is made of it
        (("Add", "a1 k", "out"), {"k": np.float32(1)}),
        (("Add", "a1 x", "out"), {}),  # nothing goes around a block that begins with the image
    ],
    ids=["itself", "a constant", "an input"],
)
def test_an_addition_that_ends_no_block_stays_float(last: Node, constants: dict[str, Any]) -> None:
    graph = quantized(graph_of([*SILU, last], CONSTANTS | constants, ["out"]))
    assert rounded_inputs(graph) == {"c1": [0, 1]}


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([("Conv", "x few", "out", CONV)], {"few": weights(8, 16, 3, 3)}),
        ([("Conv", "x each", "out", {**CONV, "group": 16})], {"each": weights(16, 1, 3, 3)}),
        ([("Flatten", "x", "row"), ("Gemm", "row wide", "out")], {"wide": weights(1024, 16)}),
        ([("Flatten", "x", "row"), ("MatMul", "row wide", "out")], {"wide": weights(1024, 16)}),
        ([("MatMul", "x x", "out")], {}),
        ([("Softmax", "x", "out")], {}),
    ],
    ids=["few channels", "depthwise", "vector gemm", "vector matmul", "two activations", "no weights"],
)
def test_what_is_no_faster_in_int8_stays_float(nodes: list[Node], constants: dict[str, Any]) -> None:
    assert rounded_inputs(quantized(graph_of(nodes, constants, ["out"]))) == {}


@pytest.mark.parametrize(
    ("node", "axis", "shape"),
    [
        (("ConvTranspose", "x w", "out", {"kernel_shape": [2, 2]}), 1, (16, 24, 2, 2)),
        (("MatMul", "x w", "out"), 1, (32, 24)),
        (("Gemm", "flat w", "out", {"transB": 1}), 0, (24, 32)),
        (("Gemm", "flat w", "out"), 1, (32, 24)),
    ],
    ids=["transposed", "matmul", "gemm transB", "gemm"],
)
def test_weights_have_a_scale_for_each_output_channel(node: Node, axis: int, shape: tuple[int, ...]) -> None:
    before = [("Reshape", "x size", "flat")] if "flat" in node[1] else []
    values = weights(*shape)
    values[(slice(None),) * axis + (0,)] = 0  # a dead channel needs a scale, too
    constants = {"w": values, "size": np.array([-1, 32], np.int64)}
    graph = quantized(graph_of([*before, node], constants, ["out"], shape=(1, 16, 4, 32)))
    dequantize = graph.maker(graph.users(f"w/axis{axis}_DequantizeLinear_Output")[0].input[1])
    assert dequantize is not None
    assert attribute(dequantize, "axis") == axis
    scale = graph.constant(dequantize.input[1])
    assert scale is not None
    assert scale.shape == (24,)
    assert scale[0] == 1
    assert not np.any(graph.constant(dequantize.input[2]))
    assert lint_model(graph.model) == ()


def test_with_a_float_head_what_serves_one_output_stays_float() -> None:
    heads = [("Conv", "c3 w1 b1", "box", CONV), ("Conv", "c3 w2 b1", "c6", CONV), ("Conv", "c6 w3 b1", "class", CONV)]
    model = graph_of([*SILU, *BLOCK[:3], *heads], CONSTANTS, ["box", "class"])
    assert set(rounded_inputs(quantized(model))) == {"c1", "c2", "c3", "box", "c6", "class"}
    assert set(rounded_inputs(quantized(model, "tensorrt-float-head"))) == {"c1", "c2", "c3"}
    alone = graph_of(NET, CONSTANTS, ["out"])
    assert set(rounded_inputs(quantized(alone, "tensorrt-float-head"))) == {"c1", "c2", "c3", "sum"}


def test_the_ladder_is_int8_then_a_float_head_then_fp16() -> None:
    found = ACCELERATED["tensorrt"]
    assert [recipe.name for recipe in (*found.first, *found.last)] == ["tensorrt", "tensorrt-float-head", "fp16"]
    assert all(
        (r.activations, r.weights, r.symmetric, r.per_channel) == ("int8", "int8", True, True) for r in found.first
    )


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_a_range_that_is_even_on_both_sides_of_zero(method: str) -> None:
    rng = np.random.default_rng(0)
    values = np.append(rng.normal(0, 1, 60_000), 8).astype(np.float32)  # one value far out
    end = largest_magnitude(TensorStats(low=values.min(), high=values.max(), sample=values), method)
    assert end == 8 if method == "minmax" else 3 < end < 8
    nothing = np.zeros(4, np.float32)
    assert largest_magnitude(TensorStats(low=0.0, high=0.0, sample=nothing), method) > 0
