"""``--fit``: the same model with an input of a camera's shape, proven and judged by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgecv
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.golden import golden_inputs, verify
from edgecv.converters.explain import steps
from edgecv.converters.request import request_of
from edgecv.errors import ConfigError
from tests.once import made_once

WANTED = [("onnx-fp32", (64, 64)), ("onnx-fp32-64x32", (64, 32))]


@pytest.fixture(scope="module")
def made(untrained_64: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    def make(folder: Path) -> None:
        fit = ("2:1", "4:2", "1:1")  # two of them are one, and one is the model's own
        edgecv.convert(untrained_64, precision="fp32", fit=fit, out=folder / "fitted.ecv")

    return Bundle.open(made_once(tmp_path_factory, "fitted", make) / "fitted.ecv")


def test_each_shape_is_a_variant_of_its_own_and_the_models_own_comes_first(made: Bundle) -> None:
    assert [(variant.name, variant.size_wh) for variant in made.variants] == WANTED
    for variant in made.variants:
        files = variant.models["main"]
        width, height = variant.size_wh
        assert files.inputs[0].shape == (1, height, width, 3)
        assert {spec.shape[2:] for spec in files.outputs} == {
            (height // stride, width // stride) for stride in (8, 16, 32)
        }
        assert variant.metrics["source_cosine"] > 0.9999


def test_golden_vectors_of_each_shape_are_replayed(made: Bundle) -> None:
    assert {verdict.variant: verdict.status for verdict in verify(made)} == {name: "ok" for name, _ in WANTED}
    for variant in made.variants:
        (image,) = golden_inputs(made, variant)["main"].values()
        assert image.shape == (1, variant.size_wh[1], variant.size_wh[0], 3)


def test_each_shape_loads_and_the_card_names_it(made: Bundle) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 80, 3), np.uint8)
    with edgecv.load(made.path, fit=(80, 40)) as model:
        assert model.name == "fitted/onnx-fp32-64x32"
        assert model(image, confidence=0.0) is not None
    card = made.read_extra("MODEL_CARD.md").decode()
    assert "Images are brought to 64x64 or 64x32 (letterbox)" in card
    assert "| onnx-fp32-64x32 | 64x32 |" in card


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
