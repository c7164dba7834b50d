"""Raw heads and classic predictions to detections: one truth in every form they come in."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, strategies as st

from edgecv.errors import SpecMismatch
from edgecv.results import Detections
from edgecv.specs import TensorSpec
from edgecv.vision.geometry import ImageTransform
from edgecv.vision.yolov8 import PredictionDecoder, RawHeadDecoder, _above
from tests.unit.vision.heads import (
    CELLS,
    LABELS,
    SIZE_WH,
    channels_last,
    decode_spec,
    prediction_of,
    quantized,
    raw_head,
)

# A frame far larger than the input, with the input in its middle: no box is clipped.
WIDE = ImageTransform(scale_xy=(1.0, 1.0), offset_xy=(-5000.0, -5000.0), frame_wh=(10_000, 10_000))
PREDICTION = TensorSpec(name="prediction", role="prediction", shape=(1, 4 + len(LABELS), CELLS), dtype="float32")


def decode_raw(outputs, specs, multi_label: bool = False, **limits: float) -> Detections:
    spec = decode_spec(**limits)
    return RawHeadDecoder(spec, specs)(outputs, WIDE, spec, multi_label)


def decode_classic(prediction, multi_label: bool = False, spec: TensorSpec = PREDICTION, **limits: float) -> Detections:
    limited = decode_spec("yolov8", **limits)
    return PredictionDecoder(limited, (spec,))({"prediction": prediction}, WIDE, limited, multi_label)


def assert_same(first: Detections, second: Detections, box_px: float = 1e-2, score: float = 1e-5) -> None:
    assert first.class_id.tolist() == second.class_id.tolist()
    assert np.allclose(first.confidence, second.confidence, atol=score)
    assert np.allclose(first.xyxy, second.xyxy, atol=box_px)


@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.25, 0.6]), st.booleans())
def test_the_raw_head_decodes_to_its_classic_prediction(seed, confidence, multi_label) -> None:
    outputs, specs = raw_head(seed)
    raw = decode_raw(outputs, specs, multi_label, confidence=confidence)
    assert_same(raw, decode_classic(prediction_of(outputs), multi_label, confidence=confidence))
    assert (raw.confidence > confidence).all()
    assert (np.diff(raw.confidence) <= 0).all()


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("confidence", [0.0, 0.05, 0.25, 0.9])
def test_integer_outputs_are_thresholded_as_the_numbers_they_stand_for(confidence, multi_label) -> None:
    stored, specs, real = quantized(*raw_head(7))
    _, float_specs = raw_head(7)
    limits = {"confidence": confidence, "max_detections": 1000, "iou": 1.0}
    assert_same(decode_raw(stored, specs, multi_label, **limits), decode_raw(real, float_specs, multi_label, **limits))


def test_signed_integer_outputs_decode_alike() -> None:
    stored, specs, _ = quantized(*raw_head(3))
    signed = {name: (value.astype(int) - 128).astype(np.int8) for name, value in stored.items()}
    replace = msgspec.structs.replace
    shifted = tuple(replace(s, dtype="int8", zero_point=(s.zero_point or 0) - 128) for s in specs)
    assert_same(decode_raw(signed, shifted), decode_raw(stored, specs))


@pytest.mark.parametrize("integers", [False, True], ids=["float", "uint8"])
def test_channels_last_outputs_decode_alike(integers) -> None:
    outputs, specs = raw_head(5)
    if integers:
        outputs, specs, _ = quantized(outputs, specs)
    assert len(decode_raw(outputs, specs)) > 5
    assert_same(decode_raw(*channels_last(outputs, specs)), decode_raw(outputs, specs))


def test_a_quantized_classic_prediction_decodes_as_the_numbers_it_stands_for() -> None:
    prediction = prediction_of(raw_head(2)[0])
    scale = float(prediction.max()) / 65535
    stored = np.rint(prediction / scale).clip(0, 65535).astype(np.uint16)
    spec = msgspec.structs.replace(PREDICTION, dtype="uint16", scale=scale, zero_point=0)
    assert_same(decode_classic(stored, spec=spec), decode_classic((stored * np.float32(scale)).astype(np.float32)))


@pytest.mark.parametrize(
    ("confidence", "multi_label", "count"),
    [
        (0.0, False, CELLS),  # every cell
        (0.0, True, CELLS * len(LABELS)),  # every class of every cell
        (1.0, False, 0),
        (1.0, True, 0),
    ],
)
def test_the_ends_of_the_confidence_range(confidence, multi_label, count) -> None:
    outputs, specs = raw_head()
    limits = {"confidence": confidence, "iou": 1.0, "max_detections": 10_000}
    assert len(decode_raw(outputs, specs, multi_label, **limits)) == count
    assert len(decode_classic(prediction_of(outputs), multi_label, **limits)) == count


def test_confidence_zero_keeps_integer_cells_at_the_lowest_value() -> None:
    stored, specs, _ = quantized(*raw_head())
    lowest = {name: np.zeros_like(value) for name, value in stored.items()}
    assert len(decode_raw(lowest, specs, confidence=0.0, iou=1.0, max_detections=10_000)) == CELLS


@pytest.mark.parametrize("multi_label", [False, True])
def test_nothing_above_the_threshold_is_no_detections(multi_label) -> None:
    outputs, specs = raw_head()
    quiet = {name: np.full_like(value, -20) if "class" in name else value for name, value in outputs.items()}
    for found in (
        decode_raw(quiet, specs, multi_label),
        decode_raw(*quantized(outputs, specs)[:2], multi_label, confidence=0.99999),
        decode_classic(np.zeros(PREDICTION.shape, np.float32), multi_label),
    ):
        assert len(found) == 0
        assert found.xyxy.shape == (0, 4)
        assert (found.xyxy.dtype, found.confidence.dtype, found.class_id.dtype) == (np.float32, np.float32, np.int64)


def test_multi_label_keeps_every_class_of_a_box_that_passes() -> None:
    prediction = np.zeros((1, 7, 2), np.float32)
    prediction[0, :, 0] = (50, 50, 20, 20, 0.9, 0.1, 0.6)
    spec = msgspec.structs.replace(PREDICTION, shape=prediction.shape)
    assert decode_classic(prediction, spec=spec).class_id.tolist() == [0]
    both = decode_classic(prediction, multi_label=True, spec=spec)
    assert both.class_id.tolist() == [0, 2]
    assert both.confidence == pytest.approx([0.9, 0.6])
    assert (both.xyxy[0] == both.xyxy[1]).all()


def test_limits_bound_the_number_of_boxes_best_first() -> None:
    outputs, specs = raw_head()
    everything = decode_raw(outputs, specs, confidence=0.01, iou=1.0, max_detections=10_000)
    few = decode_raw(outputs, specs, confidence=0.01, iou=1.0, max_detections=7)
    assert_same(few, everything[:7])


def test_boxes_land_in_frame_pixels_clipped_to_the_frame() -> None:
    prediction = np.zeros((1, 7, 1), np.float32)
    prediction[0, :5, 0] = (48, 32, 96, 32, 0.9)
    spec, limits = msgspec.structs.replace(PREDICTION, shape=prediction.shape), decode_spec("yolov8")
    transform = ImageTransform(scale_xy=(0.5, 0.5), offset_xy=(0, 7), frame_wh=(190, 100))
    found = PredictionDecoder(limits, (spec,))({"prediction": prediction}, transform, limits, False)
    assert found.xyxy.tolist() == [[0, 18, 190, 82]]


def changed(specs: tuple[TensorSpec, ...], at: int, **fields) -> tuple[TensorSpec, ...]:
    return (*specs[:at], msgspec.structs.replace(specs[at], **fields), *specs[at + 1 :])


SPECS = raw_head()[1]
NARROW = (SIZE_WH[1] // 8, SIZE_WH[0] // 8)


@pytest.mark.parametrize(
    ("decoder", "specs", "named"),
    [
        (RawHeadDecoder, (), "pairs"),
        (RawHeadDecoder, SPECS[:1], "pairs"),
        (RawHeadDecoder, SPECS[1:], "pairs"),
        (RawHeadDecoder, changed(SPECS, 0, shape=(1, 63, *NARROW)), "63 channels"),
        (RawHeadDecoder, changed(SPECS, 1, shape=(1, 80, *NARROW)), "80 classes for 3 labels"),
        (RawHeadDecoder, (PREDICTION,), "pairs"),
        (PredictionDecoder, (), "one"),
        (PredictionDecoder, SPECS, "one"),
        (PredictionDecoder, (msgspec.structs.replace(PREDICTION, shape=(1, 84, 10)),), "84 rows for 4 [+] 3"),
        (PredictionDecoder, (msgspec.structs.replace(PREDICTION, shape=(1, 7)),), "one"),
    ],
)
def test_outputs_that_are_no_such_head_are_refused(decoder, specs, named) -> None:
    with pytest.raises(SpecMismatch, match=named):
        decoder(decode_spec(), specs)


@given(st.integers(-140, 140), st.integers(0, 10**6), st.sampled_from(["int8", "uint8", "float32"]))
def test_cells_above_a_limit_are_the_same_whichever_axis_is_last(limit: int, seed: int, dtype: str) -> None:
    scores = np.random.default_rng(seed).integers(-128, 128, (5, 7)).astype(dtype)
    first, last = _above(scores, limit + 0.5, False), _above(np.ascontiguousarray(scores.T).T, limit + 0.5, False)
    wanted = [at for at in range(7) if scores[:, at].max() > limit + 0.5]
    assert first[0].tolist() == last[0].tolist() == wanted
    assert first[1].tolist() == last[1].tolist()
