"""Latency, measured in a process of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecv.errors import SessionError
from edgecv.runtimes.measure import Request, _timed, median_latency_ms
from edgecv.runtimes.ort import OnnxRuntimeSession
from edgecv.specs import RuntimeOptions
from tests.models import METADATA, arithmetic, detector


def test_a_median_in_milliseconds_comes_back(tmp_path: Path) -> None:
    request = Request(
        path=str(arithmetic(tmp_path / "m.onnx")), runtime="onnxruntime", options=RuntimeOptions(threads=1), runs=5
    )
    assert 0 < median_latency_ms(request) < 1000


@pytest.mark.parametrize(
    ("enough_s", "runs"),
    [(3600.0, 30), (1e-9, 1)],  # nothing takes an hour, and anything takes a nanosecond
)
def test_a_fast_model_runs_as_often_as_asked_and_an_endless_one_once(
    enough_s: float, runs: int, tmp_path: Path
) -> None:
    session = OnnxRuntimeSession(arithmetic(tmp_path / "m.onnx"), RuntimeOptions(threads=1))
    feeds = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in session.inputs}
    assert len(_timed(session, feeds, 30, enough_s, fewest=3)) == runs


def test_a_model_that_cannot_run_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"garbage")
    with pytest.raises(SessionError, match=r"bad\.onnx cannot be timed"):
        median_latency_ms(Request(path=str(path), runtime="onnxruntime", options=RuntimeOptions()))


def test_a_session_keeps_the_metadata_of_its_file(tmp_path: Path) -> None:
    session = OnnxRuntimeSession(detector(tmp_path / "m.onnx", METADATA), RuntimeOptions())
    assert dict(session.metadata) == METADATA


@pytest.mark.parametrize("extra", [{}, {"spinning": True}, {"config": {"session.set_denormal_as_zero": "1"}}], ids=str)
def test_options_of_the_runtime_are_taken(tmp_path: Path, extra) -> None:
    OnnxRuntimeSession(arithmetic(tmp_path / "m.onnx"), RuntimeOptions(extra=extra)).close()
