"""Lines: one count per crossing, none for jitter, and a number that an independent count of a street confirms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain, groupby, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.pipelines.loop.step_chain import check_ids
from edgecv.pipelines.steps import Classes, Line, Track
from edgecv.pipelines.steps.count.line import LineCounter
from edgecv.results import Result
from tests.unit.pipelines.recorded import EPOCH_NS, LABELS, boxes, result_of, standing_at, street

LEVEL = [[100, 300], [500, 300]]  # from left to right: the right side is below
FRAME_S = 0.1

Path = Sequence[tuple[float, float] | None]  # where an object is in each frame; None while it is out of sight


def count(
    paths: Sequence[Path], options: Line | None = None, frame_s: float = FRAME_S
) -> tuple[dict[str, int], list[Event]]:
    """Walk objects 1, 2, ... along their paths; the counts and the events."""
    step = (options or Line(name="door", points=LEVEL)).build(LABELS)
    events: list[Event] = []
    for at in range(max(map(len, paths))):
        there = [(number, path[at]) for number, path in enumerate(paths, start=1) if at < len(path) and path[at]]
        found = standing_at(*(point for _, point in there if point), ids=[number for number, _ in there])
        events += step(result_of(found, at * frame_s)).events
    return dict(step.counts("cam")), events


def down(x: float = 300, start: float = 200, stop: float = 400, pace: float = 10) -> Path:
    return [(x, y) for y in np.arange(start, stop, pace)]


def up(**more: float) -> Path:
    return down(**more)[::-1]


def test_each_direction_counts_for_itself() -> None:
    counts, events = count([down(), up(), down(x=200)])
    assert counts == {"door.in": 2, "door.out": 1}
    assert [event.kind for event in events] == ["line.crossed"] * 3


def test_a_line_drawn_the_other_way_swaps_the_directions() -> None:
    assert count([down()], Line(name="door", points=LEVEL[::-1]))[0] == {"door.in": 0, "door.out": 1}
    named = Line(name="road", points=LEVEL, directions=("south", "north"))
    assert count([down(), up(), up()], named)[0] == {"road.south": 1, "road.north": 2}


def test_who_walks_past_the_end_of_the_line_does_not_count() -> None:
    round_the_end = [*down(x=300, stop=290), *((x, 285) for x in range(300, 560, 20)), *down(x=560, start=285)]
    assert count([down(x=50), round_the_end])[0] == {"door.in": 0, "door.out": 0}
    back_through = [*round_the_end, *((x, 400) for x in range(550, 300, -10)), *up(x=300)]
    assert count([back_through])[0] == {"door.in": 0, "door.out": 1}


def test_jitter_on_the_line_counts_once() -> None:
    jitter = [(300, 300 + (-1) ** at * 4) for at in range(101)]
    assert count([[*down(stop=300), *jitter, *down(start=305)]])[0] == {"door.in": 1, "door.out": 0}
    assert count([[*down(stop=300), *jitter, *up(stop=300)]])[0] == {"door.in": 0, "door.out": 0}


def test_a_step_across_shorter_than_settle_does_not_count() -> None:
    peek = [*down(stop=300), (300, 305), (300, 310), *up(start=200, stop=300)]
    assert count([peek])[0] == {"door.in": 0, "door.out": 0}
    assert count([peek], Line(name="door", points=LEVEL, settle_s=0))[0] == {"door.in": 1, "door.out": 1}


def test_settling_is_measured_in_seconds_not_in_frames() -> None:
    short = [*down(stop=300), (300, 305), (300, 310), *up(start=200, stop=300)]
    assert count([short], frame_s=0.1)[0]["door.in"] == 0
    assert count([short], frame_s=0.4)[0]["door.in"] == 1


def test_an_object_that_is_out_of_sight_on_the_line_counts() -> None:
    hidden = [*down(stop=280), *[None] * 20, *down(start=330)]
    assert count([hidden])[0]["door.in"] == 1
    assert count([hidden], Line(name="door", points=LEVEL, forget_s=1.0))[0]["door.in"] == 0, "forgotten in between"


def test_what_appears_on_the_line_has_come_from_nowhere() -> None:
    assert count([[(300, 298), *down(start=305)]])[0]["door.in"] == 0


def test_unconfirmed_objects_are_never_counted() -> None:
    step = Line(name="door", points=LEVEL).build(LABELS)
    for at, y in enumerate(range(200, 400, 10)):
        step(result_of(standing_at((300, y), (200, 600 - y), ids=[-1, -1]), at * FRAME_S))
    assert dict(step.counts("cam")) == {"door.in": 0, "door.out": 0}


def test_without_a_tracker_the_first_frame_says_what_to_add() -> None:
    step = Line(name="door", points=LEVEL).build(LABELS)
    with pytest.raises(ConfigError, match="nothing tracks") as raised:
        step(result_of(boxes()))
    assert "track" in raised.value.hint
    with pytest.raises(ConfigError, match="gives none"):
        step(result_of(None))


def test_counting_what_nothing_tracks_is_seen_before_the_first_frame() -> None:
    line = Line(name="door", points=LEVEL)
    for steps in ([line], [Classes(keep=("person",)), line], [line, Track()]):
        with pytest.raises(ConfigError, match="'door' needs tracked objects"):
            check_ids(steps)
    check_ids([Track(), Classes(keep=("person",)), line])
    check_ids([lambda result: result, line])  # a function may give ids


def test_sources_are_counted_apart() -> None:
    step = Line(name="door", points=LEVEL).build(LABELS)
    for at, (x, y) in enumerate(down()):
        step(result_of(standing_at((x, y), ids=[1]), at * FRAME_S, "a"))
        step(result_of(standing_at((x, 600 - y), ids=[1]), at * FRAME_S, "b"))
    assert dict(step.counts("a")) == {"door.in": 1, "door.out": 0}
    assert dict(step.counts("b")) == {"door.in": 0, "door.out": 1}
    assert dict(step.counts("c")) == {}


def test_classes_and_counts_per_class() -> None:
    step = Line(name="door", points=LEVEL, classes=["person", "car"], per_class=True).build(LABELS)
    for at in range(20):
        y = 200 + 10 * at
        rows = [(x, y - 40, x + 20, y, 0.9, class_id) for x, class_id in ((150, 0), (250, 1), (350, 2), (400, 2))]
        step(result_of(boxes(*rows, ids=[1, 2, 3, 4]), at * FRAME_S))
    assert dict(step.counts("cam")) == {"door.in": 3, "door.out": 0, "door.in.person": 1, "door.in.car": 2}


def test_each_count_leaves_a_record() -> None:
    (event,) = count([down()])[1]
    assert event.source_id == "cam"
    assert event.time_ns == EPOCH_NS + round(1.3 * 1e9), "0.3 s after it crossed in the eleventh frame"
    data: dict[str, Any] = json.loads(json.dumps(event.data))
    assert data == {
        "counter": "door",
        "direction": "in",
        "total": 1,
        "tracker_id": 1,
        "class_id": 0,
        "label": "person",
        "confidence": pytest.approx(0.9),
        "xyxy": [290.0, 260.0, 310.0, 300.0],
        "point": [300.0, 300.0],
        "seen_ns": EPOCH_NS + 10**9,
    }


def test_events_of_earlier_steps_stay() -> None:
    step = Line(name="door", points=LEVEL, settle_s=0).build(LABELS)
    step(result_of(standing_at((300, 200), ids=[1])))
    earlier = Event(kind="other", time_ns=1)
    result = result_of(standing_at((300, 400), ids=[1]), 0.1)
    both = step(Result(frame=result.frame, labels=LABELS, detections=result.detections, events=(earlier,)))
    assert [event.kind for event in both.events] == ["other", "line.crossed"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": [[1, 2]]}, "points"),
        ({"points": [[5, 5], [5, 5]]}, "two different"),
        ({"points": [[0.1, 0.5], [0.9, 0.5]]}, "smaller than a pixel"),
        ({"points": LEVEL, "name": "a.b"}, "name"),
        ({"points": LEVEL, "settle_s": -1}, "settle_s"),
        ({"points": LEVEL, "anchor": "middle"}, "anchor"),
        ({"points": LEVEL, "classes": ["persn"]}, "persn"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Line(**{"name": "door", **options}).build(LABELS)


def test_memory_stays_bounded_when_ids_never_end() -> None:
    step = Line(name="door", points=LEVEL, forget_s=86_400).build(LABELS)
    for at in range(60):
        ids = list(range(at * 100, at * 100 + 100))
        step(result_of(standing_at(*[(300, 200)] * 100, ids=ids), at * FRAME_S))
    (counter,) = step._steps.values()
    assert isinstance(counter, LineCounter)
    assert len(counter._walks) <= 4096 + 100


# Jitter of up to 0.2 s to the other side, in 0.1 s frames, around stays of 0.5 s and more: `settle_s` is 0.3.
sides = st.lists(st.sampled_from([1, -1]), min_size=1, max_size=8)
jitters = st.lists(st.integers(0, 2), min_size=40, max_size=40)


def visits(stays: list[int], flips: list[int], lengths: list[int]) -> Path:
    """Stays on sides of the line of at least 0.5 s, with frames on the wrong side strewn in that last no 0.3 s."""
    path: list[tuple[float, float]] = []
    for at, side in enumerate(stays):
        wrong = [-side] * flips[at]
        path += [(300, 300 + 20 * here) for here in [side] * (5 + lengths[at]) + wrong + [side] * 5]
    return path


@given(sides, jitters, st.lists(st.integers(0, 6), min_size=8, max_size=8))
def test_in_less_out_is_the_change_of_side_and_jitter_changes_nothing(
    stays: list[int], flips: list[int], lengths: list[int]
) -> None:
    counts, events = count([visits(stays, flips, lengths)])
    settled = [side for side, _ in groupby(stays)]
    assert counts["door.in"] - counts["door.out"] == (settled[-1] - settled[0]) // 2
    assert counts == count([visits(stays, [0] * 40, lengths)])[0], "the same without jitter"
    assert counts["door.in"] + counts["door.out"] == len(settled) - 1 == len(events)


@given(st.lists(st.tuples(st.sampled_from([1, -1]), st.integers(1, 9)), min_size=1, max_size=30))
def test_counts_are_those_of_the_sides_held_for_settle(runs: list[tuple[int, int]]) -> None:
    """Written out: runs of one side, of which only those seen for 0.3 s are believed."""
    path = [(300.0, 300.0 + 20 * side) for side, frames in runs for _ in range(frames)]
    held = [side for side, run in groupby(1 if y > 300 else -1 for _, y in path) if len(list(run)) > 3]
    changes = [after for before, after in pairwise(held) if before != after]
    counts, _ = count([path])
    assert counts == {"door.in": changes.count(1), "door.out": changes.count(-1)}


@pytest.mark.parametrize(
    "line", [((300, 100), (300, 560)), ((100, 300), (700, 300)), ((200, 560), (600, 150))], ids=str
)
def test_a_street_is_counted_as_its_tracks_cross(line: tuple[tuple[int, int], tuple[int, int]]) -> None:
    """Against whole tracks looked at afterwards: on which side was each for longer than ``settle_s``, one after the other?"""
    track = Track().build()
    counter = Line(name="street", points=line, classes=["person"]).build(LABELS)
    tracks: dict[int, list[tuple[float, float, float]]] = {}
    events: list[Event] = []
    for at, found in enumerate(street()):
        result = counter(track(result_of(found, at * FRAME_S)))
        events += result.events
        for box, one, kind in zip(
            result.detections.xyxy.tolist(), result.detections.tracker_id.tolist(), found.class_id.tolist(), strict=True
        ):
            if one >= 0 and kind == 0:
                tracks.setdefault(one, []).append((at * FRAME_S, (box[0] + box[2]) / 2, box[3]))
    wanted = list(chain.from_iterable(_crossings(points, *line) for points in tracks.values()))
    counts = dict(counter.counts("cam"))
    assert counts == {"street.in": wanted.count(1), "street.out": wanted.count(-1)}
    assert len(events) == len(wanted) >= 3
    assert all(event.data["tracker_id"] in tracks for event in events)


def _crossings(points: list[tuple[float, float, float]], start: tuple[int, int], end: tuple[int, int]) -> list[int]:
    """The sides that a track held for 0.3 s, by the slope of the line; no pieces of these lines end inside the street."""
    normal = np.array([-(end[1] - start[1]), end[0] - start[0]])
    signs = [(at, 1 if (np.array([x, min(y, 574.5)]) - start) @ normal >= 0 else -1) for at, x, y in points]
    runs = [list(run) for _, run in groupby(signs, key=lambda one: one[1])]
    held = [run[0][1] for run in runs if run[-1][0] - run[0][0] >= 0.3 - 1e-9]
    return [after for before, after in pairwise(held) if before != after]
