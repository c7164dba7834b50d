"""What every decoder keeps. A new one: its class, its line in the registry, one row in ``ROWS``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from edgecv import registry
from edgecv.errors import SpecMismatch
from edgecv.results import Classification, Detections
from edgecv.specs import DecodeSpec, TensorSpec
from edgecv.vision.geometry import ImageTransform
from tests.unit.vision.heads import CELLS, LABELS, SIZE_WH, decode_spec, prediction_of, raw_head

HERE = ImageTransform(scale_xy=(1.0, 1.0), offset_xy=(0.0, 0.0), frame_wh=SIZE_WH)
Row = tuple[DecodeSpec, tuple[TensorSpec, ...], dict[str, Any]]


def raw() -> Row:
    outputs, specs = raw_head(3)
    return decode_spec(), specs, outputs


def classic() -> Row:
    outputs, _ = raw_head(3)
    spec = TensorSpec(name="prediction", role="prediction", shape=(1, 4 + len(LABELS), CELLS), dtype="float32")
    return decode_spec("yolov8"), (spec,), {"prediction": prediction_of(outputs)}


def logits() -> Row:
    spec = TensorSpec(name="logits", role="logits", shape=(1, 3), dtype="float32")
    scores = np.array([[0.5, 3.0, 1.0]], np.float32)
    return DecodeSpec(task="classify", decoder="logits", labels=("a", "b", "c")), (spec,), {"logits": scores}


ROWS: dict[str, Callable[[], Row]] = {"yolov8-raw": raw, "yolov8": classic, "logits": logits}
# Their heads have masks, keypoints and angles besides: tests/unit/vision/test_yolov8_tasks.py.
TASKS = {"yolov8-segment", "yolov8-pose", "yolov8-obb"}


@pytest.fixture(params=ROWS)
def row(request: pytest.FixtureRequest) -> Row:
    return ROWS[request.param]()


def decode(row: Row, **limits: Any) -> Detections | Classification:
    spec, specs, outputs = row
    limited = msgspec.structs.replace(spec, **limits)
    return registry.resolve("decoders", spec.decoder)(spec, specs)(outputs, HERE, limited, False)


def test_every_registered_decoder_stands_here() -> None:
    assert set(registry.names("decoders")) == {*ROWS, *TASKS}


def test_the_answer_suits_the_task(row: Row) -> None:
    found = decode(row, confidence=0.0)
    assert isinstance(found, Classification if row[0].task == "classify" else Detections)
    assert len(found.confidence) > 0
    assert (np.diff(found.confidence) <= 0).all(), "the surest come first"
    assert set(found.class_id.tolist()) <= set(range(len(row[0].labels)))


def test_boxes_lie_in_the_frame_and_keep_the_limits_of_the_call(row: Row) -> None:
    found = decode(row, confidence=0.3, max_detections=2)
    if isinstance(found, Detections):
        assert len(found) <= 2
        assert (found.confidence >= 0.3).all()
        assert (found.xyxy >= 0).all() and (found.xyxy <= [*SIZE_WH, *SIZE_WH]).all()
        assert not len(decode(row, confidence=1.0))


def test_outputs_stay_as_they_were(row: Row) -> None:
    before = {name: value.copy() for name, value in row[2].items()}
    decode(row)
    assert all(np.array_equal(value, before[name]) for name, value in row[2].items())


def test_outputs_that_do_not_fit_are_refused_when_the_model_is_loaded(row: Row) -> None:
    spec, specs, _ = row
    with pytest.raises(SpecMismatch):
        registry.resolve("decoders", spec.decoder)(spec, (*specs, *specs))
