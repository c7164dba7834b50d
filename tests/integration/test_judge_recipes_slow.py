"""``judge_recipes`` from a source to figures, with real conversions."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from edgecv.benchmarks.lab.recipes.asked import JudgeOptions
from edgecv.benchmarks.lab.recipes.judging import judge_recipes
from edgecv.benchmarks.lab.recipes.tables import picture_lines
from edgecv.quantize.recipe_files import dump_recipe
from edgecv.quantize.recipes import RECIPES, GateLimits
from tests.conftest import CHECKOUT

CIFAR = CHECKOUT.parent / "shared/data/cifar10-jpeg"

pytestmark = pytest.mark.slow


@pytest.mark.skipif(not CIFAR.is_dir(), reason="../shared/data/cifar10-jpeg is absent")
def test_recipes_of_a_classifier_are_judged_even_those_that_the_gate_refuses(resnet20: Path, tmp_path: Path) -> None:
    refused = msgspec.structs.replace(RECIPES["ort-u8s8"], name="refused", limits=GateLimits(top1_lower=1.0))
    file = tmp_path / "recipe.json"
    file.write_bytes(dump_recipe(refused))
    asked = JudgeOptions(
        recipes=("ort-u8s8", str(file)),
        seeds=2,
        calibration=CIFAR / "calibration",
        limit=200,
        bundles=tmp_path / "bundles",
        resamples=500,
    )
    found = judge_recipes(resnet20, CIFAR, asked)
    first, second = found.judged
    assert (first.recipe, second.recipe) == ("ort-u8s8", "refused")
    assert first.figures["cosine"].value > 0.99
    assert second.against["top1_loss"].value == 0.0  # but for its limits it is the same recipe
    assert len(list(picture_lines(found))) == 2 * 2 * 200
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "bundles").glob("*.ecv")}
    assert len(made) == 4
    assert judge_recipes(resnet20, CIFAR, asked).judged == found.judged
    assert made == {path: path.stat().st_mtime_ns for path in (tmp_path / "bundles").glob("*.ecv")}


def test_random_weights_are_judged_by_the_cosine_of_their_outputs(coco_images: list[Path], tmp_path: Path) -> None:
    data = tmp_path / "pictures"
    data.mkdir()
    for path in coco_images[:40]:
        (data / path.name).symlink_to(path)
    asked = JudgeOptions(formats=("onnx",), seeds=1, imgsz=224, random_weights=True, resamples=200)
    (judged,) = judge_recipes("resnet18", data, asked).judged
    assert set(judged.figures) == {"cosine"}
    estimate = judged.figures["cosine"]
    assert 0.9 < estimate.low <= estimate.value <= estimate.high <= 1.0
    assert json.dumps(msgspec.to_builtins(estimate))
