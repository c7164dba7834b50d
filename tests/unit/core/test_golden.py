"""Golden vectors hold a sample of each output, all of it in reach."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from edgecv.bundles.bundle import Bundle, describe_file
from edgecv.bundles.golden import EVENLY, GOLDEN, SAMPLE, SAMPLING, sample, verify
from edgecv.bundles.manifest import MANIFEST, ModelFiles, Variant, dump_manifest
from edgecv.specs import TensorSpec
from tests.command_line import run_here
from tests.models import IMAGE, manifest, save


@pytest.mark.parametrize("size", [1, SAMPLE, SAMPLE + 1, 2 * SAMPLE - 1, 100_000])
def test_a_sample_reaches_from_the_first_to_the_last_element(size: int) -> None:
    found = sample(np.arange(size).reshape(1, -1))
    assert len(found) == min(size, SAMPLE)
    assert (found[0], found[-1]) == (0, size - 1)
    steps = np.diff(found)
    assert size == 1 or (steps.min() >= 1 and steps.max() <= -(-size // SAMPLE))


def wide_bundle(folder: Path) -> Bundle:
    """Its output is the image's first 6,144 numbers: more than a sample, and fewer than two."""
    wide = TensorSpec(name="prediction", role="prediction", shape=(1, 6144), dtype="float32")
    (folder / "onnx-fp32").mkdir(parents=True)
    path = save(
        folder / "onnx-fp32/model.onnx",
        [
            helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", ["real", "row"], ["flat"]),
            helper.make_node("Slice", ["flat", "start", "stop", "axis"], ["prediction"]),
        ],
        [("image", TensorProto.UINT8, IMAGE.shape)],
        [("prediction", TensorProto.FLOAT, wide.shape)],
        {"row": np.array([1, -1]), "start": np.array([0]), "stop": np.array([6144]), "axis": np.array([1])},
    )
    files = ModelFiles(files=(describe_file(folder, path),), inputs=(IMAGE,), outputs=(wide,))
    variant = Variant(
        name="onnx-fp32", format="onnx", precision="fp32", size_wh=(8, 8), latency_ms=1.0, models={"main": files}
    )
    (folder / MANIFEST).write_bytes(dump_manifest(manifest([variant])))
    return Bundle.open(folder)


def with_vectors(made: Bundle, evenly: bool) -> Bundle:
    """The bundle with golden vectors; not ``evenly`` spread they are wrong."""
    image = np.random.default_rng(0).integers(0, 256, IMAGE.shape, np.uint8)
    whole = image.reshape(-1)[:6144].astype(np.float32)
    vectors = {
        "onnx-fp32/main/in/image": image,
        "onnx-fp32/main/out/prediction": sample(whole) if evenly else whole[:SAMPLE],
        SAMPLING: np.array(EVENLY),
    }
    np.savez(made.path / GOLDEN, **vectors)
    changed = msgspec.structs.replace(made.manifest, extras=(describe_file(made.path, made.path / GOLDEN),))
    (made.path / MANIFEST).write_bytes(dump_manifest(changed))
    return Bundle.open(made.path)


@pytest.mark.parametrize(("evenly", "status"), [(True, "ok"), (False, "differs")])
def test_vectors_are_replayed_at_evenly_spread_elements(evenly: bool, status: str, tmp_path: Path) -> None:
    (verdict,) = verify(with_vectors(wide_bundle(tmp_path / "m.ecv"), evenly))
    assert verdict.status == status


def test_a_variant_without_its_runtime_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = with_vectors(wide_bundle(tmp_path / "m.ecv"), evenly=True)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    (verdict,) = verify(opened)
    assert (verdict.status, verdict.cosine) == ("skipped", None)
    assert "pip install 'edgecv[onnx]'" in verdict.reason


def test_the_command_says_skipped_and_fails_only_if_nothing_could_be_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = with_vectors(wide_bundle(tmp_path / "m.ecv"), evenly=True)
    assert run_here("verify", opened.path).returncode == 0
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = run_here("verify", opened.path)
    assert done.returncode == 1
    assert "skipped" in done.stdout
    assert "0.000" not in done.stdout
    assert json.loads(run_here("verify", opened.path, "--json").stdout)["variants"][0]["cosine"] is None


def test_what_could_be_checked_and_is_right_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = with_vectors(wide_bundle(tmp_path / "m.ecv"), evenly=True)
    (made.path / "tflite-fp32").mkdir()
    (made.path / "tflite-fp32/model.tflite").write_bytes(b"not looked at")
    main = made.variants[0].models["main"]
    files = msgspec.structs.replace(main, files=(describe_file(made.path, made.path / "tflite-fp32/model.tflite"),))
    other = msgspec.structs.replace(made.variants[0], name="tflite-fp32", format="tflite", models={"main": files})
    both = msgspec.structs.replace(made.manifest, variants=(made.variants[0], other))
    (made.path / MANIFEST).write_bytes(dump_manifest(both))
    for package in ("ai_edge_litert", "tflite_runtime"):
        monkeypatch.setitem(sys.modules, package, None)
    done = run_here("verify", made.path, "--json")
    assert [row["status"] for row in json.loads(done.stdout)["variants"]] == ["ok", "skipped"]
    assert done.returncode == 0


def test_an_empty_output_has_an_empty_sample() -> None:
    assert sample(np.zeros((1, 0, 4))).shape == (0,)
