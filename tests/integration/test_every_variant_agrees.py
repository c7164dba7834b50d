"""The trained detector in every format and precision: the same photograph gives the same detections, within stated bounds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgecv.bundles.bundle import Bundle
from edgecv.bundles.golden import verify
from edgecv.choosing import runtimes_for
from edgecv.media.images import read_image
from edgecv.model import open_variant
from edgecv.quantize.gate.boxes import agreement
from edgecv.quantize.recipes import GateLimits
from edgecv.results import Detections
from edgecv.specs import RuntimeOptions
from edgecv.vision.nms import iou_one_to_many
from tests.integration.trained import FORMATS, UNSEEN

pytest.importorskip("litert_torch")
pytest.importorskip("nncf")
pytestmark = pytest.mark.timeout(900)  # the fixture makes nine variants

# Of a float variant against the fp32 ONNX file, per box: overlap, confidence.
FLOAT_BOUNDS = {"fp32": (0.999, 1e-3), "fp16": (0.97, 0.02)}


@pytest.fixture(scope="module")
def found(trained: Bundle, coco_images: list[Path]) -> dict[str, list[Detections]]:
    """What each variant finds in photographs that calibration did not see."""
    images = [read_image(path) for path in coco_images[-UNSEEN:]]
    answers = {}
    for variant in trained.variants:
        runtime = runtimes_for(variant.format)[0]
        with open_variant(trained, variant, RuntimeOptions(), runtime) as model:
            answers[variant.name] = [model(image) for image in images]
    return answers


def test_every_format_has_every_precision_and_its_proof(trained: Bundle) -> None:
    assert [variant.name for variant in trained.variants] == [
        f"{f}-{p}" for f in FORMATS for p in ("fp32", "fp16", "int8")
    ]
    for variant in trained.variants:
        if variant.precision == "int8":
            assert variant.recipe
            assert variant.metrics["f1_50"] >= GateLimits().f1_50
        else:
            assert variant.metrics["source_cosine"] >= 0.9999
            assert variant.metrics["source_worst"] < 0.05
            parity = json.loads(trained.read_extra(f"{variant.name}/parity.json"))
            assert [one["name"] for one in parity] == [f"{k}_{s}" for s in (8, 16, 32) for k in ("box", "class")]


def test_int8_is_less_than_a_third_of_float(trained: Bundle) -> None:
    sizes = {v.name: sum(entry.bytes for entry in v.models["main"].files) for v in trained.variants}
    for name in FORMATS:
        assert sizes[f"{name}-int8"] <= 0.30 * sizes[f"{name}-fp32"]
        assert sizes[f"{name}-fp16"] < 0.6 * sizes[f"{name}-fp32"]


def test_golden_vectors_replay_on_this_machine(trained: Bundle) -> None:
    assert [(v.variant, v.status) for v in verify(trained)] == [(v.name, "ok") for v in trained.variants]


def test_there_is_something_to_agree_on(found: dict[str, list[Detections]]) -> None:
    assert len(found) == 9
    assert sum(len(one) for one in found["onnx-fp32"]) > 60


@pytest.mark.parametrize("precision", FLOAT_BOUNDS)
@pytest.mark.parametrize("model_format", FORMATS)
def test_float_variants_find_the_same_boxes(
    model_format: str, precision: str, trained: Bundle, found: dict[str, list[Detections]]
) -> None:
    overlap, confidence = FLOAT_BOUNDS[precision]
    # A box at the limit of confidence may be on either side of it.
    sure = trained.manifest.decode.confidence + confidence
    for wanted, given in zip(found["onnx-fp32"], found[f"{model_format}-{precision}"], strict=True):
        for one, other in ((wanted, given), (given, wanted)):
            for at in np.flatnonzero(one.confidence > sure):
                ious = iou_one_to_many(one.xyxy[at], other.xyxy) * (other.class_id == one.class_id[at])
                assert ious.max() > overlap
                assert abs(other.confidence[ious.argmax()] - one.confidence[at]) < confidence


@pytest.mark.parametrize("model_format", FORMATS)
def test_int8_finds_what_float_finds(model_format: str, found: dict[str, list[Detections]]) -> None:
    agreed = agreement(list(zip(found["onnx-fp32"], found[f"{model_format}-int8"], strict=True)))
    assert agreed.f1_50 > 0.85
    assert agreed.matched_iou > 0.9
    assert abs(agreed.score_bias) < 0.05
