"""``--batch N``: files that take N images per run, and the same answers as one image at a time."""

from __future__ import annotations

import shutil
from pathlib import Path
from subprocess import CompletedProcess

import cv2
import numpy as np
import onnx
import pytest

import edgecv
from edgecv._internal.quiet import quiet
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.golden import verify
from edgecv.choosing import runnable, runtime_options
from edgecv.converters.batch import batched
from edgecv.converters.families.foreign_onnx.open import open_onnx
from edgecv.converters.families.ultralytics_import import tasks
from edgecv.converters.source import SourceOptions
from edgecv.errors import ConfigError, UnsupportedSource
from edgecv.media.images import read_image
from edgecv.model import open_variant
from edgecv.results import Classification, Detections, Image
from edgecv.specs import RuntimeOptions
from tests.command_line import run_here
from tests.conftest import SHARED
from tests.models import SPEC, detector

pytest.importorskip("litert_torch")
pytest.importorskip("nncf")

FORMATS = ("onnx", "openvino", "tflite")
SIDE = 64
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index in range(23):
        small = rng.integers(0, 256, (6, 8, 3), np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), cv2.resize(small, (80, 60), interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.fixture(scope="module")
def frames(images: Path) -> list[Image]:
    return [read_image(images / f"{index}.png") for index in range(3)]


PAIRS = [
    pytest.param(("resnet20", FORMATS[:2]), id="resnet20"),
    pytest.param(("resnet18", FORMATS), id="resnet18", marks=pytest.mark.slow),
    pytest.param(("yolov8n.yaml", FORMATS), id="yolov8n", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=PAIRS)
def pair(request: pytest.FixtureRequest, images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, ...]:
    """The same weights for one image per run, and for two."""
    folder = tmp_path_factory.mktemp("batch")
    source, formats = request.param
    real = source == "resnet20"  # real weights, a few seconds
    return tuple(
        edgecv.convert(
            request.getfixturevalue("resnet20") if real else source,
            formats=formats,
            precision="int8" if batch == 2 else "fp32",
            calibration=SHARED / "data/cifar10-jpeg/calibration" if real else images,
            imgsz=None if real else SIDE,
            out=folder / f"{batch}.ecv",
            options=edgecv.SourceOptions(random_weights=not real, batch=batch),
            int8=edgecv.Int8Options(effort="standard" if real else "quick"),
        )
        for batch in (1, 2)
    )


def same(ours: Detections | Classification, theirs: Detections | Classification, atol: float) -> None:
    assert len(ours) == len(theirs) > 0
    assert np.allclose(ours.confidence, theirs.confidence, atol=atol)
    if isinstance(ours, Detections) and isinstance(theirs, Detections):
        assert np.allclose(ours.xyxy, theirs.xyxy, atol=max(atol, 1e-2))


def test_every_file_takes_two_images(pair: tuple[Bundle, ...]) -> None:
    formats = [variant.format for variant in pair[1].variants[::2]]
    assert formats == list(FORMATS[: len(formats)])
    assert [variant.name for variant in pair[1].variants] == [f"{f}-{p}" for f in formats for p in ("fp32", "int8")]
    for variant in pair[1].variants:
        files = variant.models["main"]
        width, height = variant.size_wh
        assert files.inputs[0].shape == (2, height, width, 3)
        assert {spec.shape[0] for spec in files.outputs} == {2}
        assert variant.latency_ms > 0
    assert {verdict.status for verdict in verify(pair[1])} == {"ok"}


def test_float_gives_the_answers_of_one_image_per_run(pair: tuple[Bundle, ...], frames: list[Image]) -> None:
    options = runtime_options(precision="fp32")
    for (single, runtime), (double, _) in zip(*(runnable(bundle, options) for bundle in pair), strict=True):
        with (
            open_variant(pair[0], single, RuntimeOptions(), runtime) as one,
            open_variant(pair[1], double, RuntimeOptions(), runtime) as two,
        ):
            assert (one.batch, two.batch) == (1, 2)
            wanted = [one(image, confidence=1e-5, max_detections=20) for image in frames]
            for model in (one, two):
                found = model.many(frames, confidence=1e-5, max_detections=20)
                for ours, theirs in zip(found, wanted, strict=True):
                    same(ours, theirs, 1e-3)
            same(two(frames[2], confidence=1e-5, max_detections=20), wanted[2], 1e-3)


def test_int8_answers_do_not_depend_on_the_row(pair: tuple[Bundle, ...], frames: list[Image]) -> None:
    options = runtime_options(precision="int8")
    for variant, runtime in runnable(pair[1], options):
        with open_variant(pair[1], variant, options, runtime) as model:
            found = model.many(frames, confidence=1e-5, max_detections=20)
            for ours, image in zip(found, frames, strict=True):
                same(ours, model(image, confidence=1e-5, max_detections=20), 1e-6)
            assert model.many([]) == []


@pytest.mark.slow
def test_fp16_takes_a_batch_too(tmp_path: Path) -> None:
    made = edgecv.convert(
        "resnet18",
        formats=FORMATS,
        precision="fp16",
        imgsz=SIDE,
        out=tmp_path / "h.ecv",
        options=edgecv.SourceOptions(random_weights=True, batch=3),
    )
    assert {variant.models["main"].inputs[0].shape[0] for variant in made.variants} == {3}
    assert {verdict.status for verdict in verify(made)} == {"ok"}


@pytest.mark.parametrize("model_format", ["onnx", "openvino"])
def test_a_graph_for_one_image_becomes_one_for_two(resnet20: Path, tmp_path: Path, model_format: str) -> None:
    made = edgecv.convert(
        resnet20,
        formats=(model_format,),
        precision="fp32",
        out=tmp_path / "r.ecv",
        options=edgecv.SourceOptions(batch=2),
    )
    with edgecv.load(made.path) as model:
        assert model.batch == 2
        frames = [np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8) for seed in range(3)]
        for found, image in zip(model.many(frames), frames, strict=True):
            same(found, model(image), 1e-5)


def rigid(source: Path, path: Path) -> Path:
    """A classifier whose last reshape counts on one image."""
    model = onnx.load(str(source))
    output = model.graph.output[0].name
    last = next(node for node in model.graph.node if output in node.output)
    last.output[0] = "scores"
    classes = 10
    onnx.helper.set_model_props(model, {})
    model.graph.initializer.extend(
        [
            onnx.numpy_helper.from_array(np.array([classes]), "flat"),
            onnx.numpy_helper.from_array(np.array([1, classes]), "row"),
        ]
    )
    model.graph.node.extend(
        [
            onnx.helper.make_node("Reshape", ["scores", "flat"], ["vector"]),
            onnx.helper.make_node("Reshape", ["vector", "row"], [output]),
        ]
    )
    onnx.save(model, str(path))
    return path


def test_a_graph_that_cannot_be_changed_says_so(resnet20: Path, tmp_path: Path) -> None:
    path = rigid(resnet20, tmp_path / "rigid.onnx")
    assert batched(open_onnx(path, SourceOptions()), 1).batch == 1
    with pytest.raises(UnsupportedSource, match="exported for one image") as caught:
        batched(open_onnx(path, SourceOptions()), 2)
    assert "--batch" in caught.value.hint


def test_an_export_for_two_images_becomes_one_for_any_number(yolov8n: Path, tmp_path: Path) -> None:
    tasks()
    from ultralytics import YOLO

    checkpoint = Path(shutil.copy(yolov8n, tmp_path / "real.pt"))
    with quiet():
        path = Path(YOLO(str(checkpoint)).export(format="onnx", imgsz=96, batch=2, simplify=False, verbose=False))
    assert batched(open_onnx(path, SourceOptions()), 3).parts[0].outputs[0].shape[0] == 3
    assert open_onnx(path, SourceOptions()).batch == 1


@pytest.mark.parametrize("batch", [0, -1, 65])
def test_batches_that_cannot_be_are_refused(batch: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch size must be 1 to 64"):
        edgecv.convert(
            "resnet18",
            precision="fp32",
            out=tmp_path / "r.ecv",
            options=edgecv.SourceOptions(random_weights=True, batch=batch),
        )
    assert list(tmp_path.iterdir()) == []


def command(*arguments: str) -> CompletedProcess[str]:
    return run_here("convert", *arguments)


def test_the_command_refuses_and_explains_batches() -> None:
    assert command("resnet18", "--random-weights", "--batch", "0").returncode == 2
    assert command("resnet18", "--batch", "65", "--explain").returncode == 2
    assert "4 images per run" in command("resnet18", "--batch", "4", "--explain").stdout


def test_a_bare_file_of_another_shape_of_outputs_is_refused(tmp_path: Path) -> None:
    model = onnx.load(str(detector(tmp_path / "one.onnx")))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    path = tmp_path / "two.onnx"
    onnx.save(model, str(path))
    with pytest.raises(edgecv.EdgeCVError):
        edgecv.load(path, spec=SPEC)
