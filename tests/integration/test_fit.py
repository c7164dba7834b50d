"""``--fit`` through the commands: run, doctor, info, verify, eval, tune; and a real model in two shapes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import edgecv
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.golden import verify
from edgecv.cli.reach import source_finding
from edgecv.cli.tune import _show
from edgecv.devices.tuning.cells import Cell, CellResult
from edgecv.devices.tuning.machine import this_machine
from edgecv.devices.tuning.record import TuneKey, TuneRecord
from edgecv.devices.tuning.rules import best_of
from edgecv.devices.tuning.tune import TuneOptions, Tuning, cells_for
from edgecv.media.images import read_image
from edgecv.pipelines.uris import parse_source
from edgecv.vision.nms import iou_matrix
from tests.command_line import run_here
from tests.integration.trained import SIDE, Data, convert
from tests.models import write_bundle
from tests.once import made_once
from tests.shapes import SQUARE, WIDE, write_shapes

CAMERA = "synthetic://?frames=3&width=128&height=64"


def words_of(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture
def shaped(tmp_path: Path) -> Bundle:
    return write_shapes(tmp_path / "shapes.ecv")


@pytest.mark.parametrize("fit", ["0:1", "16x9", "abc", "100:1"])
def test_a_shape_that_is_none_is_wrong_usage(tmp_path: Path, fit: str) -> None:
    done = run_here("convert", "resnet18", "--random-weights", "--fit", fit, "--out", tmp_path / "out.ecv")
    assert (done.returncode, done.stdout) == (2, "")
    assert fit in done.stderr
    assert "--fit 16:9" in words_of(done.stderr)


def test_a_profile_goes_together_with_a_shape() -> None:
    done = run_here("convert", "yolov8n.yaml", "--for", "raspberry-pi-5", "--int8", "--fit", "16:9", "--explain")
    assert done.returncode == 0, done.stderr
    assert "an input of the shape 16:9" in words_of(done.stdout)


def test_run_says_once_for_each_source_what_its_shape_wastes(tmp_path: Path) -> None:
    made = write_bundle(tmp_path / "square.ecv")
    done = run_here("run", made.path, "--source", CAMERA, "--source", CAMERA, "--json")
    assert done.returncode == 0, done.stderr
    said = words_of(done.stderr)
    assert said.count("frames of 128 x 64 fill 50 % of the model's 64 x 64 input; `edgecv convert --fit ") == 2
    assert "makes a model that wastes less" in said


def test_run_takes_the_shape_that_fits_and_has_nothing_to_say(
    shaped: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = run_here("run", shaped.path, "--source", CAMERA, "--out", f"jsonl:{tmp_path / 'out.jsonl'}", "--json")
    assert done.returncode == 0, done.stderr
    assert "wastes" not in done.stderr
    assert "shapes.ecv: input 64x32 for synthetic://." in caplog.text
    assert json.loads(done.stdout)["frames"] == 3


def test_run_loads_a_second_shape_and_says_its_memory(
    shaped: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sources = {"wide": CAMERA, "square": "synthetic://?frames=3&width=128&height=128", "other": CAMERA}
    config = tmp_path / "app.toml"
    config.write_text("".join(f'[[sources]]\nname = "{name}"\nuri = "{uri}"\n' for name, uri in sources.items()))
    done = run_here("run", shaped.path, "--config", config, "--json")
    assert done.returncode == 0, done.stderr
    assert caplog.text.count("MB more memory") == 1


def test_record_and_replay_take_the_shape_as_well(shaped: Bundle, tmp_path: Path) -> None:
    done = run_here("record", "--out", tmp_path / "a.rec", shaped.path, "--source", CAMERA, "--frames", "png", "--json")
    assert done.returncode == 0, done.stderr
    again = run_here("replay", tmp_path / "a.rec", "--bundle", shaped.path, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["frames"] == 3


@pytest.mark.parametrize(
    ("size", "level", "words"),
    [
        ("width=1920&height=1080", "note", "56 %"),
        ("width=768&height=576", "note", "--fit 4:3"),
        ("width=64&height=64", "ok", ""),
    ],
)
def test_the_doctor_says_what_a_cameras_shape_wastes(size: str, level: str, words: str) -> None:
    found = source_finding(parse_source(f"synthetic://?frames=1&{size}"))
    assert found.level == level
    assert words in f"{found.why} {found.fix}"
    assert "gives frames of" in found.what


def test_info_shows_every_shape(shaped: Bundle) -> None:
    text = words_of(run_here("info", shaped.path).stdout)
    assert "64x64 (and 64x32 for cameras that they fit), letterbox" in text
    document = json.loads(run_here("info", shaped.path, "--json").stdout)
    assert document["size_wh"] == list(SQUARE)
    assert [variant["size_wh"] for variant in document["variants"]] == [list(SQUARE), list(WIDE)]


def test_the_cells_of_each_shape_compete_among_themselves(shaped: Bundle) -> None:
    contests = cells_for(shaped, this_machine(), TuneOptions(threads=(1, 2)))
    found = [{(cell.variant, cell.shape) for cell in cells} for cells in contests]
    assert found == [{("onnx-fp32", "")}, {("onnx-fp32-64x32", "64x32")}]
    assert all({cell.threads for cell in cells} == {1, 2} for cells in contests)


@pytest.mark.slow
def test_tune_holds_a_contest_for_each_shape(shaped: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECV_CACHE", str(tmp_path / "cache"))
    done = run_here("tune", shaped.path, "--budget", "20", "--threads", "1", "--json")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["results"]
    assert [(row["cell"]["variant"], row["cell"]["shape"]) for row in results] == [
        ("onnx-fp32", ""),
        ("onnx-fp32-64x32", "64x32"),
    ]
    assert all(row["median_ms"] > 0 for row in results), "neither was dropped for being slower than the other"
    with edgecv.load(shaped.path, fit=(128, 64)) as model:
        assert model.variant.name == "onnx-fp32-64x32"
    with edgecv.load(shaped.path) as model:
        assert model.variant.name == "onnx-fp32"
    shown = run_here("tune", shaped.path)
    assert shown.stdout.count(" ms, ") == 2


def test_the_winner_of_a_shape_is_taken_though_another_cell_was_as_quick() -> None:
    def result(variant: str, threads: int, ms: float, shape: str) -> CellResult:
        cell = Cell(variant=variant, precision="fp32", runtime="onnxruntime", threads=threads, shape=shape)
        return CellResult(cell=cell, stage="final", median_ms=ms)

    results = [result("a", 2, 10.0, ""), result("b", 2, 6.0, "64x32"), result("c", 1, 6.05, "64x32")]
    found = best_of(results, lambda cell: cell.shape == "64x32")
    assert found is not None
    assert found.variant == "b"


def test_the_winner_of_each_shape_is_shown_that_of_the_models_own_first(capsys: pytest.CaptureFixture[str]) -> None:
    def result(variant: str, shape: str, device: str) -> CellResult:
        cell = Cell(variant=variant, precision="fp32", runtime="openvino", threads=2, device=device, shape=shape)
        return CellResult(cell=cell, stage="final", median_ms=1.0)

    key = TuneKey(fingerprint="", bundle="", versions={}, power_mode="", usable_cpus=2)
    results = (result("a", "", "cpu"), result("slower", "", "cpu"), result("a-64x32", "64x32", "gpu"))
    record = TuneRecord(schema=1, name="b", key=key, measured_at="", elapsed_s=1, budget_s=1, results=results)
    _show(Tuning(record=record, path=None), explain=False)
    said = capsys.readouterr()
    assert [line.split()[1] for line in said.out.splitlines()] == ["a", "a-64x32"]
    assert "--compute-device gpu" in said.err


@pytest.fixture(scope="module")
def fitted(yolov8n: Path, data: Data, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The trained YOLOv8n with a square and a 4:3 input."""

    def make(folder: Path) -> None:
        done = convert(yolov8n, folder / "fitted.ecv", "--calib", data.calibration, "--fit", "4:3", timeout_s=800)
        assert done.returncode == 0, done.stderr

    return Bundle.open(made_once(tmp_path_factory, "fitted-int8", make) / "fitted.ecv")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_shape_has_its_own_gate_and_golden_vectors(fitted: Bundle) -> None:
    names = ["onnx-fp32", "onnx-int8", "onnx-fp32-320x256", "onnx-int8-320x256"]
    assert [variant.name for variant in fitted.variants] == names
    assert {verdict.status for verdict in verify(fitted)} == {"ok"}
    square, wide = (variant for variant in fitted.variants if variant.precision == "int8")
    assert square.metrics.keys() == wide.metrics.keys()
    assert square.metrics != wide.metrics
    formats = [one["format"] for one in json.loads(fitted.read_extra("quantization.json"))["formats"]]
    assert formats == ["onnx", "onnx-320x256"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_shapes_find_the_same_objects_in_camera_pixels(fitted: Bundle, coco_images: list[Path]) -> None:
    """Photographs of 640 x 480 are as large in 320 x 256 as in 320 x 320: what is sure in one is found in the other."""
    images = [image for path in coco_images if (image := read_image(path)).shape[:2] == (480, 640)][:20]
    assert len(images) == 20
    with (
        edgecv.load(fitted.path, precision="int8") as square,
        edgecv.load(fitted.path, precision="int8", fit=(SIDE * 2, SIDE * 2 * 3 // 4)) as wide,
    ):
        assert wide.spec.preprocess.size_wh == (320, 256)
        found = missed = 0
        for image in images:
            sure, other = square(image, confidence=0.5), wide(image, confidence=0.25)
            same = (iou_matrix(sure.xyxy, other.xyxy) > 0.8) & (sure.class_id[:, None] == other.class_id[None])
            found += len(sure)
            missed += int(np.count_nonzero(~same.any(axis=1))) if len(other) else len(sure)
    assert found > 40
    assert missed <= 0.15 * found
