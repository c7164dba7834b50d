"""A bundle whose variants have several input shapes: which one is loaded, and bundles that are older than that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import edgecv
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.manifest import MANIFEST, SCHEMA, parse_manifest
from edgecv.choosing import choose, runtime_options, shapes_in
from edgecv.errors import BundleError, ConfigError, EdgeCVError
from edgecv.model import Model
from edgecv.specs import PreprocessSpec
from tests.models import detector, write_bundle
from tests.shapes import MIDDLE, SQUARE, TALL, WIDE, frame, write_shapes

SCHEMA_1 = Path(__file__).with_name("bundle-schema-1.json")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_shapes(tmp_path / "shapes.ecv", (SQUARE, WIDE, TALL))


def as_schema_1(folder: Path) -> dict[str, Any]:
    """The ``bundle.json`` of a folder as EdgeCV wrote it when the whole bundle had one input size."""
    said = json.loads((folder / MANIFEST).read_text())
    sizes = [variant.pop("size_wh") for variant in said["variants"]]
    assert len({tuple(size) for size in sizes}) == 1
    said["preprocess"] = {"size_wh": sizes[0], **said["preprocess"]}
    return {**said, "schema": 1}


def test_a_bundle_of_schema_1_is_read(tmp_path: Path) -> None:
    made = write_bundle(tmp_path / "old.ecv")
    (made.path / MANIFEST).write_text(json.dumps(as_schema_1(made.path)))
    old = Bundle.open(made.path)
    assert old.manifest == made.manifest
    assert old.spec.preprocess == PreprocessSpec(size_wh=SQUARE)
    with edgecv.load(old.path, variant="onnx-int8") as model:
        assert len(model(frame(SQUARE, (16, 16, 32, 32)))) == 1


def test_what_edgecv_wrote_before_shapes_is_read_as_it_was() -> None:
    manifest = parse_manifest(SCHEMA_1.read_bytes(), "old.ecv")
    wanted = [("onnx-fp32", (320, 320)), ("onnx-int8", (320, 320))]
    assert [(variant.name, variant.size_wh) for variant in manifest.variants] == wanted
    assert manifest.preprocess.resize == "letterbox"
    assert manifest.schema == SCHEMA


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda said: said["preprocess"].pop("size_wh"), "missing required field `size_wh`"),
        (lambda said: said["variants"][0].update(size_wh=[64, 64]), "unknown field `size_wh`"),
        (lambda said: said["preprocess"].update(size_wh="64"), "size_wh"),
        (lambda said: said["preprocess"].update(size_wh=[0, 64]), "impossible size_wh"),
        (lambda said: said["preprocess"].update(scale=1), "scale"),
        (lambda said: said.update(preprocess=3), "size_wh"),
        (lambda said: said.update(variants={}), "variants"),
        (lambda said: said.update(variants=[3]), "variants"),
        (lambda said: said.pop("licence"), "licence"),
        (lambda said: said.update(latency_ms="1"), "latency_ms"),
    ],
)
def test_schema_1_is_read_as_strictly(tmp_path: Path, change, named: str) -> None:
    made = write_bundle(tmp_path / "old.ecv")
    said = as_schema_1(made.path)
    change(said)
    (made.path / MANIFEST).write_text(json.dumps(said))
    with pytest.raises(BundleError, match=named):
        Bundle.open(made.path)


def test_a_variant_without_a_size_is_damage(bundle: Bundle) -> None:
    said = json.loads((bundle.path / MANIFEST).read_text())
    del said["variants"][1]["size_wh"]
    (bundle.path / MANIFEST).write_text(json.dumps(said))
    with pytest.raises(BundleError, match="size_wh"):
        Bundle.open(bundle.path)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ([0, 64], "impossible size_wh"),
        ([-64, 64], "impossible size_wh"),
        ([20_000, 64], "impossible size_wh"),
        ([1 << 70, 64], "size_wh"),
        ([64], "size_wh"),
        ([64.5, 64], "size_wh"),
        (["64", "64"], "size_wh"),
        ([True, 64], "size_wh"),
        ("64x64", "size_wh"),
        (None, "size_wh"),
    ],
)
def test_an_impossible_size_is_damage(bundle: Bundle, wrong: Any, named: str) -> None:
    said = json.loads((bundle.path / MANIFEST).read_text())
    said["variants"][1]["size_wh"] = wrong
    (bundle.path / MANIFEST).write_text(json.dumps(said))
    with pytest.raises(BundleError, match=named):
        Bundle.open(bundle.path)


def test_a_size_that_the_files_do_not_have_is_an_error_of_the_bundle(bundle: Bundle) -> None:
    said = json.loads((bundle.path / MANIFEST).read_text())
    said["variants"][1]["size_wh"] = [64, 48]
    (bundle.path / MANIFEST).write_text(json.dumps(said))
    with edgecv.load(bundle.path, fit=(640, 480)) as model, pytest.raises(EdgeCVError):
        model(frame((640, 480)))


def test_two_variants_of_one_name_are_damage(bundle: Bundle) -> None:
    said = json.loads((bundle.path / MANIFEST).read_text())
    said["variants"][1]["name"] = said["variants"][0]["name"]
    (bundle.path / MANIFEST).write_text(json.dumps(said))
    with pytest.raises(BundleError, match="named twice"):
        Bundle.open(bundle.path)


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_model_file_without_content_is_damage(bundle: Bundle, wrong: int) -> None:
    said = json.loads((bundle.path / MANIFEST).read_text())
    said["variants"][0]["models"]["main"]["files"][0]["bytes"] = wrong
    (bundle.path / MANIFEST).write_text(json.dumps(said))
    with pytest.raises(BundleError, match="impossible number of bytes"):
        Bundle.open(bundle.path)


def test_the_rule_and_the_size_make_the_preprocessing() -> None:
    spec = PreprocessSpec(size_wh=(640, 384), resize="stretch", pad_value=7, mean=(0.1, 0.2, 0.3), color="bgr")
    assert PreprocessSpec.of(spec.rule, (640, 384)) == spec
    assert "size_wh" not in msgspec.to_builtins(spec.rule)
    assert set(msgspec.to_builtins(spec)) == {"size_wh", *msgspec.to_builtins(spec.rule)}


@pytest.mark.parametrize(
    ("fit", "name"),
    [
        (None, "onnx-fp32"),
        ((1280, 640), "onnx-fp32-64x32"),
        ((640, 1280), "onnx-fp32-32x64"),
        ((500, 500), "onnx-fp32"),
        ([1280, 640], "onnx-fp32-64x32"),
    ],
)
def test_the_shape_that_wastes_least_is_loaded(bundle: Bundle, fit: Any, name: str) -> None:
    with edgecv.load(bundle.path, fit=fit) as model:
        assert model.variant.name == name
        assert model.spec.preprocess.size_wh == model.variant.size_wh
        assert model.spec == bundle.spec_of(model.variant)
    with Model.load(bundle.path, fit=fit) as model:
        assert model.name == f"tiny/{name}"


def test_boxes_of_all_shapes_lie_in_camera_pixels(bundle: Bundle) -> None:
    image = frame((128, 64), (32, 32, 64, 64))
    for variant in bundle.variants:
        with edgecv.load(bundle.path, variant=variant.name) as model:
            found = model(image, confidence=0.9)
            if variant.size_wh == TALL:  # a quarter of the scale: no cell is all white
                continue
            assert np.allclose(found.xyxy, [[32, 32, 64, 64]], atol=0.5), variant.name


def test_a_variant_that_is_named_and_a_fit_contradict_each_other(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="one input shape"):
        edgecv.load(bundle.path, variant="onnx-fp32", fit=(1920, 1080))


def test_a_bare_file_has_one_shape(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bare model file"):
        edgecv.load(detector(tmp_path / "model.onnx"), fit=(1920, 1080))


def test_a_bundle_of_one_shape_takes_any_fit(tmp_path: Path) -> None:
    with edgecv.load(write_bundle(tmp_path / "b.ecv").path, fit=(1920, 1080)) as model:
        assert model.spec.preprocess.size_wh == SQUARE


def test_shapes_are_those_that_fit_the_options(tmp_path: Path) -> None:
    made = write_shapes(tmp_path / "shapes.ecv", (SQUARE, WIDE, MIDDLE))
    assert made.sizes_wh == (SQUARE, WIDE, MIDDLE)
    assert shapes_in(made, runtime_options()) == (SQUARE, WIDE, MIDDLE)
    assert shapes_in(made, runtime_options(variant="onnx-fp32-64x48")) == (MIDDLE,)
    with pytest.raises(ConfigError, match="int8"):
        choose(made.path, runtime_options(precision="int8"), (1920, 1080))
