"""A bundle comes from somewhere else: nothing in it is trusted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest

from edgecv.bundles.bundle import Bundle, describe_file
from edgecv.bundles.manifest import MANIFEST, SCHEMA, ModelFiles, Variant, dump_manifest, parse_manifest
from edgecv.errors import BundleError, SessionError
from tests.models import IMAGE, PREDICTION, checked_path, manifest, with_external_data, write_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "tiny.ecv")


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / MANIFEST).read_text())
    change(content)
    (folder / MANIFEST).write_text(json.dumps(content))


def test_it_reads_what_was_written(bundle: Bundle) -> None:
    assert bundle.name == "tiny"
    assert bundle.labels == ("bright", "never")
    assert [variant.name for variant in bundle.variants] == ["onnx-fp32", "onnx-int8"]
    assert checked_path(bundle, bundle.variants[1]) == bundle.path / "onnx-int8/model.onnx"


def test_a_manifest_survives_the_round_trip(bundle: Bundle) -> None:
    assert parse_manifest(dump_manifest(bundle.manifest), "here") == bundle.manifest


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"", "damaged"),
        (b"{", "damaged"),
        (b"null", "damaged"),
        (b"[]", "damaged"),
        (b'{"schema": 1}', "name|missing"),
        (b'{"schema": "1"}', "schema"),
        (b"\xff\xfe\x00", "damaged"),
        (b"PK\x03\x04", "damaged"),
    ],
)
def test_a_damaged_manifest_says_so(bundle: Bundle, text: bytes, named: str) -> None:
    (bundle.path / MANIFEST).write_bytes(text)
    with pytest.raises(BundleError, match=named) as caught:
        Bundle.open(bundle.path)
    assert caught.value.hint


def add_key(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        content[path[-1]] = 1

    return change


def drop_key(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        del content[path[-1]]

    return change


FILE = ("variants", 0, "models", "main", "files", 0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (add_key("extra_key"), "extra_key"),
        (add_key("decode", "threshold"), "threshold"),
        (add_key("preprocess", "scale"), "scale"),
        (add_key("variants", 0, "speed"), "speed"),
        (add_key(*FILE, "mode"), "mode"),
        (drop_key("licence"), "licence"),
        (drop_key("schema"), "schema"),
        (drop_key("decode", "task"), "task"),
        (drop_key(*FILE, "sha256"), "sha256"),
        (add_key("decode", "task"), "task"),
        (lambda content: content.update(variants=[]), "variants"),
        (lambda content: content["variants"].append(content["variants"][0]), "named twice"),
        (lambda content: content["variants"][0].update(models={}), "incomplete"),
        (lambda content: content["variants"][0]["models"]["main"].update(files=[]), "incomplete"),
    ],
)
def test_an_unknown_missing_or_wrong_key_names_itself(bundle: Bundle, change, named: str) -> None:
    rewrite(bundle.path, change)
    with pytest.raises(BundleError, match=named):
        Bundle.open(bundle.path)


def test_a_newer_schema_asks_for_an_update_whatever_else_it_holds(bundle: Bundle) -> None:
    (bundle.path / MANIFEST).write_text(json.dumps({"schema": SCHEMA + 1, "something": "new"}))
    with pytest.raises(BundleError, match=f"schema {SCHEMA + 1}.*up to {SCHEMA}") as caught:
        Bundle.open(bundle.path)
    assert "Update" in caught.value.hint


@pytest.mark.parametrize("make", [Path.exists, Path.mkdir, Path.touch], ids=["missing", "empty", "file"])
def test_what_is_no_bundle_says_how_to_make_one(tmp_path: Path, make) -> None:
    path = tmp_path / "thing"
    make(path)
    with pytest.raises(BundleError, match="not a bundle") as caught:
        Bundle.open(path)
    assert "edgecv" in caught.value.hint


@pytest.mark.parametrize(
    "path",
    ["../model.onnx", "a/../../model.onnx", "/etc/passwd", "..", "a\\b", "C:\\model.onnx", "", "a\0b", "./../x"],
)
def test_a_path_that_leads_outside_is_refused(bundle: Bundle, path: str) -> None:
    rewrite(bundle.path, lambda c: c["variants"][0]["models"]["main"]["files"][0].update(path=path))
    with pytest.raises(BundleError, match="leads outside") as caught:
        Bundle.open(bundle.path)
    assert "Do not use" in caught.value.hint


@pytest.mark.parametrize("linked", ["onnx-fp32/model.onnx", "onnx-fp32"], ids=["file", "folder"])
def test_a_link_is_refused_even_to_the_very_same_bytes(bundle: Bundle, tmp_path: Path, linked: str) -> None:
    outside = tmp_path / "outside"
    shutil.move(bundle.path / linked, outside)
    (bundle.path / linked).symlink_to(outside)
    with pytest.raises(BundleError, match="leads outside"):
        Bundle.open(bundle.path)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (flip_a_byte, "sha256"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "sha256"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "sha256"),
        (lambda path: path.write_bytes(b""), "sha256"),
        (Path.unlink, "lacks"),
        (lambda path: (path.unlink(), path.mkdir()), "lacks"),
    ],
    ids=["changed", "shorter", "longer", "empty", "missing", "folder"],
)
def test_a_model_file_that_is_not_the_converted_one_is_refused(bundle: Bundle, damage, named: str) -> None:
    damage(bundle.path / "onnx-fp32/model.onnx")
    with pytest.raises(BundleError, match=named):
        checked_path(bundle, bundle.variants[0])
    assert checked_path(bundle, bundle.variants[1])


def external_bundle(folder: Path, declared: bool, location: str | None = None) -> Bundle:
    place = folder / "onnx-fp32"
    place.mkdir(parents=True)
    path = with_external_data(place / "model.onnx")
    if location is not None:
        model = onnx.load(str(path), load_external_data=False)
        for entry in model.graph.initializer[0].external_data:
            entry.value = location if entry.key == "location" else entry.value
        path.write_bytes(model.SerializeToString())
    files = (describe_file(folder, path), *([describe_file(folder, place / "weights.bin")] if declared else []))
    variant = Variant(
        name="onnx-fp32",
        format="onnx",
        precision="fp32",
        size_wh=(64, 64),
        latency_ms=1.0,
        models={"main": ModelFiles(files=files, inputs=(IMAGE,), outputs=(PREDICTION,))},
    )
    (folder / MANIFEST).write_bytes(dump_manifest(manifest([variant])))
    return Bundle.open(folder)


def test_external_data_that_the_bundle_lists_is_fine(tmp_path: Path) -> None:
    bundle = external_bundle(tmp_path / "b.ecv", declared=True)
    assert checked_path(bundle, bundle.variants[0])


@pytest.mark.parametrize(
    ("declared", "location", "named"),
    [
        (False, None, "does not list"),
        (True, "other.bin", "does not list"),
        (True, "../weights.bin", "leads outside"),
        (True, "../../../../etc/passwd", "leads outside"),
        (True, "/etc/passwd", "leads outside"),
        (True, "sub/../../x", "leads outside"),
    ],
)
def test_external_data_elsewhere_is_refused(tmp_path: Path, declared, location, named) -> None:
    (tmp_path / "b.ecv").mkdir()
    bundle = external_bundle(tmp_path / "b.ecv", declared, location)
    with pytest.raises(BundleError, match=named):
        checked_path(bundle, bundle.variants[0])


def test_external_data_hidden_in_a_subgraph_is_seen(tmp_path: Path) -> None:
    inner = onnx.load(str(with_external_data(tmp_path / "inner.onnx")), load_external_data=False)
    inner.graph.initializer[0].external_data[0].value = "../secret"
    node = onnx.helper.make_node("If", ["c"], ["y"], then_branch=inner.graph, else_branch=inner.graph)
    graph = onnx.helper.make_graph([node], "outer", [], [])
    folder = tmp_path / "b.ecv"
    bundle = write_bundle(folder, {"fp32": 1.0})
    path = folder / "onnx-fp32/model.onnx"
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    variant = bundle.variants[0]
    files = msgspec.structs.replace(variant.models["main"], files=(describe_file(folder, path),))
    with pytest.raises(BundleError, match="leads outside"):
        checked_path(bundle, msgspec.structs.replace(variant, models={"main": files}))


def test_an_onnx_file_of_garbage_with_the_right_hash_is_a_clear_error(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b.ecv", {"fp32": 1.0})
    path = bundle.path / "onnx-fp32/model.onnx"
    path.write_bytes(b"\xff" * 64)
    variant = bundle.variants[0]
    files = msgspec.structs.replace(variant.models["main"], files=(describe_file(bundle.path, path),))
    with pytest.raises(SessionError, match="damaged"):
        checked_path(bundle, msgspec.structs.replace(variant, models={"main": files}))
