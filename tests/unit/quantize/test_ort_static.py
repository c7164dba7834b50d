"""Static INT8 for ONNX Runtime on a small real network."""

from __future__ import annotations

import platform
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from edgecv.errors import QuantizationError
from edgecv.quantize.onnx_graph import op_counts
from edgecv.quantize.ort_static import OrtStaticQuantizer
from edgecv.quantize.recipes import LADDERS, QuantizeRecipe
from edgecv.runtimes.ort import OnnxRuntimeSession
from edgecv.specs import RuntimeOptions, TensorSpec
from tests.conftest import names_in
from tests.unit.quantize.convolutions import silu_network

OUT = TensorSpec(name="out", role="class/2", shape=(1, 6, 16, 16), dtype="float32", layout="NCHW")
x86_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="which kernels fuse depends on the processor")


def pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (1, 32, 32, 3), np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def quantizer(tmp_path_factory: pytest.TempPathFactory) -> OrtStaticQuantizer:
    folder = tmp_path_factory.mktemp("quantizer")
    (folder / "work").mkdir()
    made = OrtStaticQuantizer((silu_network(folder / "float.onnx"),), (OUT,), folder / "work")
    made.calibrate(pictures(8))
    return made


def real(stored: np.ndarray, spec: TensorSpec) -> np.ndarray:
    if spec.scale is None:
        return stored
    return (stored.astype(np.float32) - (spec.zero_point or 0)) * spec.scale


@x86_only
@pytest.mark.parametrize("recipe", LADDERS["onnx", "conv"], ids=lambda recipe: recipe.name)
def test_every_recipe_gives_integers_close_to_float(quantizer, tmp_path: Path, recipe: QuantizeRecipe) -> None:
    (path,), (spec,) = quantizer.quantize(recipe, tmp_path)
    assert spec.dtype == "uint8"
    assert spec.scale is not None
    assert (spec.name, spec.role, spec.shape) == (OUT.name, OUT.role, OUT.shape)
    int8 = OnnxRuntimeSession(path, RuntimeOptions(), (), (spec,))
    float32 = OnnxRuntimeSession(silu_network(tmp_path / "float.onnx"), RuntimeOptions())
    for picture in pictures(3, seed=9):
        stored, wanted = (session.run({"image": picture})["out"] for session in (int8, float32))
        assert stored.dtype == np.uint8
        gap = np.abs(real(stored, spec) - wanted)
        assert gap.mean() < 0.03 * np.abs(wanted).max()


@x86_only
def test_a_float_stem_stays_a_float_convolution(quantizer, tmp_path: Path) -> None:
    recipe = QuantizeRecipe(name="float-stem", stem="float")
    models = []
    for stem in ("float", "packed"):
        (path,), _ = quantizer.quantize(msgspec.structs.replace(recipe, stem=stem), tmp_path)
        models.append(onnx.load(str(path)))
    with_float, packed = models
    assert op_counts(with_float)["Cast"] == 1
    assert op_counts(packed)["Cast"] == 0


@x86_only
def test_a_model_that_would_run_as_float_is_refused(quantizer, tmp_path: Path) -> None:
    recipe = QuantizeRecipe(name="s8s8", activations="int8", per_channel=False, stem="float")
    with pytest.raises(QuantizationError, match="convolutions as integers") as caught:
        quantizer.quantize(recipe, tmp_path)
    assert "--fp32" in caught.value.hint


@x86_only
def test_only_the_model_is_left_behind(quantizer, tmp_path: Path) -> None:
    quantizer.quantize(LADDERS["onnx", "conv"][0], tmp_path)
    assert names_in(tmp_path) == ["model.onnx"]


@x86_only
def test_a_float_stem_that_was_asked_for_is_not_held_against_a_small_network(tmp_path: Path) -> None:
    small = OrtStaticQuantizer((silu_network(tmp_path / "float.onnx", convolutions=4),), (OUT,), tmp_path)
    small.calibrate(pictures(4))
    assert small.quantize(QuantizeRecipe(name="float-stem", stem="float"), tmp_path)
