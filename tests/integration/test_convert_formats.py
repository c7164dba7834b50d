"""Every family × format × precision with its smallest member: converted, proven, replayed, and giving the same answers."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgecv
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.golden import GOLDEN, verify
from edgecv.choosing import runnable, runtime_options
from edgecv.errors import BundleError, UnsupportedSource
from edgecv.media.images import read_image
from edgecv.model import open_variant
from edgecv.specs import RuntimeOptions
from tests.conftest import CHECKOUT, SHARED
from tests.models import checked_path

pytest.importorskip("litert_torch")
pytest.importorskip("nncf")
pytestmark = pytest.mark.timeout(900)  # the fixture makes nine variants of a network

FORMATS = ("onnx", "openvino", "tflite")
SIDE = 64


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index in range(24):
        small = rng.integers(0, 256, (6, 8, 3), np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), cv2.resize(small, (80, 60), interpolation=cv2.INTER_CUBIC))
    return folder


_UNTRAINED = [pytest.param(name, marks=pytest.mark.slow) for name in ("yolov8n.yaml", "resnet18")]


# The trained YOLOv8n is the one that test_every_variant_agrees.py reads, too.
@pytest.fixture(scope="module", params=["trained", *_UNTRAINED])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    if request.param == "trained":
        trained: Bundle = request.getfixturevalue("trained")
        return trained
    images, factory = (request.getfixturevalue(name) for name in ("images", "tmp_path_factory"))
    return edgecv.convert(
        request.param,
        formats=FORMATS,
        precision=("int8", "fp16"),
        calibration=images,
        imgsz=SIDE,
        options=edgecv.SourceOptions(random_weights=True),
        int8=edgecv.Int8Options(effort="quick"),
        out=factory.mktemp("formats") / "all.ecv",
    )


def test_every_format_has_every_precision(bundle: Bundle) -> None:
    precisions = ("fp32", "fp16", "int8")
    assert [variant.name for variant in bundle.variants] == [f"{f}-{p}" for f in FORMATS for p in precisions]
    for variant in bundle.variants[2::3]:
        assert variant.recipe
        if "f1_50" not in variant.metrics:  # the trained detector is judged by its boxes
            assert variant.metrics["output_cosine"] > (0.99 if bundle.manifest.family == "resnet" else 0.8)


def test_int8_files_are_small(bundle: Bundle) -> None:
    sizes = {v.name: sum(entry.bytes for entry in v.models["main"].files) for v in bundle.variants}
    for name in FORMATS:
        assert sizes[f"{name}-int8"] < 0.4 * sizes[f"{name}-fp32"]


def test_golden_vectors_replay_on_this_machine(bundle: Bundle) -> None:
    verdicts = verify(bundle)
    assert [(v.variant, v.status) for v in verdicts] == [(v.name, "ok") for v in bundle.variants]


def test_the_model_card_names_every_variant(bundle: Bundle) -> None:
    card = (bundle.path / "MODEL_CARD.md").read_text()
    assert all(variant.name in card for variant in bundle.variants)
    assert bundle.manifest.source.sha256 in card


def test_float_variants_give_the_same_answers(bundle: Bundle, images: Path) -> None:
    image = read_image(images / "0.png")
    options = runtime_options(precision="fp32")
    answers = []
    for variant, runtime in runnable(bundle, options):
        with open_variant(bundle, variant, RuntimeOptions(), runtime) as model:
            answers.append(model(image, confidence=1e-5))
    lowest = min(len(answer) for answer in answers)
    assert len(answers) == 3
    assert lowest > 0
    for answer in answers[1:]:
        assert np.allclose(answer.confidence[:1], answers[0].confidence[:1], atol=2e-3)


def test_a_changed_element_of_the_weights_is_seen_by_verify(bundle: Bundle, tmp_path: Path) -> None:
    edgecv.Bundle.open(bundle.path)
    copy = tmp_path / "copy.ecv"
    subprocess.run(["cp", "-r", str(bundle.path), str(copy)], check=True)
    content = bytearray((copy / GOLDEN).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (copy / GOLDEN).write_bytes(content)
    with pytest.raises(BundleError, match="sha256"):
        verify(Bundle.open(copy))


def test_the_command_says_ok_per_variant(bundle: Bundle) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgecv", "verify", str(bundle.path), "--json"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    assert {row["status"] for row in json.loads(done.stdout)["variants"]} == {"ok"}


def test_fp16_halves_the_files_and_keeps_the_outputs(bundle: Bundle) -> None:
    sizes = {v.name: sum(entry.bytes for entry in v.models["main"].files) for v in bundle.variants}
    metrics = {v.name: v.metrics for v in bundle.variants}
    for name in FORMATS:
        assert sizes[f"{name}-fp16"] < 0.6 * sizes[f"{name}-fp32"]
        assert metrics[f"{name}-fp16"]["source_cosine"] >= 0.9999


CIFAR = SHARED / "data/cifar10-jpeg"


@pytest.fixture(scope="module")
def classifier(resnet20: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    names = sorted(path.name for path in (CIFAR / "val").iterdir())
    out = tmp_path_factory.mktemp("resnet20") / "r.ecv"
    return edgecv.convert(
        resnet20,
        formats=("onnx", "openvino"),
        calibration=CIFAR / "calibration",
        out=out,
        options=edgecv.SourceOptions(labels=names),
    )


def test_a_classifier_from_elsewhere_keeps_its_accuracy(classifier: Bundle) -> None:
    assert classifier.manifest.assumptions
    paths = [path for folder in sorted((CIFAR / "val").iterdir()) for path in sorted(folder.iterdir())]
    assert len(paths) == 1000
    options = runtime_options()
    right = {}
    for variant, runtime in runnable(classifier, options):
        with open_variant(classifier, variant, options, runtime) as model:
            right[variant.name] = sum(
                model.labels[model(read_image(path)).class_id[0]] == path.parent.name for path in paths
            )
    assert right["onnx-fp32"] > 0.75 * len(paths)
    for name in ("onnx", "openvino"):
        assert right[f"{name}-int8"] >= right[f"{name}-fp32"] - 0.005 * len(paths)


def test_the_recipe_of_a_bundle_makes_the_same_bytes_again(classifier: Bundle, resnet20: Path, tmp_path: Path) -> None:
    stored = classifier.path / "onnx-int8/recipe.json"
    again = edgecv.convert(
        resnet20,
        calibration=CIFAR / "calibration",
        out=tmp_path / "again.ecv",
        int8=edgecv.Int8Options(recipes=[stored]),
    )
    first, second = (
        next(checked_path(one, v).read_bytes() for v in one.variants if v.name == "onnx-int8")
        for one in (classifier, again)
    )
    assert first == second
    assert again.read_extra("onnx-int8/recipe.json") == stored.read_bytes()


def test_a_variant_for_another_cpu_class_is_judged_here_and_left_alone_by_auto(resnet20: Path, tmp_path: Path) -> None:
    made = edgecv.convert(
        resnet20,
        calibration=CIFAR / "calibration",
        out=tmp_path / "arm.ecv",
        int8=edgecv.Int8Options(cpu_class="arm64"),
    )
    float32, arm = made.variants
    assert (arm.name, arm.cpu_class) == ("onnx-int8-arm64", "arm64")
    assert arm.metrics["top1_agreement"] > 0.8
    if platform.machine() == "x86_64":
        with edgecv.load(made.path) as model:
            assert model.variant == float32
    with edgecv.load(made.path, variant="onnx-int8-arm64") as model:
        assert model.variant == arm


def test_tflite_from_an_onnx_says_to_give_the_checkpoint(tmp_path: Path, resnet20: Path) -> None:
    with pytest.raises(UnsupportedSource) as caught:
        edgecv.convert(resnet20, formats=("tflite",), precision="fp32", out=tmp_path / "r.ecv")
    assert "checkpoint" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_with_keep_going_the_formats_that_succeed_are_written(tmp_path: Path, resnet20: Path) -> None:
    told: list[str] = []
    made = edgecv.convert(
        resnet20,
        formats=("tflite", "onnx"),
        precision="fp32",
        keep_going=True,
        out=tmp_path / "r.ecv",
        progress=lambda step, *_: told.append(step),
    )
    assert [variant.name for variant in made.variants] == ["onnx-fp32"]
    assert any("tflite failed" in step for step in told)
    assert not list(made.path.glob("tflite*"))
