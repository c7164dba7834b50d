"""Recipes are data: found by name, read from a file strictly, written out whole."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edgecv.errors import ConfigError
from edgecv.quantize.recipe_files import dump_recipe, find_recipe
from edgecv.quantize.recipes import CPU_CLASSES, RECIPES, QuantizeRecipe, cpu_classes_of, last_recipes
from edgecv.quantize.search import check_recipes, recipe_orders

PUBLISHED = ("ort-u8s8", "ort-s8s8-arm64", "ov-mixed", "litert-static", "litert-dynamic", "fp16")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_names_are_found_and_survive_a_file(name: str, tmp_path: Path) -> None:
    recipe = find_recipe(name)
    assert recipe.name == name
    file = tmp_path / "recipe.json"
    file.write_bytes(dump_recipe(recipe))
    assert find_recipe(str(file)) == recipe
    assert set(msgspec.json.decode(file.read_bytes())) == {
        f.encode_name for f in msgspec.structs.fields(QuantizeRecipe)
    }


@pytest.mark.parametrize(
    ("said", "named", "hint"),
    [
        ("ort-u8s9", "no recipe 'ort-u8s9'", "Did you mean 'ort-u8s8'"),
        ("missing.json", "cannot be read", "recipe.json"),
    ],
)
def test_a_recipe_that_is_not_there_names_what_is(said: str, named: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        find_recipe(said)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "named", "hint"),
    [
        ('{"name": "mine", "metod": "mse"}', "no 'metod'", "Did you mean 'method'"),
        ('{"name": "mine", "limits": {"mask_iuo": 0.5}}', "no 'mask_iuo'", "Did you mean 'mask_iou'"),
        ('{"name": "mine", "method": "magic"}', "magic", ""),
        ('{"name": "mine", "subset_size": 0}', "subset_size", ""),
        ('{"name": ""}', "printable name", ""),
        ('{"name": "mine", "target": "arm46"}', "arm46", "Did you mean 'arm64'"),
        ('{"method": "mse"}', "name", ""),
        ("[]", "no recipe", ""),
        ("{", "no recipe", ""),
        ("", "no recipe", ""),
    ],
)
def test_a_file_that_is_no_recipe_says_why(tmp_path: Path, text: str, named: str, hint: str) -> None:
    file = tmp_path / "recipe.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=named) as caught:
        find_recipe(str(file))
    assert hint in caught.value.hint


def test_cpu_classes_by_name() -> None:
    assert cpu_classes_of("x86") == ("x86",)
    assert cpu_classes_of("all") == tuple(CPU_CLASSES) == ("x86-vnni", "x86", "arm64")
    with pytest.raises(ConfigError, match="no CPU class 'arm'") as caught:
        cpu_classes_of("arm")
    assert "arm64" in caught.value.hint


def test_every_search_starts_fast_and_ends_with_fp16() -> None:
    for model_format in ("onnx", "openvino", "tflite"):
        for architecture in ("conv", "transformer"):
            for order in recipe_orders(model_format, architecture, tuple(CPU_CLASSES)):
                names = [recipe.name for recipe in (*order.first, *order.last)]
                assert len(set(names)) == len(names)
                assert names[-1] == "fp16"
                assert not order.exact
                assert all(RECIPES[name].format in (model_format, "") for name in names)


def test_only_convolutions_in_onnx_have_a_variant_per_cpu_class() -> None:
    assert [order.cpu_class for order in recipe_orders("onnx", "conv", ("x86", "arm64"))] == ["x86", "arm64"]
    assert [order.cpu_class for order in recipe_orders("tflite", "conv", ("x86", "arm64"))] == [""]
    arm, x86 = (recipe_orders("onnx", "conv", (name,))[0].first[0] for name in ("arm64", "x86"))
    assert (arm.activations, arm.per_channel, arm.reduce_range) == ("int8", True, False)
    assert (x86.activations, x86.per_channel, x86.reduce_range) == ("uint8", True, True)


def test_a_named_recipe_alone_decides_for_its_format() -> None:
    named = (RECIPES["ort-s8s8-arm64"], RECIPES["fp16"])
    (onnx,) = recipe_orders("onnx", "conv", ("x86-vnni",), named)
    assert (onnx.first, onnx.exact, onnx.cpu_class) == ((named[0],), True, "arm64")
    (tflite,) = recipe_orders("tflite", "conv", ("x86-vnni",), named)
    assert tflite.first == (named[1],)
    (openvino,) = recipe_orders("openvino", "conv", ("x86-vnni",), named[:1])
    assert not openvino.exact


@pytest.mark.parametrize(
    ("names", "formats", "named"),
    [
        (("ov-mixed",), ("onnx",), "for openvino"),
        (("ort-u8s8", "ort-u8s8-float-stem"), ("onnx",), "same variant"),
        (("ort-u8s8", "ort-weights"), ("onnx",), "same variant"),
    ],
)
def test_recipes_that_contradict_the_request_are_refused(names, formats, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        check_recipes([RECIPES[name] for name in names], formats)


def test_one_recipe_per_format_and_target_is_fine() -> None:
    check_recipes([RECIPES[name] for name in ("ort-u8s8", "ort-s8s8-arm64", "ov-mixed")], ("onnx", "openvino"))


@pytest.mark.parametrize("architecture", ["conv", "transformer"])
@pytest.mark.parametrize("model_format", ["onnx", "openvino", "tflite"])
def test_static_int8_comes_before_int8_weights_and_those_before_fp16(model_format: str, architecture: str) -> None:
    for order in recipe_orders(model_format, architecture, tuple(CPU_CLASSES)):
        kinds = [recipe.kind for recipe in (*order.first, *order.last)]
        assert kinds == sorted(kinds, key=("static", "weights", "fp16").index)
        assert kinds[0] == ("static" if architecture == "conv" else "weights")
        assert kinds[-1] == "fp16"


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"per_channel": False}, "one weight scale for a whole layer"), ({"format": ""}, "between formats")],
)
def test_a_rounding_that_the_quantizer_would_undo_is_refused(changes: dict, said: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    file.write_bytes(dump_recipe(msgspec.structs.replace(RECIPES["ort-u8s8-gptq"], **changes)))
    with pytest.raises(ConfigError, match=said):
        find_recipe(str(file))


def test_the_recipe_of_a_bundle_from_before_rounding_is_read(tmp_path) -> None:
    recipe = msgspec.structs.replace(RECIPES["ort-u8s8"], bias_correction="fast")
    stored = {key: value for key, value in msgspec.to_builtins(recipe).items() if key not in ("rounding", "seed")}
    stored["limits"] = {key: value for key, value in stored["limits"].items() if not key.startswith("logit")}
    file = tmp_path / "recipe.json"
    file.write_bytes(msgspec.json.encode(stored))
    assert find_recipe(str(file)) == recipe


def test_weights_at_their_nearest_step_are_tried_where_rounded_ones_cannot_be_made() -> None:
    for model_format in ("onnx", "openvino", "tflite"):
        rounded, nearest, fp16 = last_recipes(model_format, "conv")
        assert (rounded.rounding, nearest.rounding, fp16.kind) == ("gptq", "nearest", "fp16")
        assert rounded.name == f"{nearest.name}-gptq"
