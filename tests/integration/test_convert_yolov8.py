"""``edgecv.convert`` on the real checkpoint and real photographs, at a small input size."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import onnx
import pytest

import edgecv
from edgecv._internal.quiet import quiet
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.golden import golden_inputs, verify
from edgecv.bundles.manifest import Variant
from edgecv.converters.families.ultralytics_import import tasks
from edgecv.errors import AccuracyGateError, CalibrationError, ConfigError, EdgeCVError, UnsupportedSource
from edgecv.media.images import read_image
from edgecv.quantize.gate.accuracy_gate import GateReport
from edgecv.quantize.gate.boxes import agreement
from edgecv.quantize.recipe_files import find_recipe
from edgecv.quantize.recipes import GateLimits
from edgecv.quantize.record import QuantizationRecord
from edgecv.quantize.sensitivity import COSTED, Sensitivity
from edgecv.results import Detections
from edgecv.vision.nms import iou_matrix
from tests.conftest import SHARED, names_in
from tests.integration.trained import CALIBRATION, FORMATS, SIDE, UNSEEN, Data
from tests.models import checked_path, write_bundle

pytestmark = pytest.mark.timeout(900)  # it may wait for the conversion that several files share


@pytest.fixture
def calibration(data: Data) -> Path:
    return data.calibration


def variant_of(bundle: Bundle, name: str) -> Variant:
    return next(variant for variant in bundle.variants if variant.name == name)


def size_of(bundle: Bundle, name: str) -> int:
    variant = next(v for v in bundle.variants if v.name == name)
    return sum(entry.bytes for model in variant.models.values() for entry in model.files)


def test_the_bundle_holds_its_variants_and_opens_again(trained: Bundle) -> None:
    variants = [f"{name}-{precision}" for name in FORMATS for precision in ("fp32", "fp16", "int8")]
    assert names_in(trained.path.parent) == ["yolov8n.ecv"]
    assert names_in(trained.path) == sorted(
        ["MODEL_CARD.md", "bundle.json", "golden.npz", "quantization.json", "report.html", *variants]
    )
    again = Bundle.open(trained.path)
    assert again.manifest == trained.manifest
    assert [v.name for v in again.variants] == variants
    assert all(checked_path(again, variant).is_file() for variant in again.variants)


def test_the_bundle_says_where_it_comes_from(trained: Bundle, yolov8n: Path) -> None:
    manifest = trained.manifest
    assert manifest.source.file == yolov8n.name
    assert manifest.licence == "AGPL-3.0"
    assert manifest.calibration is not None
    assert (manifest.calibration.images, manifest.calibration.held_out) == (CALIBRATION, CALIBRATION // 4)
    assert {"edgecv", "onnx", "onnxruntime", "torch"} <= manifest.tools.keys()
    assert {variant.size_wh for variant in trained.variants} == {(SIDE, SIDE)}
    assert manifest.decode.labels[0] == "person"


def test_the_gate_figures_lie_within_their_limits(trained: Bundle) -> None:
    int8 = variant_of(trained, "onnx-int8")
    limits = GateLimits()
    assert int8.metrics["f1_50"] >= limits.f1_50
    assert int8.metrics["f1_75"] >= limits.f1_75
    assert int8.metrics["matched_iou"] >= limits.matched_iou
    assert abs(int8.metrics["score_bias"]) <= limits.score_bias
    assert int8.recipe
    assert int8.cpu_class == "x86-vnni"
    assert int8.latency_ms > 0


def test_int8_is_less_than_a_third_of_float(trained: Bundle) -> None:
    assert size_of(trained, "onnx-int8") <= 0.30 * size_of(trained, "onnx-fp32")


def test_int8_finds_what_float_finds_on_photographs_it_never_saw(trained: Bundle, coco_images: list[Path]) -> None:
    with (
        edgecv.load(trained.path, variant="onnx-fp32") as teacher,
        edgecv.load(trained.path, variant="onnx-int8") as student,
    ):
        assert (teacher.name, student.name) == ("yolov8n/onnx-fp32", "yolov8n/onnx-int8")
        images = [read_image(path) for path in coco_images[-UNSEEN:]]
        pairs = [(detections(teacher, image), detections(student, image)) for image in images]
    found = agreement(pairs)
    assert found.teacher_boxes > 50
    assert found.f1_50 > 0.85
    assert found.matched_iou > 0.9
    assert abs(found.score_bias) < 0.05


def detections(model: edgecv.Model, image: np.ndarray) -> Detections:
    found = model(image)
    assert isinstance(found, Detections)
    return found


def test_int8_outputs_are_integers_with_a_scale_each(trained: Bundle) -> None:
    outputs = variant_of(trained, "onnx-int8").models["main"].outputs
    assert len(outputs) == 6
    assert {o.dtype for o in outputs} == {"uint8"}
    assert len({o.scale for o in outputs}) == 6


def read(bundle: Bundle, name: str, kind: type[Any]) -> Any:
    return msgspec.json.decode(bundle.read_extra(name), type=kind)


def test_what_was_tried_is_recorded(trained: Bundle) -> None:
    record = read(trained, "quantization.json", QuantizationRecord)
    assert trained.manifest.calibration is not None
    assert record.calibration.sha256 == trained.manifest.calibration.sha256
    assert record.threshold is not None
    assert trained.manifest.decode.confidence == record.threshold.after
    assert [found.format for found in record.formats] == list(FORMATS)
    for found in record.formats:
        chosen = next(attempt for attempt in found.attempts if attempt.recipe == found.chosen)
        assert chosen.passed
        kept = variant_of(trained, f"{found.format}-int8")
        assert {check.metric: round(check.value, 4) for check in chosen.checks} == kept.metrics
        assert chosen.bytes == size_of(trained, f"{found.format}-int8")
        assert found.float_bytes == size_of(trained, f"{found.format}-fp32")


@pytest.mark.parametrize(
    ("source", "least"),
    [
        pytest.param("resnet20", 19, id="resnet20"),
        pytest.param("yolov8n", 60, id="yolov8n", marks=pytest.mark.slow),
    ],
)
def test_the_analysis_lists_every_layer_and_the_cost_of_the_most_sensitive(
    source: str, least: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path: Path = request.getfixturevalue(source)
    images = (
        SHARED / "data/cifar10-jpeg/calibration" if source == "resnet20" else request.getfixturevalue("calibration")
    )
    size = {} if source == "resnet20" else {"imgsz": SIDE}
    made = edgecv.convert(
        path,
        precision="int8",
        calibration=images,
        out=tmp_path / "a.ecv",
        int8=edgecv.Int8Options(analyze=True),
        **size,
    )
    (found,) = read(made, "sensitivity.json", Sensitivity).variants
    assert (found.variant, found.recipe) == ("onnx-int8", made.variants[1].recipe)
    assert len(found.layers) >= least
    figures = [layer.sqnr_db for layer in found.layers]
    assert figures == sorted(figures)
    assert 0 < figures[0] < figures[-1] < 60
    assert sum(layer.float_cost_ms is not None for layer in found.layers) == COSTED


@pytest.mark.slow  # test_convert_formats.py has it with a smaller network
def test_the_recipe_of_a_bundle_makes_the_same_bytes_again(
    trained: Bundle, yolov8n: Path, calibration: Path, tmp_path: Path
) -> None:
    stored = trained.path / "onnx-int8/recipe.json"
    assert find_recipe(str(stored)).name == variant_of(trained, "onnx-int8").recipe
    out = tmp_path / "again.ecv"
    again = edgecv.convert(
        yolov8n, calibration=calibration, imgsz=SIDE, out=out, int8=edgecv.Int8Options(recipes=[stored])
    )
    first, second = (checked_path(one, variant_of(one, "onnx-int8")).read_bytes() for one in (trained, again))
    assert first == second
    assert again.read_extra("onnx-int8/recipe.json") == stored.read_bytes()
    assert len(read(again, "quantization.json", QuantizationRecord).formats[0].attempts) == 1


@pytest.mark.slow  # test_convert_formats.py has it with a smaller network
def test_an_arm64_variant_is_judged_here_and_left_alone_by_auto(
    yolov8n: Path, calibration: Path, tmp_path: Path
) -> None:
    made = edgecv.convert(
        yolov8n,
        calibration=calibration,
        imgsz=SIDE,
        out=tmp_path / "arm.ecv",
        int8=edgecv.Int8Options(cpu_class="arm64"),
    )
    float32, arm = made.variants
    assert (arm.name, arm.cpu_class) == ("onnx-int8-arm64", "arm64")
    assert {output.dtype for output in arm.models["main"].outputs} == {"int8"}
    assert arm.metrics["f1_50"] >= GateLimits().f1_50
    if platform.machine() == "x86_64":
        with edgecv.load(made.path) as model:
            assert model.variant == float32
    with edgecv.load(made.path, variant="onnx-int8-arm64") as model:
        assert model.variant == arm


def written(folder: Path, make: Callable[[int], np.ndarray], count: int = 20) -> Path:
    folder.mkdir()
    for index in range(count):
        assert cv2.imwrite(str(folder / f"{index}.png"), make(index))
    return folder


def black(index: int) -> np.ndarray:
    image = np.zeros((64, 64, 3), np.uint8)
    image[0, index, 0] = 1  # different images, by a pixel nobody sees
    return image


def noise(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (64, 64, 3), np.uint8)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda _: np.zeros((64, 64, 3), np.uint8), "1 different images"),
        (black, "only 1 that differ visibly"),
        (noise, r"finds only \d+ objects"),
    ],
    ids=["copies", "black", "noise"],
)
def test_images_that_show_the_model_nothing_are_refused(yolov8n: Path, tmp_path: Path, make, named: str) -> None:
    images = written(tmp_path / "images", make)
    with pytest.raises(CalibrationError, match=named) as caught:
        edgecv.convert(yolov8n, calibration=images, imgsz=64, out=tmp_path / "out.ecv")
    assert caught.value.exit_code == 1
    assert names_in(tmp_path) == ["images"]


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"source": "missing.pt"}, UnsupportedSource, "does not exist"),
        ({"source": "model.tflite"}, UnsupportedSource, "a finished TFLite model"),
        ({"precision": "int4"}, ConfigError, "int4"),
        ({"precision": "int8", "calibration": None}, ConfigError, "calibration images"),
        ({"formats": ()}, ConfigError, "No format"),
        ({"int8": {"recipes": ("ort-u8s9",)}}, ConfigError, "ort-u8s9"),
        ({"int8": {"recipes": ("ov-mixed",)}}, ConfigError, "for openvino"),
        ({"int8": {"cpu_class": "arm"}}, ConfigError, "no CPU class 'arm'"),
        ({"precision": "fp16", "int8": {"cpu_class": "arm64"}}, ConfigError, "for INT8"),
        ({"formats": ("onx",)}, EdgeCVError, "onx"),
        ({"imgsz": 100}, ConfigError, "multiple of 32"),
        ({"calibration": "missing"}, CalibrationError, "not a folder"),
        ({"out": "missing/out.ecv"}, ConfigError, "does not exist"),
        ({"out": "/proc/self/out.ecv"}, ConfigError, "cannot be written"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused_before_any_work(
    yolov8n: Path, calibration: Path, tmp_path: Path, changes: dict[str, Any], error, named: str, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"source": yolov8n, "calibration": calibration, "out": tmp_path / "out.ecv"} | changes
    with pytest.raises(error, match=named):
        int8 = edgecv.Int8Options(**given.pop("int8", {}))
        edgecv.convert(given.pop("source"), int8=int8, **given)
    assert names_in(tmp_path) == []


@pytest.fixture(scope="module")
def forced(yolov8n: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, list[tuple[str, int, int]]]:
    """What replaced another bundle, the trained model with a square and a 4:3 input, and the steps that were told."""
    out = tmp_path_factory.mktemp("forced") / "out.ecv"
    write_bundle(out)
    told: list[tuple[str, int, int]] = []
    made = edgecv.convert(
        yolov8n,
        precision="fp32",
        imgsz=128,
        fit=("4:3", "1:1", "8:6"),  # two of them are one, and one is the model's own
        out=out,
        force=True,
        progress=lambda *step: told.append(step),
    )
    return made, told


def test_an_existing_target_needs_force_and_stays_until_the_new_one_is_there(
    yolov8n: Path, tmp_path: Path, forced: tuple[Bundle, list[tuple[str, int, int]]]
) -> None:
    out = tmp_path / "out.ecv"
    write_bundle(out)
    before = names_in(out)
    with pytest.raises(ConfigError, match="exists already"):
        edgecv.convert(yolov8n, precision="fp32", imgsz=64, out=out)
    with pytest.raises(UnsupportedSource):
        edgecv.convert(tmp_path / "missing.pt", precision="fp32", out=out, force=True)
    assert names_in(out) == before
    made, told = forced
    assert names_in(made.path.parent) == ["out.ecv"]
    assert made.manifest.calibration is None
    for step in ("Reading the model", "Timing onnx-fp32", "Timing onnx-fp32-128x96"):
        assert [(done, total) for name, done, total in told if name == step] == [(0, 1), (1, 1)]
    assert [done for name, done, _ in told if name == "Exporting onnx fp32"] == [0, 1, 0, 1]


def test_each_shape_is_a_variant_of_its_own_and_the_models_own_comes_first(
    forced: tuple[Bundle, list[tuple[str, int, int]]],
) -> None:
    made = forced[0]
    assert [(v.name, v.size_wh) for v in made.variants] == [("onnx-fp32", (128, 128)), ("onnx-fp32-128x96", (128, 96))]
    for variant in made.variants:
        files, (width, height) = variant.models["main"], variant.size_wh
        assert files.inputs[0].shape == (1, height, width, 3)
        assert {spec.shape[2:] for spec in files.outputs} == {(height // size, width // size) for size in (8, 16, 32)}
        assert variant.metrics["source_cosine"] > 0.9999
        (image,) = golden_inputs(made, variant)["main"].values()
        assert image.shape == (1, height, width, 3)
    assert {verdict.variant: verdict.status for verdict in verify(made)} == dict.fromkeys(
        ("onnx-fp32", "onnx-fp32-128x96"), "ok"
    )
    card = made.read_extra("MODEL_CARD.md").decode()
    assert "Images are brought to 128x128 or 128x96 (letterbox)" in card
    assert "| onnx-fp32-128x96 | 128x96 |" in card


def test_both_shapes_find_the_same_objects_in_pixels_of_the_photograph(
    forced: tuple[Bundle, list[tuple[str, int, int]]], coco_images: list[Path]
) -> None:
    images = [image for path in coco_images[:60] if (image := read_image(path)).shape[:2] == (480, 640)]
    with edgecv.load(forced[0].path) as square, edgecv.load(forced[0].path, fit=(640, 480)) as wide:
        assert (square.variant.size_wh, wide.variant.size_wh) == ((128, 128), (128, 96))
        sure = [square(image, confidence=0.5) for image in images]
        other = [wide(image, confidence=0.25) for image in images]
    agreed = [
        (iou_matrix(one.xyxy, two.xyxy) > 0.8) & (one.class_id[:, None] == two.class_id[None])
        for one, two in zip(sure, other, strict=True)
    ]
    found = sum(len(one) for one in sure)
    assert found > 15
    assert sum(int(pairs.any(axis=1).sum()) for pairs in agreed if pairs.size) >= 0.85 * found


def straying(exported: Path, out: Path) -> Path:
    """The same function in float, hopeless in eight bits: before many convolutions one channel is 10 000 times the others.

    The weights that take the loud channel are smaller by as much, so the sums stay what they were.
    """
    model = onnx.load(str(exported))
    graph = model.graph
    tensors = {t.name: t for t in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    factor = 1e4
    for node in graph.node:
        if node.op_type != "Conv" or made.get(node.input[0]) is None or made[node.input[0]].op_type != "Mul":
            continue
        weights = onnx.numpy_helper.to_array(tensors[node.input[1]]).copy()
        users = [user for user in graph.node if node.input[0] in user.input]
        if len(users) != 1 or weights.shape[1] < 32:
            continue
        gain = np.ones((1, weights.shape[1], 1, 1), np.float32)
        gain[0, 0] = factor
        weights[:, 0] /= factor
        tensors[node.input[1]].CopyFrom(onnx.numpy_helper.from_array(weights, node.input[1]))
        source = made[node.input[0]]
        loud = f"{node.input[0]}_loud"
        graph.initializer.append(onnx.numpy_helper.from_array(gain, f"{loud}_gain"))
        at = list(graph.node).index(source)
        graph.node.insert(at + 1, onnx.helper.make_node("Mul", [node.input[0], f"{loud}_gain"], [loud], name=loud))
        node.input[0] = loud
    del graph.value_info[:]
    onnx.checker.check_model(model)
    onnx.save(model, str(out))
    return out


@pytest.fixture(scope="module")
def stray(yolov8n: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tasks()
    from ultralytics import YOLO

    folder = tmp_path_factory.mktemp("stray")
    with quiet():
        copy = shutil.copy(yolov8n, folder / "real.pt")
        exported = Path(YOLO(copy).export(format="onnx", imgsz=SIDE, simplify=False, verbose=False))
    return straying(exported, folder / "stray.onnx")


def test_an_int8_model_that_strays_is_not_written(stray: Path, calibration: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.ecv"
    write_bundle(out)
    before = names_in(out)
    with pytest.raises(AccuracyGateError, match="No INT8 recipe") as caught:
        edgecv.convert(
            stray, calibration=calibration, out=out, force=True, int8=edgecv.Int8Options(recipes=["ort-u8s8"])
        )
    assert caught.value.exit_code == 3
    assert isinstance(caught.value.report, GateReport)
    assert not caught.value.report.passed
    assert "Nothing was written" in caught.value.hint
    assert "ort-u8s8: f1_50" in caught.value.message
    assert names_in(tmp_path) == ["out.ecv"]
    assert names_in(out) == before


@pytest.mark.slow
def test_recipes_that_lose_the_accuracy_give_way_to_the_next(stray: Path, calibration: Path, tmp_path: Path) -> None:
    quick = edgecv.Int8Options(effort="quick")
    made = edgecv.convert(stray, calibration=calibration, out=tmp_path / "out.ecv", int8=quick)
    (record,) = read(made, "quantization.json", QuantizationRecord).formats
    assert record.attempts[0].recipe == "ort-u8s8"
    assert [attempt.passed for attempt in record.attempts] == [False] * (len(record.attempts) - 1) + [True]
    assert all(attempt.reason for attempt in record.attempts[:-1])
    assert record.chosen == record.attempts[-1].recipe == made.variants[1].recipe
    assert not record.attempts[-1].reason  # whether or not it is faster here


def test_the_same_source_converts_to_float(stray: Path, tmp_path: Path) -> None:
    made = edgecv.convert(stray, precision="fp32", out=tmp_path / "out.ecv")
    assert made.sizes_wh == ((SIDE, SIDE),)
    assert [v.name for v in made.variants] == ["onnx-fp32"]
