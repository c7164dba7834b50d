"""``edgecv eval`` from the command line: figures, losses against float, and what is wrong with the data in words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CHECKOUT
from tests.models import write_bundle
from tests.unit.quantize.test_labelled import boxes_in

DEADLINE_S = 60


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgecv", "eval", *map(str, arguments)]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def document(*arguments: str | Path) -> dict[str, Any]:
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("eval") / "tiny.ecv").path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boxes_in(tmp_path_factory.mktemp("data") / "boxes")


def test_every_variant_is_judged_and_compared_with_float(bundle: Path, data: Path) -> None:
    found = document(bundle, "--data", data, "--runtime", "onnxruntime", "--per-class")
    assert found["images"] == 4
    floats, int8 = found["variants"]
    assert (floats["variant"], floats["runtime"], floats["map50_95"]) == ("onnx-fp32", "onnxruntime", 1.0)
    assert "loss" not in floats
    assert int8["loss"] == {"against": "onnx-fp32", "points": 0.0, "low": 0.0, "high": 0.0}
    assert int8["classes"] == [{"label": "bright", "count": 4, "score": 1.0}]


def test_one_precision_alone_has_nothing_to_compare_with(bundle: Path, data: Path) -> None:
    found = document(bundle, "--data", data, "--precision", "int8")
    assert {row["variant"] for row in found["variants"]} == {"onnx-int8"}
    assert all("loss" not in row and "classes" not in row for row in found["variants"])


def test_tables_name_the_loss_and_the_classes(bundle: Path, data: Path) -> None:
    done = run(bundle, "--data", data, "--runtime", "onnxruntime", "--per-class")
    assert done.returncode == 0, done.stderr
    for words in ("mAP50-95", "points lost", "0.00 to 0.00", "bright", "by class"):
        assert words in done.stdout


@pytest.mark.parametrize(
    ("line", "words"),
    [("9 {x} 0.375 0.25 0.25", "has class 9"), ("0 {x} 0.375", "not a YOLO label file"), ("", "show no object")],
)
def test_labels_that_do_not_fit_end_with_2_and_a_next_step(bundle: Path, tmp_path: Path, line: str, words: str) -> None:
    done = run(bundle, "--data", boxes_in(tmp_path / "bad", line))
    assert done.returncode == 2
    assert words in done.stderr
    assert "next:" in done.stderr
    assert not done.stdout


def test_no_data_ends_with_2(bundle: Path, tmp_path: Path) -> None:
    done = run(bundle, "--data", tmp_path / "nowhere")
    assert done.returncode == 2
    assert "no labelled images" in done.stderr
