"""Golden vectors hold a sample of each output, all of it in reach."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from edgecv.bundles.bundle import Bundle, describe_file
from edgecv.bundles.golden import EVENLY, GOLDEN, SAMPLE, SAMPLING, sample, verify
from edgecv.bundles.manifest import MANIFEST, ModelFiles, Variant, dump_manifest
from edgecv.specs import TensorSpec
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
    variant = Variant(name="onnx-fp32", format="onnx", precision="fp32", latency_ms=1.0, models={"main": files})
    (folder / MANIFEST).write_bytes(dump_manifest(manifest([variant])))
    return Bundle.open(folder)


@pytest.mark.parametrize(("evenly", "status"), [(True, "ok"), (False, "differs")])
def test_vectors_are_replayed_at_evenly_spread_elements(evenly: bool, status: str, tmp_path: Path) -> None:
    made = wide_bundle(tmp_path / "m.ecv")
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
    (verdict,) = verify(Bundle.open(made.path))
    assert verdict.status == status


def test_an_empty_output_has_an_empty_sample() -> None:
    assert sample(np.zeros((1, 0, 4))).shape == (0,)
