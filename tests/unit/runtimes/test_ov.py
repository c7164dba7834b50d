"""What is OpenVINO's alone: its hint, and the cache of what it compiled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino
import pytest

import edgecv
from edgecv.errors import SessionError
from edgecv.runtimes.ov import OpenVinoSession
from edgecv.specs import RuntimeOptions
from tests.models import SPEC, bright_cell, detector


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ov")
    converted = openvino.convert_model(str(detector(folder / "model.onnx")))
    openvino.save_model(converted, str(folder / "model.xml"))
    return folder / "model.xml"


def test_it_compiles_for_latency_with_the_threads_that_are_asked_for(model: Path) -> None:
    compiled = OpenVinoSession(model, RuntimeOptions(threads=1))._compiled
    assert str(compiled.get_property("PERFORMANCE_HINT")) == "LATENCY"
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1


def test_what_it_compiled_is_kept_where_it_was_asked_for(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    found = []
    for _ in range(2):
        with edgecv.load(model, runtime="openvino", spec=SPEC, cache_dir=cache) as opened:
            found.append(opened(bright_cell(2, 1)).xyxy)
    assert np.array_equal(*found)
    assert len(list(cache.glob("*.blob"))) == 1


def test_without_a_cache_nothing_is_written(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    OpenVinoSession(model, RuntimeOptions())
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_is_a_session_error(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SessionError, match=r"model\.xml"):
        OpenVinoSession(model, RuntimeOptions(cache_dir=str(tmp_path / "file" / "cache")))
