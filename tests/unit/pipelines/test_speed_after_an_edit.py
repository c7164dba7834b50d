"""A rule ``speed`` that is edited while it runs: limits may come and go, and a moved line measures from its new place alone."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from edgecv.events import Event
from edgecv.pipelines.steps.rules.speed import Speed, SpeedWatch
from edgecv.results import Detections, Frame, Result

_LINES = (((100.0, 0.0), (100.0, 200.0)), ((200.0, 0.0), (200.0, 200.0)))
_MOVED = (((150.0, 0.0), (150.0, 200.0)), ((200.0, 0.0), (200.0, 200.0)))
_IMAGE = np.zeros((240, 320, 3), np.uint8)


def _seen(index: int, x: float) -> Result:
    box = np.array([[x - 5, 80, x + 5, 100]], np.float32)
    one = np.zeros(1, np.int64)
    found = Detections(xyxy=box, confidence=np.ones(1, np.float32), class_id=one, tracker_id=one + 7)
    time_ns = index * 100_000_000
    frame = Frame(image=_IMAGE, index=index, source_id="road", captured_ns=time_ns, monotonic_ns=time_ns)
    return Result(frame=frame, labels=("car",), detections=found)


def _events(watch: SpeedWatch, places: Iterable[tuple[int, float]]) -> list[Event]:
    return [event for index, x in places for event in watch(_seen(index, x)).events if event.kind.startswith("speed.")]


def _speed(**changed: object) -> Speed:
    return Speed(**{"name": "s", "lines": _LINES, "distance_m": 10.0, "unit": "m/s", **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", ["over", "under"])
def test_a_limit_that_an_edit_adds_is_judged_and_counted(limit: str) -> None:
    before = SpeedWatch(_speed(), ("car",))
    _events(before, [(0, 80.0), (1, 90.0), (2, 110.0)])
    after = SpeedWatch(_speed(**{limit: 0.001 if limit == "over" else 99_999.0}), ("car",))

    assert after.adopt(before)
    said = _events(after, [(3, 150.0), (4, 190.0), (5, 210.0)])

    assert [event.kind for event in said] == [f"speed.{limit}"]
    assert after.counts() == {"s.measured": 1, f"s.{limit}": 1}


def test_a_limit_that_an_edit_removes_is_counted_no_more() -> None:
    before = SpeedWatch(_speed(over=1.0), ("car",))
    after = SpeedWatch(_speed(), ("car",))

    assert after.adopt(before)

    assert after.counts() == {"s.measured": 0}


def test_a_line_that_is_moved_does_not_measure_from_where_it_was() -> None:
    before = SpeedWatch(_speed(), ("car",))
    _events(before, [(0, 80.0), (1, 90.0), (2, 110.0), (3, 160.0)])
    after = SpeedWatch(_speed(lines=_MOVED, distance_m=5.0), ("car",))

    assert after.adopt(before)

    assert _events(after, [(4, 190.0), (5, 210.0)]) == []


def test_another_anchor_moves_no_object_over_a_line() -> None:
    lines = (((0.0, 90.0), (320.0, 90.0)), ((0.0, 200.0), (320.0, 200.0)))
    before = SpeedWatch(_speed(lines=lines), ("car",))
    _events(before, [(0, 80.0), (1, 90.0)])  # its feet are at 100, its head is at 80
    after = SpeedWatch(_speed(lines=lines, anchor="top_center"), ("car",))

    assert after.adopt(before)
    _events(after, [(2, 100.0)])

    assert after._kept.known.crossed == {}


def test_another_distance_alone_goes_on_with_what_was_crossed() -> None:
    before = SpeedWatch(_speed(), ("car",))
    _events(before, [(0, 80.0), (1, 90.0), (2, 110.0)])
    after = SpeedWatch(_speed(distance_m=20.0), ("car",))

    assert after.adopt(before)
    said = _events(after, [(3, 150.0), (4, 190.0), (5, 210.0)])

    assert [event.data["distance_m"] for event in said] == [20.0]
    assert said[0].data["speed"] == pytest.approx(20.0 / said[0].data["seconds"], rel=0.01)
