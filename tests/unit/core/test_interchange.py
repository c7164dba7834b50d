"""To and from the real supervision package; what a step knows about each box travels along."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from edgecv.errors import SpecMismatch
from edgecv.media.supervision_bridge import corners_of, obb_of
from edgecv.results import Detections, answer_rows

sv = pytest.importorskip("supervision")
FIELDS = ("xyxy", "confidence", "class_id", "tracker_id", "mask", "keypoints", "obb")


def scene(count: int = 3) -> Detections:
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 50, (count, 2))
    return Detections(
        xyxy=np.concatenate([corners, corners + rng.uniform(5, 40, (count, 2))], axis=1).astype(np.float32),
        confidence=rng.uniform(0, 1, count).astype(np.float32),
        class_id=np.arange(count),
        tracker_id=np.arange(count) - 1,
        mask=rng.uniform(0, 1, (count, 20, 30)) > 0.5,
        keypoints=rng.uniform(0, 20, (count, 2, 3)).astype(np.float32),
        obb=np.array([[10, 20, 30, 5, 0.3], [40, 40, 9, 18, -0.7], [1, 2, 3, 4, 2.1]], np.float32)[:count],
        data={"colour": np.array(["red", None, "blue"], object)[:count], "speed": np.arange(count) / 2},
    )


@pytest.mark.parametrize("count", [0, 1, 3])
def test_there_and_back_nothing_is_lost(count: int) -> None:
    found = scene(count)
    back = Detections.from_supervision(sv.Detections(**found.as_supervision()))
    for name in FIELDS:
        ours, theirs = getattr(found, name), getattr(back, name)
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype, name
        assert np.allclose(ours, theirs, atol=1e-4), name
    assert back.data is not None and found.data is not None
    assert {name: list(values) for name, values in back.data.items()} == {
        name: list(values) for name, values in found.data.items()
    }


def test_their_own_tools_take_ours() -> None:
    theirs = sv.Detections(**scene().as_supervision(labels=("cat", "dog")))
    assert theirs["class_name"].tolist() == ["cat", "dog", "2"]
    assert len(theirs[theirs.confidence > 0.5]) == int((scene().confidence > 0.5).sum())
    assert np.allclose(theirs.area, scene().mask.sum(axis=(1, 2)))


def test_their_rotated_boxes_are_ours_in_whatever_order_the_corners_come() -> None:
    corners = corners_of(scene().obb)
    for order in ([0, 1, 2, 3], [1, 2, 3, 0], [3, 2, 1, 0]):
        again = corners_of(obb_of(corners[:, order].astype(float)))
        for box, other in zip(corners, again, strict=True):
            assert all(np.abs(other - corner).sum(axis=1).min() < 1e-3 for corner in box)


@given(st.floats(0, 100), st.floats(1, 50), st.floats(1, 50), st.floats(-math.pi / 4 + 1e-3, 3 * math.pi / 4 - 1e-3))
def test_rotated_boxes_come_back_from_their_corners(centre: float, width: float, height: float, angle: float) -> None:
    box = np.array([[centre, 100 - centre, width, height, angle]], np.float32)
    assert np.allclose(obb_of(corners_of(box).astype(float)), box, atol=1e-3)


def test_corners_are_those_of_ultralytics() -> None:
    torch = pytest.importorskip("torch")
    from ultralytics.utils.ops import xywhr2xyxyxyxy

    assert np.allclose(corners_of(scene().obb), xywhr2xyxyxyxy(torch.from_numpy(scene().obb)).numpy(), atol=1e-4)


def test_what_they_leave_out_is_filled_as_documented() -> None:
    back = Detections.from_supervision(sv.Detections(xyxy=np.array([[1.0, 2, 3, 4]])))
    assert (back.confidence.tolist(), back.class_id.tolist()) == ([1.0], [0])
    assert back.tracker_id is None and back.mask is None and back.data is None


def test_something_else_is_refused() -> None:
    with pytest.raises(SpecMismatch, match="not like supervision"):
        Detections.from_supervision(object())


def test_data_follows_its_boxes_and_stands_in_json() -> None:
    found = scene()[np.array([False, True, True])]
    assert found.data is not None and found.data["colour"].tolist() == [None, "blue"]
    rows = json.loads(json.dumps(answer_rows(found, ("a",))))["detections"]
    assert [(row["colour"], row["speed"]) for row in rows] == [(None, 0.5), ("blue", 1.0)]
    assert [len(one) for one in scene()] == [1, 1, 1]


def test_a_number_that_is_none_becomes_null() -> None:
    found = Detections(**{name: getattr(scene(1), name) for name in FIELDS[:3]}, data={"x": np.array([np.nan])})
    assert answer_rows(found, ())["detections"][0]["x"] is None


@pytest.mark.parametrize("data", [{"label": np.zeros(3)}, {"x": np.zeros(2)}, {"x": np.array(1)}])
def test_data_that_does_not_fit_is_refused(data: dict[str, np.ndarray]) -> None:
    with pytest.raises(SpecMismatch):
        Detections(**{name: getattr(scene(), name) for name in FIELDS[:3]}, data=data)
