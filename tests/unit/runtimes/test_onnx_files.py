"""External data of an ``.onnx``, read without the onnx package."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from hypothesis import given, strategies as st
from onnx import TensorProto, helper

from edgecv.errors import SessionError
from edgecv.runtimes.onnx_files import external_files
from tests.models import arithmetic, detector, with_external_data


def external_tensor(location: str) -> TensorProto:
    tensor = TensorProto(name=location, data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    return tensor


def in_constant(location: str) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["y"], value=external_tensor(location))
    return helper.make_model(helper.make_graph([node], "g", [], []))


def in_branch(location: str) -> onnx.ModelProto:
    inner = helper.make_graph([], "inner", [], [], [external_tensor(location)])
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    return helper.make_model(helper.make_graph([node], "g", [], []))


def in_function(location: str) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["y"], value=external_tensor(location))
    function = helper.make_function("d", "f", [], ["y"], [node], [helper.make_opsetid("", 17)])
    return helper.make_model(helper.make_graph([], "g", [], []), functions=[function])


def in_sparse(location: str) -> onnx.ModelProto:
    graph = helper.make_graph([], "g", [], [])
    sparse = onnx.SparseTensorProto(values=external_tensor(location), indices=external_tensor("i" + location), dims=[4])
    graph.sparse_initializer.append(sparse)
    return helper.make_model(graph)


@pytest.mark.parametrize("build", [in_constant, in_branch, in_function, in_sparse], ids=lambda f: f.__name__)
def test_locations_are_found_wherever_a_tensor_can_hide(tmp_path: Path, build) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(build("../secret.bin").SerializeToString())
    assert "../secret.bin" in external_files(path)


def test_a_file_saved_by_onnx_names_its_weights(tmp_path: Path) -> None:
    assert external_files(with_external_data(tmp_path / "m.onnx", "w.bin")) == {"w.bin"}


@pytest.mark.parametrize("build", [arithmetic, detector])
def test_a_file_with_its_weights_inside_names_nothing(tmp_path: Path, build) -> None:
    assert external_files(build(tmp_path / "m.onnx")) == frozenset()


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(content)
    try:
        assert isinstance(external_files(path), frozenset)
    except SessionError as error:
        assert "any.onnx" in error.message


@given(st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    content = bytearray(in_branch("w.bin").SerializeToString())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        assert isinstance(external_files(path), frozenset)
    except SessionError as error:
        assert "damaged.onnx" in error.message


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = detector(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(SessionError, match="damaged"):
        external_files(path)
