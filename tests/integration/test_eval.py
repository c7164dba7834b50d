"""``edgecv eval`` from the command line: figures, losses against float, and what is wrong with the data in words."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from edgecv.bundles.bundle import describe_file
from edgecv.bundles.manifest import MANIFEST, ModelFiles, Variant, dump_manifest
from tests.command_line import run_here
from tests.models import manifest, write_bundle
from tests.unit.quantize.test_labelled import boxes_in, colour_classifier, colours_in


def run(*arguments: str | Path) -> CompletedProcess[str]:
    return run_here("eval", *arguments)


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


def classifier_bundle(folder: Path) -> Path:
    """Float knows three colours; INT8 has lost red."""
    variants = []
    for precision, gains in (("fp32", (1.0, 1.0, 1.0)), ("int8", (1.0, 1.0, 0.0))):
        place = folder / f"onnx-{precision}"
        place.mkdir(parents=True)
        with colour_classifier(place / "model.onnx", gains) as model:
            files = ModelFiles(
                files=(describe_file(folder, place / "model.onnx"),),
                inputs=model.session.inputs,
                outputs=model.session.outputs,
            )
            spec = model.spec
        row = {"name": f"onnx-{precision}", "format": "onnx", "precision": precision, "latency_ms": 1.0}
        variants.append(Variant(**row, size_wh=spec.preprocess.size_wh, models={"main": files}))
    (folder / MANIFEST).write_bytes(
        dump_manifest(manifest(variants, preprocess=spec.preprocess.rule, decode=spec.decode))
    )
    return folder


def test_a_classifier_is_judged_by_folders_of_classes(tmp_path: Path) -> None:
    bundle, data = classifier_bundle(tmp_path / "c.ecv"), colours_in(tmp_path / "data")
    floats, int8 = document(bundle, "--data", data, "--runtime", "onnxruntime", "--per-class")["variants"]
    assert (floats["top1"], floats["top5"], int8["top1"]) == (1.0, 1.0, pytest.approx(2 / 3, abs=1e-6))
    assert int8["loss"]["points"] == pytest.approx(33.3333, abs=1e-3)
    assert 0 < int8["loss"]["low"] < 33 < int8["loss"]["high"]
    assert int8["classes"][2] == {"label": "red", "count": 5, "score": 0.0}


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


def test_pycocotools_is_asked_for_alone_and_before_an_image_is_run(
    bundle: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    for part in ("coco", "cocoeval", "mask"):
        monkeypatch.delitem(sys.modules, f"pycocotools.{part}", raising=False)
    for done in (run(bundle, "--data", data), run_here("bench", bundle, "--all", "--data", data)):
        assert done.returncode == 1
        assert "pip install pycocotools" in done.stderr
        assert "edgecv[convert]" not in done.stderr
        assert not [line for line in done.stderr.splitlines() if line.startswith("- ")]  # no step began


def test_tiles_are_scored_and_named(bundle: Path, data: Path) -> None:
    found = document(bundle, "--data", data, "--precision", "fp32", "--tiles", "2x2")
    assert found["tiles"] == "2x2"
    assert 0 < found["variants"][0]["map50_95"] <= 1
    assert "tiles" not in document(bundle, "--data", data, "--precision", "fp32")


def test_tiles_that_make_no_sense_end_with_2(bundle: Path, data: Path) -> None:
    done = run(bundle, "--data", data, "--tiles", "20x20")
    assert done.returncode == 2
    assert "20 x 20 tiles" in done.stderr
