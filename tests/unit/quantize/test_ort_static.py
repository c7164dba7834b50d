"""Static INT8 for ONNX Runtime on a small real network."""

from __future__ import annotations

import platform
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from edgecv.errors import QuantizationError
from edgecv.quantize.ort.graph import op_counts
from edgecv.quantize.ort.quantizer import OrtStaticQuantizer
from edgecv.quantize.ort.weights import halve_tables
from edgecv.quantize.quantizer import WeighsRanges
from edgecv.quantize.recipes import RECIPES, QuantizeRecipe, first_recipes
from edgecv.runtimes.ort import OnnxRuntimeSession
from edgecv.specs import RuntimeOptions, TensorSpec
from tests.conftest import names_in
from tests.unit.quantize.convolutions import silu_network

OUT = TensorSpec(name="out", role="class/2", shape=(1, 6, 16, 16), dtype="float32", layout="NCHW")
x86_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="which kernels fuse depends on the processor")


def images(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (1, 32, 32, 3), np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def quantizer(tmp_path_factory: pytest.TempPathFactory) -> OrtStaticQuantizer:
    folder = tmp_path_factory.mktemp("quantizer")
    (folder / "work").mkdir()
    made = OrtStaticQuantizer((silu_network(folder / "float.onnx"),), (OUT,), folder / "work")
    made.calibrate(images(8))
    return made


def real(stored: np.ndarray, spec: TensorSpec) -> np.ndarray:
    if spec.scale is None:
        return stored
    return (stored.astype(np.float32) - (spec.zero_point or 0)) * spec.scale


def test_without_gradients_no_range_is_chosen_by_them(quantizer: OrtStaticQuantizer) -> None:
    assert isinstance(quantizer, WeighsRanges)
    assert quantizer.weighted(RECIPES["ort-u8s8-gptq"]) == 0


@x86_only
@pytest.mark.parametrize("recipe", first_recipes("onnx", "conv", "x86-vnni"), ids=lambda recipe: recipe.name)
def test_every_recipe_gives_integers_close_to_float(quantizer, tmp_path: Path, recipe: QuantizeRecipe) -> None:
    (path,), (spec,) = quantizer.quantize(recipe, tmp_path)
    assert spec.dtype == "uint8"
    assert spec.scale is not None
    assert (spec.name, spec.role, spec.shape) == (OUT.name, OUT.role, OUT.shape)
    int8 = OnnxRuntimeSession(path, RuntimeOptions(), (), (spec,))
    float32 = OnnxRuntimeSession(silu_network(tmp_path / "float.onnx"), RuntimeOptions())
    for image in images(3, seed=9):
        stored, wanted = (session.run({"image": image})["out"] for session in (int8, float32))
        assert stored.dtype == np.uint8
        gap = np.abs(real(stored, spec) - wanted)
        assert gap.mean() < 0.03 * np.abs(wanted).max()


@x86_only
def test_another_seed_gives_other_ranges_and_the_same_one_the_same_file(tmp_path: Path) -> None:
    quantizer = OrtStaticQuantizer((silu_network(tmp_path / "float.onnx", 4),), (OUT,), tmp_path)
    files = []
    for at, seed in enumerate((0, 1, 0)):
        quantizer.calibrate(images(64), seed=seed)  # so many that a sample of each is kept
        (folder := tmp_path / str(at)).mkdir()
        recipe = msgspec.structs.replace(RECIPES["ort-u8s8"], seed=seed)
        files.append(quantizer.quantize(recipe, folder)[0][0].read_bytes())
    assert files[0] == files[2]
    assert files[0] != files[1]


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
    quantizer.quantize(RECIPES["ort-u8s8"], tmp_path)
    assert names_in(tmp_path) == ["model.onnx"]


@x86_only
def test_a_float_stem_that_was_asked_for_is_not_held_against_a_small_network(tmp_path: Path) -> None:
    small = OrtStaticQuantizer((silu_network(tmp_path / "float.onnx", convolutions=4),), (OUT,), tmp_path)
    small.calibrate(images(4))
    assert small.quantize(QuantizeRecipe(name="float-stem", stem="float"), tmp_path)


@x86_only
@pytest.mark.parametrize("target", ["x86", "arm64"])
def test_other_cpu_classes_get_what_their_kernels_want(quantizer, tmp_path: Path, target: str) -> None:
    recipe = first_recipes("onnx", "conv", target)[0]
    (path,), (spec,) = quantizer.quantize(recipe, tmp_path)
    assert spec.dtype == ("int8" if target == "arm64" else "uint8")
    weights = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(str(path)).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4
    ]
    assert len(weights) >= 10
    most = max(int(np.abs(weight.astype(int)).max()) for weight in weights)
    assert most == 127 if target == "arm64" else most <= 64
    int8 = OnnxRuntimeSession(path, RuntimeOptions(), (), (spec,))
    float32 = OnnxRuntimeSession(silu_network(tmp_path / "float.onnx"), RuntimeOptions())
    for image in images(3, seed=9):
        stored, wanted = (session.run({"image": image})["out"] for session in (int8, float32))
        assert np.abs(real(stored, spec) - wanted).mean() < 0.05 * np.abs(wanted).max()


@x86_only
def test_symmetric_activations_have_zero_points_of_zero(quantizer, tmp_path: Path) -> None:
    recipe = msgspec.structs.replace(RECIPES["ort-s8s8-arm64"], symmetric=True, name="symmetric")
    (path,), (spec,) = quantizer.quantize(recipe, tmp_path)
    assert spec.zero_point == 0
    assert path.is_file()


