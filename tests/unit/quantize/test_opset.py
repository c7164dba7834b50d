"""A graph of opset 18 says the same in 17, or stays as it is."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgecv.quantize.ort.opset import lower_opset, opset_of
from tests.unit.quantize.onnx_graphs import Node, answers, graph_of

X = np.random.default_rng(3).normal(0, 1, (1, 16, 8, 8)).astype(np.float32)
CONSTANTS = {
    **{"axes": np.array([2, 3], np.int64), "scales": np.array([1, 1, 2, 2], np.float32)},
    **{"pads": np.array([0, 0, 1, 0, 0, 0, 0, 1], np.int64), "sizes": np.array([10, 6], np.int64)},
}
RESIZE = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
SAYABLE: list[list[Node]] = [
    [("Split", "x", "out rest", {"axis": 1, "num_outputs": 2}), ("Relu", "rest", "used")],
    [("Split", "x", "a b out", {"axis": 1, "num_outputs": 3})],  # 6, 6 and 4
    [("Split", "x sizes", "out b", {"axis": 1})],
    [("ReduceMean", "x axes", "out", {"keepdims": 0})],
    [("ReduceMax", "x", "out")],
    [("Resize", "x . scales", "out", {**RESIZE, "antialias": 0, "keep_aspect_ratio_policy": "stretch"})],
    [("Pad", "x pads", "out", {"mode": "constant"})],
    [("Conv", "x w", "out")],
]


@pytest.mark.parametrize("nodes", SAYABLE, ids=lambda nodes: nodes[0][0])
def test_what_opset_17_can_say_is_said_in_it(nodes: list[Node]) -> None:
    model = graph_of(nodes, CONSTANTS | {"w": np.ones((4, 16, 1, 1), np.float32)}, ["out"], opset=18)
    for node in model.graph.node:
        node.input[:] = ["" if name == "." else name for name in node.input]
    wanted = answers(model, X)
    assert lower_opset(model)
    assert opset_of(model) == 17
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(answers(model, X)[0], wanted[0])


@pytest.mark.parametrize(
    "nodes",
    [
        [("Resize", "x . scales", "out", {"mode": "linear", "antialias": 1})],
        [("Mish", "x", "out")],
        [("ReduceMean", "x", "out", {"noop_with_empty_axes": 1})],
        [("Pad", "x pads none axes", "out", {"mode": "constant"})],
    ],
    ids=lambda nodes: nodes[0][0],
)
def test_what_it_cannot_say_stays_as_it_is(nodes: list[Node]) -> None:
    more: list[Node] = [("Split", "x", "a b", {"axis": 1, "num_outputs": 2})]
    model = graph_of([*more, *nodes], CONSTANTS | {"none": np.float32(0)}, ["out"], opset=18)
    before = model.SerializeToString()
    assert not lower_opset(model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize(("opset", "low"), [(13, True), (17, True), (19, False)])
def test_other_opsets_are_left_alone(opset: int, low: bool) -> None:
    model = graph_of([("Relu", "x", "out")], {}, ["out"], opset=opset)
    before = model.SerializeToString()
    assert lower_opset(model) is low
    assert model.SerializeToString() == before
