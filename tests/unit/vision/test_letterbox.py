"""From frame pixels to model pixels and exactly back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from edgecv.errors import SpecMismatch
from edgecv.specs import PreprocessSpec, TensorSpec
from edgecv.vision.geometry import ImageTransform
from edgecv.vision.letterbox import fit, letterbox, prepare, to_tensor

sizes = st.tuples(st.integers(1, 1500), st.integers(1, 1500))
model_sizes = st.tuples(st.integers(1, 20), st.integers(1, 20)).map(lambda wh: (wh[0] * 32, wh[1] * 32))
anchors = st.sampled_from(["center", "top-left"])
resizes = st.sampled_from(["letterbox", "stretch", "crop"])


def white(size_wh: tuple[int, int]) -> np.ndarray:
    return np.full((size_wh[1], size_wh[0], 3), 255, np.uint8)


@given(sizes, model_sizes, anchors, resizes, st.integers(0, 2**32 - 1))
def test_points_come_back_to_where_they_were(frame_wh, size_wh, anchor, resize, seed) -> None:
    spec = PreprocessSpec(size_wh=size_wh, pad_anchor=anchor, resize=resize)
    frame = np.zeros((frame_wh[1], frame_wh[0], 3), np.uint8)
    if resize == "crop" and max(frame_wh) > 50 * min(frame_wh):
        return  # a crop enlarges first: a strip would become an image of gigabytes
    _, transform = fit(frame, spec)
    points = np.random.default_rng(seed).uniform((0, 0), frame_wh, (20, 2))
    assert np.abs(transform.to_frame(transform.to_model(points)) - points).max() < 1e-3


@given(sizes, model_sizes, anchors)
def test_the_transform_says_where_the_image_lies(frame_wh, size_wh, anchor) -> None:
    image, transform = letterbox(white(frame_wh), size_wh, pad_value=0, anchor=anchor)
    left, top, right, bottom = transform.to_model(np.array([[0, 0], frame_wh])).reshape(-1)
    lit_rows, lit_columns = np.flatnonzero(image[..., 0].any(1)), np.flatnonzero(image[..., 0].any(0))
    assert (lit_rows[0], lit_rows[-1] + 1) == pytest.approx((top, bottom), abs=1e-3)
    assert (lit_columns[0], lit_columns[-1] + 1) == pytest.approx((left, right), abs=1e-3)
    assert image.shape == (size_wh[1], size_wh[0], 3)


@given(sizes, model_sizes, anchors, st.integers(0, 254))
def test_everything_outside_the_image_has_the_padding_value(frame_wh, size_wh, anchor, pad_value) -> None:
    image, transform = letterbox(white(frame_wh), size_wh, pad_value=pad_value, anchor=anchor)
    (left, top), (right, bottom) = np.rint(transform.to_model(np.array([[0, 0], frame_wh]))).astype(int)
    assert (image[top:bottom, left:right] == 255).all()
    outside = np.ones(image.shape[:2], bool)
    outside[top:bottom, left:right] = False
    assert (image[outside] == pad_value).all()


@given(sizes, model_sizes)
def test_the_image_fills_one_axis_and_keeps_its_shape(frame_wh, size_wh) -> None:
    _, transform = letterbox(white(frame_wh), size_wh)
    filled = np.array(transform.scale_xy) * frame_wh
    assert np.isclose(filled, size_wh, atol=0.51).any()
    assert (filled < np.array(size_wh) + 0.51).all()
    # Whole pixels: each axis is off by at most half of one, or is the one pixel that is left of a thin strip.
    assert (np.abs(filled - min(transform.scale_xy) * np.array(frame_wh)) < max(frame_wh) / min(frame_wh) + 1).all()


@pytest.mark.parametrize(
    ("frame_wh", "anchor", "offset", "scale"),
    [
        ((1280, 720), "center", (0, 140), (0.5, 0.5)),
        ((1280, 720), "top-left", (0, 0), (0.5, 0.5)),
        ((720, 1280), "center", (140, 0), (0.5, 0.5)),
        ((640, 639), "center", (0, 0), (1.0, 1.0)),  # the odd pixel goes to the bottom
        ((640, 638), "center", (0, 1), (1.0, 1.0)),
        ((320, 320), "center", (0, 0), (2.0, 2.0)),
    ],
)
def test_known_geometries(frame_wh, anchor, offset, scale) -> None:
    _, transform = letterbox(white(frame_wh), (640, 640), anchor=anchor)
    assert transform.offset_xy == offset
    assert transform.scale_xy == scale


def test_an_image_in_the_models_size_passes_unchanged() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    fitted, _ = letterbox(image, (96, 64))
    assert np.array_equal(fitted, image)


def test_boxes_are_clipped_to_the_frame() -> None:
    transform = ImageTransform(scale_xy=(0.5, 0.5), offset_xy=(0, 140), frame_wh=(1280, 720))
    boxes = transform.boxes_to_frame(np.array([[-10, 0, 700, 640], [100, 200, 300, 400]], np.float32))
    assert boxes.tolist() == [[0, 0, 1280, 720], [200, 120, 600, 520]]


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.int8),
        [[1, 2, 3]],
        "image.jpg",
        None,
    ],
    ids=lambda value: f"{getattr(value, 'shape', value)}-{getattr(value, 'dtype', '')}",
)
@pytest.mark.parametrize("resize", ["letterbox", "stretch", "crop"])
def test_what_is_no_image_is_refused(image: Any, resize) -> None:
    with pytest.raises(SpecMismatch, match=r"\(H, W, 3\) uint8"):
        fit(image, PreprocessSpec(size_wh=(32, 32), resize=resize))


def spec_for(dtype: str, layout: str, scale: float | None = None, zero_point: int | None = None) -> TensorSpec:
    return TensorSpec(
        name="x", role="image", shape=(-1, -1, -1, -1), dtype=dtype, layout=layout, scale=scale, zero_point=zero_point
    )


IMAGE = np.random.default_rng(1).integers(0, 256, (8, 16, 3), np.uint8)
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("norm", [{}, IMAGENET], ids=["unit", "imagenet"])
def test_float_tensors_are_normalised_in_the_colour_order(layout, color, norm) -> None:
    spec = PreprocessSpec(size_wh=(16, 8), color=color, **norm)
    tensor = to_tensor(IMAGE, spec, spec_for("float32", layout))
    ordered = IMAGE[..., ::-1] if color == "rgb" else IMAGE
    wanted = (ordered / 255.0 - spec.mean) / spec.std
    got = tensor[0] if layout == "NHWC" else tensor[0].transpose(1, 2, 0)
    assert tensor.dtype == np.float32
    assert tensor.flags["C_CONTIGUOUS"]
    assert np.allclose(got, wanted, atol=1e-5)


def test_uint8_tensors_without_a_scale_take_the_pixels_as_they_are() -> None:
    spec = PreprocessSpec(size_wh=(16, 8), **IMAGENET)
    assert np.array_equal(to_tensor(IMAGE, spec, spec_for("uint8", "NHWC"))[0], IMAGE)
    assert np.array_equal(to_tensor(IMAGE, spec, spec_for("uint8", "NCHW"))[0].transpose(1, 2, 0), IMAGE)


@pytest.mark.parametrize(
    ("dtype", "zero_point", "shift"), [("int8", -128, -128), ("uint8", 0, 0)], ids=["int8", "uint8"]
)
def test_quantized_inputs_over_the_unit_range_hold_the_pixels_exactly(dtype, zero_point, shift) -> None:
    tensor = to_tensor(IMAGE, PreprocessSpec(size_wh=(16, 8)), spec_for(dtype, "NHWC", 1 / 255, zero_point))
    assert tensor.dtype == dtype
    assert np.array_equal(tensor[0].astype(int), IMAGE[..., ::-1].astype(int) + shift)


def test_values_beyond_a_quantized_range_saturate() -> None:
    tensor = to_tensor(white((2, 2)), PreprocessSpec(size_wh=(2, 2)), spec_for("int8", "NHWC", 1 / 1000, 0))
    assert (tensor == 127).all()


def test_prepare_is_fit_then_to_tensor() -> None:
    spec = PreprocessSpec(size_wh=(32, 32))
    tensor, transform = prepare(IMAGE, spec, spec_for("uint8", "NHWC"))
    image, wanted = fit(IMAGE, spec)
    assert transform == wanted
    assert np.array_equal(tensor[0], image)
