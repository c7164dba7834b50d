"""``--fit``: what is refused, and what is told; ``tests/integration/test_convert_yolov8.py`` converts."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgecv
from edgecv.converters.explain import steps
from edgecv.converters.request import request_of
from edgecv.errors import ConfigError


def test_without_fit_there_is_one_size(untrained_64: Path) -> None:
    assert request_of(untrained_64, ["onnx"], "fp32").fits == ()


@pytest.mark.parametrize("fit", ["0:1", "16x9", "abc", "100:1"])
def test_what_is_no_shape_is_refused_before_anything_is_read(untrained_64: Path, tmp_path: Path, fit: str) -> None:
    with pytest.raises(ConfigError, match=fit) as caught:
        edgecv.convert(untrained_64, precision="fp32", fit=(fit,), out=tmp_path / "out.ecv")
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_a_text_is_not_taken_apart(untrained_64: Path) -> None:
    with pytest.raises(ConfigError, match="several"):
        request_of(untrained_64, ["onnx"], "fp32", fit="16:9")


def test_a_classifier_has_the_shape_it_was_trained_with(resnet20: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"detect, segment, pose, obb.*'classify'") as caught:
        edgecv.convert(resnet20, precision="fp32", fit=("16:9",), out=tmp_path / "out.ecv")
    assert caught.value.hint == "Leave --fit out."
    assert not list(tmp_path.iterdir())


def test_a_graph_with_fixed_axes_says_what_would_help(exported_64: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fixed input of 64x64") as caught:
        edgecv.convert(exported_64, precision="fp32", fit=("2:1",), out=tmp_path / "out.ecv")
    assert "checkpoint" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_the_steps_name_each_shape(untrained_64: Path) -> None:
    told = "\n".join(steps(request_of(untrained_64, ["onnx"], "fp32", fit=("16:9", "1600:900", "4:3"))))
    assert told.count("an input of the shape 16:9") == 1
    assert "an input of the shape 4:3" in told
