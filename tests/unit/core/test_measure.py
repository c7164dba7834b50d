"""How often a model is run to be timed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgecv import registry
from edgecv.protocols import Session
from edgecv.runtimes.measure import _timed
from edgecv.specs import RuntimeOptions

FEED = {"x": np.zeros((1, 4), np.float32)}


@pytest.fixture
def session(tmp_path: Path) -> Session:
    node = helper.make_node("Relu", ["x"], ["y"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 4)) for name in "xy"]
    graph = helper.make_graph([node], "relu", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (tmp_path / "relu.onnx").write_bytes(model.SerializeToString())
    made: Session = registry.resolve("runtimes", "onnxruntime")(tmp_path / "relu.onnx", RuntimeOptions(threads=1))
    return made


@pytest.mark.parametrize(
    ("enough_s", "runs"),
    [(3600.0, 30), (1e-9, 1)],  # nothing takes an hour, and anything takes a nanosecond
)
def test_a_fast_model_runs_as_often_as_asked_and_an_endless_one_once(
    session: Session, enough_s: float, runs: int
) -> None:
    assert len(_timed(session, FEED, 30, enough_s, fewest=3)) == runs
