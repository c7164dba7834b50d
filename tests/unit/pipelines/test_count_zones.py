"""Zones: what entered less what left is inside, and each stay has its length."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.pipelines.loop.step_chain import linked_steps
from edgecv.pipelines.steps import Track, Zone
from edgecv.pipelines.steps.count.zone import ZoneCounter
from tests.unit.pipelines.recorded import EPOCH_NS, LABELS, boxes, result_of, standing_at, street

YARD = [[100, 100], [300, 100], [300, 300], [100, 300]]
IN, OUT = (200, 200), (400, 200)
FRAME_S = 0.1

Path = Sequence[tuple[float, float] | None]


def stay(paths: Sequence[Path], options: Zone | None = None, after: int = 0) -> tuple[dict[str, int], list[Event]]:
    """Walk objects 1, 2, ... along their paths and look at ``after`` empty frames; the counts and the events."""
    step = (options or Zone(name="yard", points=YARD)).build(LABELS)
    events: list[Event] = []
    for at in range(max(map(len, paths)) + after):
        there = [(number, path[at]) for number, path in enumerate(paths, start=1) if at < len(path) and path[at]]
        found = standing_at(*(point for _, point in there if point), ids=[number for number, _ in there])
        events += step(result_of(found, at * FRAME_S)).events
    return dict(step.counts("cam")), events


def told(events: list[Event], *fields: str) -> list[tuple[Any, ...]]:
    return [(event.kind, *(event.data[field] for field in fields)) for event in events]


def test_who_comes_and_goes() -> None:
    counts, events = stay([[OUT] * 10 + [IN] * 20 + [OUT] * 10])
    assert counts == {"yard.inside": 0, "yard.entered": 1, "yard.left": 1}
    assert told(events, "how", "total", "inside") == [
        ("zone.entered", "crossed", 1, 1),
        ("zone.left", "crossed", 1, 0),
    ]
    assert events[0].time_ns == EPOCH_NS + round(1.3 * 1e9)
    assert events[0].data["seen_ns"] == EPOCH_NS + round(1.0 * 1e9), "when it came, not when it was believed"
    assert events[1].data["dwell_s"] == pytest.approx(2.0)


def test_who_appears_inside_has_entered_and_who_vanishes_has_left() -> None:
    counts, events = stay([[IN] * 20], Zone(name="yard", points=YARD, forget_s=1.0), after=5)
    assert counts == {"yard.inside": 1, "yard.entered": 1, "yard.left": 0}
    counts, events = stay([[IN] * 20], Zone(name="yard", points=YARD, forget_s=1.0), after=15)
    assert counts == {"yard.inside": 0, "yard.entered": 1, "yard.left": 1}
    assert told(events, "how") == [("zone.entered", "appeared"), ("zone.left", "vanished")]
    assert events[1].data["dwell_s"] == pytest.approx(1.9), "until it was last seen"


def test_a_glance_is_no_stay() -> None:
    peek = [*[OUT] * 9, IN, IN, *[OUT] * 9, IN, *[OUT] * 5]
    assert stay([peek]) == ({"yard.inside": 0, "yard.entered": 0, "yard.left": 0}, [])
    assert stay([peek], Zone(name="yard", points=YARD, settle_s=0))[0]["yard.entered"] == 2


def test_jitter_on_the_border_counts_once() -> None:
    border = [(300 + (-1) ** at * 3, 200) for at in range(100)]
    assert stay([[*[OUT] * 5, *border, *[IN] * 9]])[0] == {"yard.inside": 1, "yard.entered": 1, "yard.left": 0}


def test_dwell_is_said_once_per_stay() -> None:
    options = Zone(name="yard", points=YARD, dwell_s=2.0)
    counts, events = stay([[*[IN] * 50, *[OUT] * 9, *[IN] * 9, *[OUT] * 9, *[IN] * 30]], options)
    assert counts == {"yard.inside": 1, "yard.entered": 3, "yard.left": 2, "yard.dwelled": 2}
    dwells = [event for event in events if event.kind == "zone.dwell"]
    assert [event.data["dwell_s"] for event in dwells] == pytest.approx([2.0, 2.0])
    assert dwells[0].time_ns == EPOCH_NS + 2 * 10**9


def test_classes_and_counts_per_class() -> None:
    step = Zone(name="yard", points=YARD, classes=["person", 2], per_class=True).build(LABELS)
    for at in range(9):
        rows = [(190, 160, 210, 200, 0.9, class_id) for class_id in (0, 1, 2, 2)]
        step(result_of(boxes(*rows, ids=[1, 2, 3, 4]), at * FRAME_S))
    entered = {"yard.entered": 3, "yard.entered.person": 1, "yard.entered.car": 2}
    inside = {"yard.inside": 3, "yard.inside.person": 1, "yard.inside.car": 2}
    assert dict(step.counts("cam")) == {**inside, **entered, "yard.left": 0}
    for at in range(9, 18):  # one car and the person leave, and the person is now taken for a car
        rows = [(490, 160, 510, 200, 0.9, 2), (490, 160, 510, 200, 0.9, 2), (190, 160, 210, 200, 0.9, 2)]
        step(result_of(boxes(*rows, ids=[1, 3, 4]), at * FRAME_S))
    inside = {"yard.inside": 1, "yard.inside.person": 0, "yard.inside.car": 1}
    left = {"yard.left": 2, "yard.left.car": 2}
    assert dict(step.counts("cam")) == {**inside, **entered, **left}


def test_unconfirmed_objects_are_never_counted_and_a_tracker_is_asked_for() -> None:
    step = Zone(name="yard", points=YARD).build(LABELS)
    for at in range(20):
        step(result_of(standing_at(IN, IN, ids=[-1, -1]), at * FRAME_S))
    assert dict(step.counts("cam")) == {"yard.inside": 0, "yard.entered": 0, "yard.left": 0}
    with pytest.raises(ConfigError, match="nothing tracks"):
        step(result_of(standing_at(IN), 3.0))


def test_events_can_be_sent() -> None:
    _, events = stay([[*[OUT] * 9, *[IN] * 9]])
    assert json.loads(json.dumps(events[0].data))["point"] == [200.0, 200.0]


def test_memory_stays_bounded_when_ids_never_end() -> None:
    step = Zone(name="yard", points=YARD, forget_s=86_400, settle_s=0).build(LABELS)
    for at in range(60):
        ids = list(range(at * 100, at * 100 + 100))
        step(result_of(standing_at(*[IN] * 100, ids=ids), at * FRAME_S))
    (counter,) = step._steps.values()
    assert isinstance(counter, ZoneCounter)
    assert len(counter._stays) <= 4096 + 100
    counts = dict(step.counts("cam"))
    assert counts["yard.inside"] == counts["yard.entered"] - counts["yard.left"] == len(counter._stays)


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from([IN, OUT, None]), st.integers(1, 12)), min_size=1, max_size=8),
        min_size=1,
        max_size=4,
    )
)
def test_inside_is_what_entered_less_what_left(people: list[list[tuple[tuple[int, int] | None, int]]]) -> None:
    paths = [[point for point, frames in person for _ in range(frames)] for person in people]
    options = Zone(name="yard", points=YARD, forget_s=0.5)
    counts, events = stay(paths, options)
    assert counts["yard.inside"] == counts["yard.entered"] - counts["yard.left"]
    assert 0 <= counts["yard.inside"] <= len(paths)
    for number in range(1, len(paths) + 1):
        kinds = [event.kind for event in events if event.data["tracker_id"] == number]
        assert kinds == ["zone.entered", "zone.left"] * (len(kinds) // 2) + ["zone.entered"] * (len(kinds) % 2)
    assert stay(paths, options, after=20)[0]["yard.inside"] == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9)), min_size=1, max_size=20))
def test_counts_are_those_of_the_places_held_for_settle(runs: list[tuple[bool, int]]) -> None:
    path = [IN if is_in else OUT for is_in, frames in runs for _ in range(frames)]
    held = [place for place, run in groupby(path) if len(list(run)) > 3]
    stays = [place for place, _ in groupby(held)]
    counts = stay([path])[0]
    assert counts["yard.entered"] == stays.count(IN)
    assert counts["yard.left"] == sum(1 for before, after in pairwise(stays) if before == IN)


def test_a_street_is_occupied_as_its_tracks_stand() -> None:
    """Against whole tracks looked at afterwards: who was in the polygon for 0.3 s, and who still is at the end."""
    area = [(150, 150), (550, 120), (650, 450), (100, 500)]
    track, zone = Track().build(), Zone(name="area", points=area, forget_s=86_400).build(LABELS)
    places: dict[int, list[tuple[int, bool]]] = {}
    for at, found in enumerate(street()):
        result = zone(track(result_of(found, at * FRAME_S)))
        for box, one in zip(result.detections.xyxy.tolist(), result.detections.tracker_id.tolist(), strict=True):
            if one >= 0:
                places.setdefault(one, []).append((at, _is_in((box[0] + box[2]) / 2, box[3], area)))
    entered = left = 0
    for seen in places.values():
        runs = [list(run) for _, run in groupby(seen, key=lambda one: one[1])]
        held = [run[0][1] for run in runs if run[-1][0] - run[0][0] >= 3]
        stays = [is_in for is_in, _ in groupby(held)]
        entered += stays.count(True)
        left += sum(1 for before in stays[:-1] if before)
    assert entered >= 5
    assert dict(zone.counts("cam")) == {"area.inside": entered - left, "area.entered": entered, "area.left": left}


def _is_in(x: float, y: float, area: list[tuple[int, int]]) -> bool:
    """A convex area: on the same side of every edge."""
    corners = np.array(area, float)
    edges = np.roll(corners, -1, axis=0) - corners
    return bool((edges[:, 0] * (y - corners[:, 1]) - edges[:, 1] * (x - corners[:, 0]) >= 0).all())


def test_who_is_lost_behind_a_post_is_inside_for_no_longer_than_the_tracker_looks_for_them() -> None:
    inside = []
    for lost_s in (1.0, 3.0):
        _, zone = linked_steps([Track(lost_s=lost_s), Zone(name="yard", points=YARD)])
        assert isinstance(zone, Zone)
        assert zone.forget_s == lost_s
        inside.append(stay([[IN] * 20], zone, after=15)[0]["yard.inside"])
    assert inside == [0, 1]


def test_a_zone_that_says_how_long_it_remembers_is_left_so() -> None:
    zone = Zone(name="yard", points=YARD, forget_s=7.0)
    assert linked_steps([Track(), zone])[1] == zone


def test_an_id_that_is_still_there_after_a_long_gap_between_frames_neither_leaves_nor_enters() -> None:
    step = Zone(name="yard", points=YARD, forget_s=2.0).build(LABELS)
    events = [
        event for at in (0.0, 1.0, 6.0, 11.0, 14.5) for event in step(result_of(standing_at(IN, ids=[1]), at)).events
    ]
    assert told(events, "how") == [("zone.entered", "appeared")]
    assert step.counts("cam") == {"yard.inside": 1, "yard.entered": 1, "yard.left": 0}
