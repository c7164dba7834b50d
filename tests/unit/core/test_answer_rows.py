"""What a model found, as JSON: boxes, and masks, keypoints and rotated boxes where there are any."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, strategies as st

from edgecv.results import Detections, Frame, Result, answer_rows, run_lengths

coco = pytest.importorskip("pycocotools.mask")


def boxes(count: int, **more: np.ndarray) -> Detections:
    return Detections(
        xyxy=np.tile(np.array([1, 2, 3, 4], np.float32), (count, 1)),
        confidence=np.full(count, 0.5, np.float32),
        class_id=np.zeros(count, np.int64),
        **more,
    )


@given(st.integers(1, 9), st.integers(1, 9), st.randoms(use_true_random=False))
def test_run_lengths_are_what_coco_reads(height: int, width: int, random: np.random.Generator) -> None:
    mask = np.array([[random.random() < 0.4 for _ in range(width)] for _ in range(height)])
    found = run_lengths(mask)
    assert found["size"] == [height, width]
    assert sum(found["counts"]) == height * width
    assert all(count > 0 for count in found["counts"][1:])
    assert np.array_equal(coco.decode(coco.frPyObjects(found, height, width)), mask)


@pytest.mark.parametrize(("mask", "counts"), [(np.zeros((3, 4), bool), [12]), (np.ones((3, 4), bool), [0, 12])])
def test_masks_of_one_kind_of_pixel(mask: np.ndarray, counts: list[int]) -> None:
    assert run_lengths(mask) == {"size": [3, 4], "counts": counts}


def test_plain_boxes_have_nothing_more() -> None:
    (row,) = answer_rows(boxes(1), ("a",))["detections"]
    assert list(row) == ["xyxy", "confidence", "class_id", "label", "tracker_id"]


def test_a_row_carries_what_the_model_gives() -> None:
    mask = np.zeros((2, 5, 6), bool)
    mask[1, 1:3, 2] = True
    keypoints = np.arange(12, dtype=np.float32).reshape(2, 2, 3) / 3
    obb = np.array([[1, 2, 3, 4, 0.1234567], [5, 6, 7, 8, -1]], np.float32)
    image = np.zeros((5, 6, 3), np.uint8)
    result = Result(
        frame=Frame(image=image, index=0, source_id="t", captured_ns=1, monotonic_ns=1),
        labels=("a",),
        detections=boxes(2, mask=mask, keypoints=keypoints, obb=obb),
    )
    first, second = json.loads(json.dumps(result.as_dict()))["detections"]
    assert first["mask"] == {"size": [5, 6], "counts": [30]}
    assert second["mask"] == {"size": [5, 6], "counts": [11, 2, 17]}
    assert second["keypoints"] == [[2.0, 2.333, 2.667], [3.0, 3.333, 3.667]]
    assert first["obb"] == [1.0, 2.0, 3.0, 4.0, 0.123457]
    without = result.as_dict(masks=False)["detections"][0]
    assert "mask" not in without and "obb" in without


@given(
    st.lists(st.tuples(*[st.floats(width=32, allow_nan=False)] * 4), min_size=1, max_size=8),
    st.sampled_from(["f4", "f8"]),
)
def test_boxes_are_rounded_as_python_rounds(boxes: list[tuple[float, ...]], kind: str) -> None:
    xyxy = np.array(boxes, kind)
    found = Detections(xyxy=xyxy, confidence=np.zeros(len(boxes), kind), class_id=np.zeros(len(boxes), int))
    rows = answer_rows(found, ())["detections"]
    assert [row["xyxy"] for row in rows] == [[round(float(value), 3) for value in box] for box in xyxy]
