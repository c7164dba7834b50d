"""Which variant a machine gets: the one built for its CPU class, or the one that was named."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import msgspec
import pytest

import edgecv
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.cpu_classes import suits, suits_device, suits_this_machine
from edgecv.bundles.manifest import MANIFEST, Variant, dump_manifest
from edgecv.choosing import choose, runtime_options
from edgecv.errors import ConfigError
from edgecv.quantize.recipe_files import dump_recipe, parse_recipe
from edgecv.quantize.recipes import RECIPES
from tests.models import manifest, write_bundle

VNNI = frozenset({"avx2", "avx512_vnni"})
AVX2 = frozenset({"avx2"})
FOREIGN = "arm64" if platform.machine().lower() in ("x86_64", "amd64") else "x86"


@pytest.mark.parametrize(
    ("target", "machine", "flags", "expected"),
    [
        ("", "riscv64", None, True),
        ("x86-vnni", "x86_64", VNNI, True),
        ("x86-vnni", "AMD64", None, True),
        ("x86-vnni", "x86_64", AVX2, False),
        ("x86", "x86_64", AVX2, True),
        ("x86", "x86_64", VNNI, True),
        ("x86", "aarch64", None, False),
        ("arm64", "aarch64", None, True),
        ("arm64", "arm64", None, True),
        ("arm64", "x86_64", VNNI, False),
        ("riscv", "riscv64", None, False),
    ],
)
def test_a_variant_suits_the_processors_it_was_built_for(target: str, machine: str, flags, expected: bool) -> None:
    assert suits(target, machine, flags) is expected


def bundle_with(folder: Path, *targets: str) -> Bundle:
    """A bundle with fp32 and one int8 variant per target, each of which claims to be faster than the one before."""
    float32, int8 = write_bundle(folder).variants
    variants: list[Variant] = [float32]
    for number, target in enumerate(targets):
        changes = {"name": f"onnx-int8-{target}", "cpu_class": target, "latency_ms": 1.0 / (number + 1)}
        variants.append(msgspec.structs.replace(int8, **changes))
    (folder / MANIFEST).write_bytes(dump_manifest(manifest(variants)))
    return Bundle.open(folder)


def chosen(bundle: Bundle, **options: str) -> str:
    with edgecv.load(bundle.path, **options) as model:
        return str(model.variant.name)


@pytest.mark.parametrize(
    ("device", "fitting"),
    [("tensorrt", {"tensorrt", ""}), ("edgetpu", {"edgetpu"}), ("coral", {"edgetpu"}), ("cpu", {""})],
)
def test_an_accelerator_takes_what_was_built_for_it_and_a_cpu_does_not(device: str, fitting: set[str]) -> None:
    classes = ("", "tensorrt", "edgetpu", FOREIGN)
    assert {name for name in classes if suits_device(name, device)} == fitting


def test_auto_takes_float_rather_than_what_another_cpu_class_runs_fast(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "tiny.ecv", FOREIGN)
    assert chosen(bundle) == "onnx-fp32"


def test_a_variant_for_another_class_runs_when_it_is_named_or_nothing_else_has_the_precision(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "tiny.ecv", FOREIGN)
    assert chosen(bundle, variant=f"onnx-int8-{FOREIGN}") == f"onnx-int8-{FOREIGN}"
    assert chosen(bundle, precision="int8") == f"onnx-int8-{FOREIGN}"


@pytest.mark.skipif(FOREIGN != "arm64", reason="the other class is named for x86")
def test_of_two_classes_the_one_at_hand_is_taken(tmp_path: Path) -> None:
    assert suits_this_machine("x86")
    bundle = bundle_with(tmp_path / "tiny.ecv", "x86", "arm64")
    assert chosen(bundle) == chosen(bundle, precision="int8") == "onnx-int8-x86"


def test_a_variant_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "tiny.ecv", "x86")
    with pytest.raises(ConfigError, match="no onnx-int8 variant") as caught:
        edgecv.load(bundle.path, variant="onnx-int8")
    assert "onnx-int8-x86" in caught.value.hint


@pytest.mark.skipif(FOREIGN != "arm64", reason="the other class is named for x86")
@pytest.mark.parametrize("timed", [True, False])
def test_a_latency_of_the_workstation_decides_nothing_whatever_it_timed(tmp_path: Path, timed: bool) -> None:
    bundle = bundle_with(tmp_path / "tiny.ecv", "x86")
    float32, int8 = bundle.variants
    slow = msgspec.structs.replace(int8, latency_ms=float32.latency_ms * 2, timed=timed)
    (bundle.path / MANIFEST).write_bytes(dump_manifest(manifest((float32, slow))))
    assert chosen(bundle) == "onnx-int8-x86"


def test_tensorrt_is_not_given_what_was_built_for_a_processor_unless_it_is_named(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "tiny.ecv", "x86")
    asked = {"runtime": "onnxruntime", "device": "tensorrt"}
    assert choose(bundle.path, runtime_options(**asked)).variant.name == "onnx-fp32"
    with pytest.raises(ConfigError, match="no int8 variant for tensorrt, only onnx-int8-x86") as caught:
        choose(bundle.path, runtime_options(**asked, precision="int8"))
    assert "--target tensorrt" in caught.value.hint
    assert choose(bundle.path, runtime_options(**asked, variant="onnx-int8-x86")).variant.name == "onnx-int8-x86"


def test_bundles_and_recipes_keep_the_name_target_in_their_files(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path / "tiny.ecv", FOREIGN)
    said = json.loads((bundle.path / MANIFEST).read_text())
    assert said["variants"][1]["target"] == FOREIGN
    assert bundle.variants[1].cpu_class == FOREIGN
    assert json.loads(dump_recipe(RECIPES["ort-s8s8-arm64"]))["target"] == "arm64"
    assert parse_recipe(b'{"name": "mine", "target": "arm64"}', "mine").cpu_class == "arm64"
