"""The images that are measured with, and files that say nothing about themselves."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from edgecv.benchmarks.bare import BareFile, is_image
from edgecv.benchmarks.images import SIZE_WH, Rotation, as_image, bundle_images
from edgecv.bundles.bundle import Bundle, describe_file
from edgecv.bundles.golden import GOLDEN
from edgecv.bundles.manifest import MANIFEST, Calibration, dump_manifest
from edgecv.errors import ConfigError
from edgecv.results import Image
from edgecv.specs import PreprocessSpec, RuntimeOptions, TensorSpec
from edgecv.vision.letterbox import to_tensor
from tests.models import save
from tests.unit.benchmarks.tiny_bundle import SIDE, write_bundle


@pytest.fixture
def image() -> Image:
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


_PIXELS: tuple[dict[str, object], ...] = (
    {"dtype": "uint8", "layout": "NHWC"},
    {"dtype": "uint8", "layout": "NCHW"},
    {"dtype": "float32", "layout": "NCHW"},
    {"dtype": "float32", "layout": "NHWC"},
    {"dtype": "int8", "layout": "NHWC", "scale": 1 / 255, "zero_point": -128},
)
_NORMALISED = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.mark.parametrize(
    ("tensor", "more"),
    [
        *((tensor, more) for tensor in _PIXELS for more in ({}, {"color": "bgr"})),
        *((tensor, _NORMALISED) for tensor in _PIXELS[:4]),
    ],
)
def test_an_input_tensor_becomes_the_image_it_was(
    image: Image, tensor: dict[str, object], more: dict[str, object]
) -> None:
    spec = TensorSpec(name="x", role="image", shape=(1, SIDE, SIDE, 3), **tensor)  # type: ignore[arg-type]
    preprocess = PreprocessSpec(size_wh=(SIDE, SIDE), **more)  # type: ignore[arg-type]
    assert np.abs(as_image(to_tensor(image, preprocess, spec), spec, preprocess).astype(int) - image).max() <= 1


def test_a_bundle_is_measured_with_its_own_image_and_its_mirror_images(tmp_path: Path, image: Image) -> None:
    opened = Bundle.open(write_bundle(tmp_path / "tiny.ecv"))
    assert bundle_images(opened, opened.variants[0]) is None
    np.savez(opened.path / GOLDEN, **{f"{v.name}/main/in/image": image[None] for v in opened.variants})
    extras = (describe_file(opened.path, opened.path / GOLDEN),)
    noise = msgspec.structs.replace(opened.manifest, extras=extras)
    (opened.path / MANIFEST).write_bytes(dump_manifest(noise))
    assert bundle_images(Bundle.open(opened.path), opened.variants[0]) is None
    calibrated = msgspec.structs.replace(noise, calibration=Calibration(images=3, held_out=1, sha256=""))
    (opened.path / MANIFEST).write_bytes(dump_manifest(calibrated))
    again = Bundle.open(opened.path)
    found = bundle_images(again, again.variants[0])
    assert found is not None
    assert {image.shape for image in found} == {(SIZE_WH[1], SIZE_WH[0], 3)}
    assert (found[1][:, ::-1] == found[0]).all()
    assert len({image.tobytes() for image in found}) == 4
    assert bundle_images(None, None) is None


def test_images_rotate_as_a_source_that_never_ends(image: Image) -> None:
    source = Rotation("golden", [image, image[::-1]])
    frames = [source.read() for _ in range(3)]
    assert [frame.index for frame in frames if frame is not None] == [0, 1, 2]
    assert frames[0] is not None
    assert frames[2] is not None
    assert (frames[0].image == frames[2].image).all()
    assert frames[0].image is not frames[2].image


def _file(path: Path, shape: tuple[object, ...], more: tuple[object, ...] | None = None) -> Path:
    inputs = [("x", TensorProto.FLOAT, shape), *([("extra", TensorProto.INT64, more)] if more else [])]
    return save(
        path, [helper.make_node("ReduceMean", ["x"], ["y"], keepdims=0)], inputs, [("y", TensorProto.FLOAT, ())], {}
    )


@pytest.mark.parametrize(
    ("shape", "fed"),
    [
        ((1, 3, 32, 48), (1, 3, 32, 48)),
        ((1, 32, 48, 3), (1, 32, 48, 3)),
        ((2, 3, 32, 32), (2, 3, 32, 32)),
        (("n", 3, "h", "w"), (1, 3, 640, 640)),
        ((1, 7), (1, 7)),
        (("n", 7), (1, 7)),
        ((1, 1, 28, 28), (1, 1, 28, 28)),
    ],
)
def test_a_file_that_says_nothing_is_fed_with_what_fits(
    tmp_path: Path, image: Image, shape: tuple[object, ...], fed: tuple[int, ...]
) -> None:
    bare = BareFile(_file(tmp_path / "m.onnx", shape), RuntimeOptions())
    feeds, _ = bare.prepare(image)
    assert feeds["x"].shape == fed
    assert feeds["x"].std() > 0  # zeros would flatter
    assert set(bare.infer(feeds)) == {"y"}
    bare.close()


def test_a_size_that_cannot_be_guessed_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="left open"):
        BareFile(_file(tmp_path / "m.onnx", (1, "words")), RuntimeOptions())


def test_an_image_has_three_channels() -> None:
    assert is_image(TensorSpec(name="x", role="", shape=(1, 3, -1, -1), dtype="float32"))
    assert not is_image(TensorSpec(name="x", role="", shape=(1, 4, 8, 8), dtype="float32"))
    assert not is_image(TensorSpec(name="x", role="", shape=(3, 3), dtype="float32"))