@x86_only
def test_named_layers_stay_float_with_their_activation(quantizer, tmp_path: Path) -> None:
    counts = []
    for layers in ((), ("conv3",)):
        recipe = msgspec.structs.replace(RECIPES["ort-u8s8-float-stem"], float_layers=layers)
        (path,), _ = quantizer.quantize(recipe, tmp_path)
        model = onnx.load(str(path))
        counts.append(op_counts(model))
        fed = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
        sigmoids = [node.name for node in model.graph.node if node.op_type == "Sigmoid" and node.input[0] not in fed]
        assert sigmoids == (["sigmoid3"] if layers else [])
    assert counts[1]["DequantizeLinear"] < counts[0]["DequantizeLinear"]


def test_a_layer_that_is_not_there_names_the_nearest(quantizer, tmp_path: Path) -> None:
    recipe = msgspec.structs.replace(RECIPES["ort-u8s8"], float_layers=("convv3",))
    with pytest.raises(QuantizationError, match="convv3") as caught:
        quantizer.quantize(recipe, tmp_path)
    assert "conv3" in caught.value.hint


def test_weights_alone_are_stored_as_integers_and_computed_as_floats(quantizer, tmp_path: Path) -> None:
    (path,), (spec,) = quantizer.quantize(RECIPES["ort-weights"], tmp_path)
    assert spec == OUT
    source = silu_network(tmp_path / "float.onnx")
    assert path.stat().st_size < 0.6 * source.stat().st_size
    image = images(1, seed=9)[0]
    found, wanted = (OnnxRuntimeSession(p, RuntimeOptions()).run({"image": image})["out"] for p in (path, source))
    assert 0 < np.abs(found - wanted).max() < 0.03 * np.abs(wanted).max()


def test_the_layers_of_float_and_int8_correspond(quantizer) -> None:
    seen = list(quantizer.layer_outputs(RECIPES["ort-u8s8"], images(2, seed=3)))
    assert len(seen) == 2
    for wanted, found in seen:
        assert list(wanted) == list(found) == [f"conv{index}" for index in range(11)]
        for layer, tensor in wanted.items():
            gap = np.abs(found[layer] - tensor).mean()
            assert 0 < gap < 0.05 * np.abs(tensor).max(), layer


@x86_only
def test_corrected_biases_bring_the_means_of_seven_bit_layers_back(tmp_path: Path) -> None:
    made = OrtStaticQuantizer((silu_network(tmp_path / "float.onnx", bias=True),), (OUT,), tmp_path)
    seen = images(8)
    made.calibrate(seen)
    shifts = []
    for correction in ("none", "fast"):
        recipe = msgspec.structs.replace(RECIPES["ort-u8s7-x86"], bias_correction=correction, float_layers=())
        pairs = list(made.layer_outputs(recipe, seen))
        gaps = [np.stack([f[n] - w[n] for w, f in pairs]).mean(axis=(0, 1, 3, 4)) for n in pairs[0][0]]
        shifts.append(float(np.mean([np.abs(gap).mean() for gap in gaps])))
    assert shifts[1] < 0.8 * shifts[0]


def test_large_tables_are_stored_as_halves_and_huge_values_are_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tables = {
        "table": rng.normal(size=(300, 300)).astype(np.float32),
        "huge": np.full((300, 300), 1e6, np.float32),
        "small": rng.normal(size=(300,)).astype(np.float32),
    }
    value = onnx.helper.make_tensor_value_info
    adds = zip(tables, ("x", "a", "b"), ("a", "b", "out"), strict=True)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", [given, table], [made]) for table, given, made in adds],
        "tables",
        [value("x", onnx.TensorProto.FLOAT, (300, 300))],
        [value("out", onnx.TensorProto.FLOAT, (300, 300))],
        [onnx.numpy_helper.from_array(array, name) for name, array in tables.items()],
    )
    path = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8), path)
    halve_tables(path)
    kept = {tensor.name: tensor.data_type for tensor in onnx.load(path).graph.initializer}
    assert kept == {
        "table/half": onnx.TensorProto.FLOAT16,
        "huge": onnx.TensorProto.FLOAT,
        "small": onnx.TensorProto.FLOAT,
    }
    session = OnnxRuntimeSession(path, RuntimeOptions())
    found = session.run({"x": np.zeros((300, 300), np.float32)})["out"]
    np.testing.assert_allclose(found - 1e6, sum(tables.values()) - 1e6, atol=0.1)


def test_large_convolutions_are_stored_as_integers_where_every_weight_is_meant(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(128, 64, 3, 3)).astype(np.float32)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "w"], ["out"], pads=[1, 1, 1, 1])],
        "large",
        [value("x", onnx.TensorProto.FLOAT, (1, 64, 8, 8))],
        [value("out", onnx.TensorProto.FLOAT, (1, 128, 8, 8))],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    path = tmp_path / "float.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8), path)
    out = TensorSpec(name="out", role="out", shape=(1, 128, 8, 8), dtype="float32")
    (tmp_path / "int8").mkdir()
    files, _ = OrtStaticQuantizer((path,), (out,), tmp_path).quantize(RECIPES["ort-weights"], tmp_path / "int8")
    kinds = {t.data_type: np.prod(t.dims) for t in onnx.load(files[0]).graph.initializer if np.prod(t.dims) > 1000}
    assert kinds == {onnx.TensorProto.INT8: weights.size}
