"""Reading and editing ONNX graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecv.quantize.ort.graph import (
    Graph,
    add_constant,
    attribute,
    drop_unused_constants,
    load,
    name_nodes,
    op_counts,
    replace_nodes,
    save,
)
from tests.models import with_external_data


def test_nodes_without_a_name_or_with_anothers_get_their_own() -> None:
    nodes = [helper.make_node("Neg", ["x"], ["a"], name=name) for name in ("", "first", "first", "")]
    named = helper.make_model(helper.make_graph(nodes, "g", [], []))
    name_nodes(named)
    names = [node.name for node in named.graph.node]
    assert names[1] == "first"
    assert len(set(names)) == 4
    assert "" not in names


@pytest.fixture
def model() -> Any:
    """``x + w``, then halved by a ``Constant`` node; ``w`` stands among the inputs, as old files have it."""
    nodes = [
        helper.make_node("Constant", [], ["half"], value=numpy_helper.from_array(np.float32(0.5))),
        helper.make_node("Add", ["x", "w"], ["sum"], name="add"),
        helper.make_node("Mul", ["sum", "half"], ["y"], name="mul"),
    ]
    value = helper.make_tensor_value_info
    return helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [value("x", TensorProto.FLOAT, (2,)), value("w", TensorProto.FLOAT, (2,))],
            [value("y", TensorProto.FLOAT, (2,))],
            [numpy_helper.from_array(np.array([1, 2], np.float32), "w")],
        )
    )


def test_makers_and_users(model: Any) -> None:
    graph = Graph(model)
    assert graph.maker("sum").name == "add"
    assert graph.maker("x") is None
    assert [node.name for node in graph.users("sum")] == ["mul"]
    assert graph.users("y") == []


def test_constants_are_found_in_both_forms(model: Any) -> None:
    graph = Graph(model)
    assert graph.constant("w").tolist() == [1, 2]
    assert graph.constant("half") == 0.5
    assert graph.constant("sum") is None
    assert graph.constant("x") is None


def test_initializers_are_no_inputs(model: Any) -> None:
    assert Graph(model).input_names() == ["x"]
    assert Graph(model).output_names() == ["y"]


def test_attributes_have_a_default() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2])
    assert list(attribute(node, "strides")) == [2, 2]
    assert attribute(node, "group", 1) == 1
    assert attribute(node, "pads") is None


def test_new_nodes_stand_where_the_first_old_one_stood(model: Any) -> None:
    nodes = list(model.graph.node)
    new = [helper.make_node("Neg", ["x"], ["n"]), helper.make_node("Abs", ["n"], ["sum"])]
    replace_nodes(model, [nodes[1]], new)
    assert [node.op_type for node in model.graph.node] == ["Constant", "Neg", "Abs", "Mul"]
    assert op_counts(model) == {"Constant": 1, "Neg": 1, "Abs": 1, "Mul": 1}


def test_equal_nodes_are_told_apart(model: Any) -> None:
    model.graph.node.append(model.graph.node[1])
    replace_nodes(model, [model.graph.node[3]], [helper.make_node("Neg", ["x"], ["z"])])
    assert [node.op_type for node in model.graph.node] == ["Constant", "Add", "Mul", "Neg"]


def test_only_unused_constants_go(model: Any) -> None:
    add_constant(model, "spare", np.zeros(3, np.float32))
    assert len(model.graph.initializer) == 2
    drop_unused_constants(model)
    assert [tensor.name for tensor in model.graph.initializer] == ["w"]


def test_a_constant_that_is_an_output_stays(model: Any) -> None:
    add_constant(model, "answer", np.zeros(3, np.float32))
    model.graph.output.append(helper.make_tensor_value_info("answer", TensorProto.FLOAT, (3,)))
    drop_unused_constants(model)
    assert {tensor.name for tensor in model.graph.initializer} == {"w", "answer"}


def test_external_data_comes_in_and_one_file_goes_out(tmp_path: Path) -> None:
    loaded = load(with_external_data(tmp_path / "m.onnx"))
    (tmp_path / "out").mkdir()
    save(loaded, tmp_path / "out/m.onnx")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["m.onnx"]
    again = onnx.load(str(tmp_path / "out/m.onnx"))
    assert Graph(again).constant("weights").tolist() == list(range(512))
