"""The gate can fail, and it can pass: each known way to ruin INT8 on a real YOLOv8n, and the good one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import edgecv
from edgecv.bundles.bundle import Bundle
from edgecv.choosing import runtime_options
from edgecv.converters.families import ultralytics_import
from edgecv.errors import AccuracyGateError, SpecMismatch
from edgecv.media.images import read_image
from edgecv.model import Model, open_variant
from edgecv.quantize.gate.accuracy_gate import Answer, answers, compare
from edgecv.quantize.recipe_files import find_recipe
from edgecv.quantize.recipes import GateLimits
from edgecv.quantize.record import QuantizationRecord, parse_record
from edgecv.quantize.search import Candidate, Judgement, RecipeOrder, search
from edgecv.vision.letterbox import fit
from tests.conftest import names_in
from tests.integration.trained import JUDGED, SIDE, Data, convert

pytest.importorskip("ultralytics")
pytestmark = pytest.mark.timeout(900)  # it may wait for the conversion that several files share


def record_of(bundle: Bundle) -> QuantizationRecord:
    return parse_record(bundle.read_extra("quantization.json"), bundle.path)


def test_the_good_recipe_passes_by_labels_as_well(trained: Bundle) -> None:
    form = next(form for form in record_of(trained).formats if form.format == "onnx")
    loss = form.attempts[-1].labelled
    assert form.chosen == "ort-u8s8-gptq"
    assert loss is not None
    assert (loss.metric, loss.images) == ("map50_95", JUDGED)
    assert loss.low <= loss.drop <= loss.high
    assert loss.drop <= 2
    assert loss.classes
    assert form.worst
    assert "map50_95_drop" in {check.metric for check in form.attempts[-1].checks}


def test_the_confidence_is_tuned_and_its_reason_kept(trained: Bundle) -> None:
    threshold = record_of(trained).threshold
    assert threshold is not None
    assert trained.manifest.decode.confidence == threshold.after
    assert "precision at IoU 0.5 on the labelled images" in threshold.reason


def test_the_report_tells_what_was_tried(trained: Bundle) -> None:
    page = trained.read_extra("report.html").decode()
    assert "ort-u8s8-gptq" in page
    assert "<svg" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")


def test_images_of_the_calibration_set_must_not_judge(yolov8n: Path, data: Data, tmp_path: Path) -> None:
    shutil.copytree(data.labelled, tmp_path / "both")
    seen = sorted(data.calibration.iterdir())[0]
    shutil.copy(seen, tmp_path / "both/images")
    done = convert(yolov8n, tmp_path / "x.ecv", "--calib", data.calibration, "--data", tmp_path / "both")
    assert done.returncode == 1
    assert seen.name in done.stderr.replace("\n", "")
    assert names_in(tmp_path) == ["both"]


@pytest.mark.parametrize(
    "recipe",
    [("--recipe", "ort-u8s8"), pytest.param((), id="every recipe", marks=pytest.mark.slow)],
)
def test_noise_calibration_fails_on_clean_labelled_images_and_is_named_as_the_cause(
    recipe: tuple[str, ...], yolov8n: Path, data: Data, tmp_path: Path
) -> None:
    noise = tmp_path / "noise"
    noise.mkdir()
    for index in range(20):
        image = np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        cv2.imwrite(str(noise / f"{index}.png"), image)
    asked = ("--calib", noise, "--data", data.labelled, "--json", *recipe)
    done = convert(yolov8n, tmp_path / "x.ecv", *asked)
    assert done.returncode == 3, done.stderr
    words = " ".join(done.stderr.split())
    assert "calibration images are not what the model was trained for" in words
    assert "f1_50" in words
    assert names_in(tmp_path) == ["noise"]


@pytest.mark.parametrize(
    ("target", "named"),
    [
        pytest.param("x86-vnni", "convolutions as integers", id="not fused on x86", marks=pytest.mark.slow),
        pytest.param("arm64", "f1_50", id="inaccurate on arm64", marks=pytest.mark.slow),
    ],
)
def test_one_signed_scale_per_tensor_is_refused(
    yolov8n: Path, data: Data, tmp_path: Path, target: str, named: str
) -> None:
    """The recipe of widely used exporters: S8S8, per tensor, min/max ranges."""
    recipe = {
        "name": "s8s8-per-tensor",
        "format": "onnx",
        "activations": "int8",
        "per_channel": False,
        "method": "minmax",
        "silu_method": "minmax",
        "stem": "float",
        "target": target,
    }
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    done = convert(
        yolov8n, tmp_path / "x.ecv", "--calib", data.calibration, "--recipe", tmp_path / "recipe.json", "--json"
    )
    assert done.returncode == 3, done.stderr
    assert named in " ".join(done.stderr.split())
    assert "s8s8-per-tensor" in done.stderr
    assert names_in(tmp_path) == ["recipe.json"]


def judged(teacher: Sequence[Answer], student: Sequence[Answer]) -> Callable[..., Candidate]:
    def make(recipe: object) -> Candidate:
        chosen = find_recipe("ort-u8s8")
        report = compare("detect", teacher, student, GateLimits(), chosen.name)
        return Candidate(recipe=chosen, parts={}, judgement=Judgement(report=report), latency_ms=1.0, bytes=1)

    return make


def refused(teacher: Sequence[Answer], student: Sequence[Answer]) -> AccuracyGateError:
    order = RecipeOrder(first=(find_recipe("ort-u8s8"),), exact=True)
    with pytest.raises(AccuracyGateError) as caught:
        search(order, judged(teacher, student), lambda _: ())
    return caught.value


def found_by(model: Model, data: Data) -> Sequence[Answer]:
    return answers(model, sorted((data.labelled / "images").iterdir()), "judging")


@pytest.fixture(scope="module")
def teacher(trained: Bundle, data: Data) -> Sequence[Answer]:
    with edgecv.load(trained.path, variant="onnx-fp32") as model:
        return found_by(model, data)


def test_a_zeroed_layer_is_refused(trained: Bundle, data: Data, teacher: Sequence[Answer], tmp_path: Path) -> None:
    shutil.copytree(trained.path, tmp_path / "zeroed.ecv")
    variant = next(variant for variant in trained.variants if variant.name == "onnx-int8")
    path = tmp_path / "zeroed.ecv" / variant.models["main"].files[0].path
    graph = onnx.load(path)
    weights = [tensor for tensor in graph.graph.initializer if len(tensor.dims) == 4 and tensor.dims[0] == 64]
    weights[3].CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(weights[3])), weights[3].name))
    onnx.save(graph, path)
    files = variant.models["main"]
    from edgecv import registry

    session = registry.resolve("runtimes", "onnxruntime")(path, runtime_options(), files.inputs, files.outputs)
    with Model("zeroed", trained.spec, session) as model:
        error = refused(teacher, found_by(model, data))
    assert error.exit_code == 3
    assert "f1_50" in error.message


def test_the_quantizers_default_arguments_are_refused(
    yolov8n: Path, trained: Bundle, data: Data, tmp_path: Path
) -> None:
    """onnxruntime's own recipe over a whole export: boxes and scores share one scale, which leaves scores of 0 and more than 1."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    ultralytics_import.tasks()
    from ultralytics import YOLO

    shutil.copy(yolov8n, tmp_path / "y.pt")
    exported = Path(YOLO(tmp_path / "y.pt").export(format="onnx", imgsz=SIDE, verbose=False))
    spec = trained.spec.preprocess

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = sorted(data.calibration.iterdir())[:8]

        def get_next(self) -> dict[str, np.ndarray] | None:
            if not self.left:
                return None
            image = fit(read_image(self.left.pop()), spec)[0]
            return {"images": np.ascontiguousarray(image[None, ..., ::-1].transpose(0, 3, 1, 2), np.float32) / 255}

    quantize_static(str(exported), str(tmp_path / "default.onnx"), Images())
    student = onnx.load(tmp_path / "default.onnx")
    for key in onnx.load(exported).metadata_props:
        student.metadata_props.add(key=key.key, value=key.value)
    onnx.save(student, tmp_path / "default.onnx")
    with (
        edgecv.load(tmp_path / "default.onnx") as model,
        pytest.raises(SpecMismatch, match="a confidence lies between 0 and 1"),
    ):
        found_by(model, data)


def test_the_same_models_pass_when_nothing_is_broken(trained: Bundle, data: Data, teacher: Sequence[Answer]) -> None:
    variant = next(variant for variant in trained.variants if variant.name == "onnx-int8")
    with open_variant(trained, variant, runtime_options(), "onnxruntime") as model:
        student = found_by(model, data)
    order = RecipeOrder(first=(find_recipe("ort-u8s8"),), exact=True)
    assert search(order, judged(teacher, student), lambda _: ()).attempts[0].passed
