"""``--fit``: what is refused, and what is told; ``tests/integration/test_convert_yolov8.py`` converts."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgecv
from edgecv._internal.progress import silent
from edgecv.bundles.bundle import Failure
from edgecv.converters.explain import steps
from edgecv.converters.float_variants import Job, remove
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


def test_a_failure_takes_away_only_its_own_shape(tmp_path: Path) -> None:
    names = ["onnx-int8", "onnx-int8-x86", "onnx-int8-640x384", "onnx-int8-x86-640x384", "onnx-fp32-640x384"]
    for shape, left in (("", names[2:]), ("640x384", [*names[:2], names[4]])):
        folder = tmp_path / (shape or "own")
        for name in names:
            (folder / name).mkdir(parents=True)
        job = Job(
            request=request_of("resnet18", ["onnx"], "fp32"),
            source=None,  # type: ignore[arg-type]  # nothing of it is asked
            calibration=None,
            examples=(),
            images=(),
            rounded=None,
            folder=folder,
            progress=silent,
            shape=shape,
        )
        remove(job, "onnx", "int8")
        assert sorted(path.name for path in folder.iterdir()) == sorted(left)
        assert job.name_of("onnx", "int8", "x86") == ("onnx-int8-x86-640x384" if shape else "onnx-int8-x86")


def test_a_failure_names_its_shape() -> None:
    failed = Failure(format="onnx", precision="int8", message="no", hint="", exit_code=3, shape="640x384")
    assert str(failed) == "onnx int8 640x384 failed: no"
