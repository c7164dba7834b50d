"""Rules one by one: hysteresis, cooldown, gaps, what events hold, what is drawn and what is remembered."""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.pipelines.loop.step_chain import StepLike, build_steps
from edgecv.pipelines.steps import (
    Absence,
    Appear,
    Crowd,
    Dwell,
    Leave,
    LeftBehind,
    Line,
    Options,
    PerSource,
    Speed,
    Zone,
)
from edgecv.pipelines.steps.count.memory import MOST_OBJECTS
from edgecv.pipelines.steps.exchange import adopt_steps
from edgecv.results import Frame, Result
from tests.unit.pipelines.recorded import EPOCH_NS, LABELS, boxes, result_of, standing_at
from tests.unit.pipelines.scripted import Actor, Way, frames, stand, told, walk

IN, OUT = (200, 200), (600, 200)
YARD = ((100, 100), (300, 100), (300, 300), (100, 300))


def seen(rules: Sequence[StepLike], *ways: Way, seconds: float = 60, fps: float = 10) -> list[Event]:
    return told(rules, frames([Actor(way=way) for way in ways], seconds, fps))


def short(events: Sequence[Event]) -> list[tuple[str, float]]:
    return [(event.kind, round((event.time_ns - EPOCH_NS) / 1e9, 1)) for event in events]


def one_of(rule: Options, others: Sequence[StepLike] = ()) -> PerSource:
    step = build_steps([*others, rule], LABELS)[-1].step
    assert isinstance(step, PerSource)
    return step


def test_a_crowd_begins_and_ends_at_different_numbers() -> None:
    rule = Crowd(name="queue", least=3, ends_below=2, for_s=0, clear_s=0)
    ways = stand(0, 50, IN), stand(5, 40, IN), stand(10, 20, IN), stand(25, 30, IN)
    events = seen([rule], *ways)
    assert short(events) == [("crowd.began", 10.0), ("crowd.ended", 40.0)]
    began, ended = events
    assert began.data["count"] == 3
    assert {one["tracker_id"] for one in began.data["objects"]} == {1, 2, 3}
    assert (ended.data["count"], ended.data["peak"], ended.data["lasted_s"]) == (1, 3, 30.0)
    assert short(seen([Crowd(name="queue", least=3, for_s=0, clear_s=0)], *ways)) == [
        *(("crowd.began", 10.0), ("crowd.ended", 20.0)),
        *(("crowd.began", 25.0), ("crowd.ended", 30.0)),
    ]


def test_what_is_too_short_does_not_begin_and_short_breaks_do_not_end() -> None:
    rule = Dwell(name="stay", for_s=10, clear_s=2)
    late = stand(20, 29, IN)
    flickers = [stand(0, 4, IN), stand(5, 9, IN), stand(10.5, 16, IN)]

    def one(second: float) -> tuple[float, float] | None:
        return next((place for way in flickers if (place := way(second))), None)

    events = seen([rule], one, late)
    assert short(events) == [("dwell.began", 10.5), ("dwell.ended", 18.0)], (
        "at 10.0 it was not there, and at 10.5 it was again"
    )
    assert events[1].data["lasted_s"] == 16.0
    assert events[1].data["tracker_id"] == 1


def test_how_a_stay_ended() -> None:
    rule = Dwell(name="stay", points=YARD, for_s=1, clear_s=1)
    events = seen([rule], stand(0, 5, IN), walk((0, IN), (5, IN), (5.01, OUT), (30, OUT)))
    assert sorted(event.data["how"] for event in events if event.kind == "dwell.ended") == ["crossed", "vanished"]


def test_a_cooldown_puts_off_a_state_and_skips_what_has_no_length() -> None:
    ways = stand(0, 50, IN), stand(3, 50, IN), stand(6, 50, IN), stand(30, 50, IN)
    assert short(seen([Dwell(name="stay", for_s=1, cooldown_s=20)], *ways))[:3] == [
        ("dwell.began", 1.0),
        ("dwell.began", 21.0),
        ("dwell.began", 41.0),
    ]
    rule = Appear(name="come", for_s=1, cooldown_s=20)
    events = seen([rule], *ways)
    assert short(events) == [("object.appeared", 1.0), ("object.appeared", 31.0)]
    assert "skipped" not in events[0].data
    assert events[1].data["skipped"] == 2
    step = one_of(rule)
    for result in frames([Actor(way=way) for way in ways], 40, 5):
        step(result)
    assert dict(step.counts("cam")) == {"come.inside": 4, "come.appeared": 4}, "all are counted"


def test_who_left_was_there_before_and_stayed_away() -> None:
    rule = Leave(name="gone", points=YARD, for_s=2, clear_s=0.5)
    back = walk((0, IN), (5, IN), (5.01, OUT), (6, OUT), (6.01, IN), (9, IN), (9.01, OUT), (20, OUT))
    assert short(seen([rule], back, stand(1, 1.3, IN))) == [("object.left", 11.1)]


def test_absence_is_said_after_frames_that_a_gate_skipped() -> None:
    """Nobody moves from second 10 to 100, so no frame passes; the frame that does shows somebody again."""
    scene = [Actor(way=stand(0, 10, IN)), Actor(way=stand(100, 110, IN))]
    passed = [one for one in frames(scene, 120, 10) if not 10.5 < one.frame.monotonic_ns / 1e9 - 5 < 100]
    events = told([Absence(name="idle", for_s=60)], passed)
    assert short(events) == [("absence.began", 70.0), ("absence.ended", 100.0)]
    assert [one["tracker_id"] for one in events[0].data["last"]] == [1]
    assert [one["tracker_id"] for one in events[1].data["objects"]] == [2]


def test_nothing_is_made_of_a_time_without_a_camera() -> None:
    """The same frames, but the camera itself gave none between: their numbers follow one another."""
    scene = [Actor(way=stand(0, 10, IN)), Actor(way=stand(130, 140, IN))]
    passed = [one for one in frames(scene, 150, 10) if not 10.5 < one.frame.monotonic_ns / 1e9 - 5 < 100]
    away = [replace(one, frame=replace(one.frame, index=at)) for at, one in enumerate(passed)]
    assert short(told([Absence(name="idle", for_s=60)], passed)) == [("absence.began", 70.0), ("absence.ended", 130.0)]
    assert not told([Absence(name="idle", for_s=60)], away)
    assert short(told([Absence(name="idle", for_s=20)], away))[0] == ("absence.began", 120.0)
    assert short(told([Absence(name="idle", for_s=60, gap_s=100)], away))[0] == ("absence.began", 70.0)


def test_what_had_begun_goes_on_after_a_gap() -> None:
    passed = [
        one
        for one in frames([Actor(way=stand(0, 200, IN))], 150, 10)
        if not 50 < one.frame.monotonic_ns / 1e9 - 5 < 100
    ]
    away = [replace(one, frame=replace(one.frame, index=at)) for at, one in enumerate(passed)]
    assert short(told([Crowd(name="queue", least=1, for_s=5)], away)) == [("crowd.began", 5.0)]
    assert short(told([Crowd(name="queue", least=1, for_s=60)], away)) == []


def test_left_behind_is_known_by_its_place() -> None:
    """The id changes, somebody passes, the detector blinks; the owner comes back in the end."""
    rule = LeftBehind(name="bag", classes=["bicycle"], for_s=20, clear_s=3)
    bags = [Actor(way=stand(begin, end, IN), class_id=1) for begin, end in ((0, 8), (9, 15), (15, 60))]
    passer = Actor(way=walk((10, (120, 200)), (11.5, (280, 200))))
    owner = Actor(way=walk((40, (210, 200)), (50, (210, 200))))
    events = told([rule], frames([*bags, passer, owner], 60, 10))
    assert short(events) == [("left_behind.began", 20.0), ("left_behind.ended", 43.0)]
    assert events[0].data["label"] == "bicycle"
    assert events[1].data["how"] == "attended"
    assert not told([rule], frames([*bags, Actor(way=stand(0, 60, (250, 200)))], 60, 5)), "somebody stands by it"


def test_what_is_carried_is_not_left_behind() -> None:
    rule = LeftBehind(name="bag", classes=["bicycle"], for_s=5)
    step = one_of(rule)
    for result in frames([Actor(way=walk((0, (50, 200)), (30, (700, 200))), class_id=1)], 30, 10):
        assert not step(result).events
    assert len(step._steps["cam"]._kept.known.spots) < 12  # type: ignore[attr-defined]


def test_speeds_beyond_limits_in_either_direction_once_each() -> None:
    lines = [Line(name="first", points=[[200, 0], [200, 576]]), Line(name="second", points=[[500, 0], [500, 576]])]
    rule = Speed(name="road", lines=["first", "second"], distance_m=30, unit="m/s", over=8, under=4)
    ways = [
        walk(
            (1, (100, 200)), (5, (500.5, 200)), (5.2, (499, 200)), (5.4, (501, 200)), (9, (700, 200))
        ),  # jitter: 10 m/s
        walk((1, (100, 200)), (7, (700, 200))),  # 10 m/s
        walk((1, (700, 300)), (9, (100, 300))),  # back, 7.5 m/s: within the limits
        walk((1, (700, 400)), (21, (100, 400))),  # back, 3 m/s
        walk((1, (100, 100)), (3, (300, 100)), (6, (100, 100))),  # turns
    ]
    events = [one for one in seen([*lines, rule], *ways) if "rule" in one.data]
    facts = [(one.kind, one.data["tracker_id"], one.data["direction"], one.data["limit"]) for one in events]
    assert sorted(facts) == [
        ("speed.over", 1, "forth", 8.0),
        ("speed.over", 2, "forth", 8.0),
        ("speed.under", 4, "back", 4.0),
    ]
    assert {one.data["tracker_id"]: one.data["speed"] for one in events} == pytest.approx(
        {1: 10, 2: 10, 4: 3}, rel=0.02
    )


def test_events_hold_what_json_can_and_where_to_look() -> None:
    events = seen([Dwell(name="stay", points=YARD, for_s=1), Crowd(name="queue", least=1)], stand(0.05, 9, IN), fps=5)
    for event in events:
        assert json.loads(json.dumps(event.as_dict())) == event.as_dict()
    dwell = next(event for event in events if event.kind == "dwell.began")
    assert dwell.data["since_ns"] == EPOCH_NS + 200_000_000
    assert dwell.data["seen_ns"] == EPOCH_NS + 1_200_000_000
    assert dwell.data["xyxy"] == [190.0, 160.0, 210.0, 200.0]


def test_events_of_a_file_say_at_which_second_they_were() -> None:
    rule = one_of(Absence(name="idle", for_s=3.3))
    events: list[Event] = []
    for result in frames([], 10, 2):
        played = replace(result.frame, position_ns=result.frame.monotonic_ns - 5_000_000_000, monotonic_ns=10**9)
        events += rule(replace(result, frame=played)).events
    assert [event.data["position_s"] for event in events] == [3.3]


def test_the_alarm_lane() -> None:
    (event, _) = seen([Crowd(name="queue", least=1, priority="alarm")], stand(0, 20, IN))
    assert event.priority == "alarm"


def test_a_rule_draws_its_area_or_marks_the_zone_that_it_names() -> None:
    zone = Zone(name="yard", points=YARD)
    rules = [Crowd(name="own", points=YARD, least=1, for_s=0), Crowd(name="linked", zone="yard", least=1, for_s=0)]
    chain = build_steps([zone, *rules], LABELS)
    active = []
    for result in (result_of(standing_at(ids=[]), 0.0), result_of(standing_at(IN, ids=[1]), 1.0)):
        current = result
        for one in chain:
            current = one.step(current)  # type: ignore[assignment]
        active.append({one.name: one.active for one in current.overlays})
        assert all(one.points == YARD for one in current.overlays)
    assert active == [{"yard": False, "own": False}, {"yard": True, "own": True}]


def test_a_rule_goes_on_where_another_one_was_when_its_zone_is_moved() -> None:
    def steps(right: float) -> list[StepLike]:
        moved = ((100, 100), (right, 100), (right, 300), (100, 300))
        zone = Zone(name="yard", points=moved)
        return [zone, Dwell(name="stay", zone="yard", for_s=10), Absence(name="idle", zone="yard", for_s=30)]

    chain = build_steps(steps(300), LABELS)
    events: list[Event] = []
    for at, result in enumerate(frames([Actor(way=stand(0, 60, IN))], 40, 5)):
        if at in (25, 100):  # after 5 seconds the border comes nearer, after 20 it lies beyond the object
            chain = build_steps(steps(250 if at == 25 else 150), LABELS, chain)
            adopt_steps(chain)
        for one in chain:
            given = one.step(result)
            assert given is not None
            events += [event for event in given.events if "rule" in event.data]
    assert short(events) == [("dwell.began", 10.0), ("dwell.ended", 22.0)]
    assert events[1].data["how"] == "crossed"


def test_memory_is_bounded_and_holds_no_image() -> None:
    rules = [
        Dwell(name="stay", for_s=3600, clear_s=86_400),
        LeftBehind(name="bag", classes=["bicycle"], for_s=3600, clear_s=86_400),
        Speed(name="road", lines=(((10, 0), (10, 500)), ((900, 0), (900, 500))), distance_m=1),
        Absence(name="idle", for_s=60),
    ]
    steps = build_steps(rules, LABELS)
    place = np.random.default_rng(1).uniform(0, 700, (60, 100, 2))
    for at in range(60):
        image = np.zeros((576, 768, 3), np.uint8)
        rows = [(x, y, x + 20, y + 20, 0.9, number % 2) for number, (x, y) in enumerate(place[at].tolist())]
        found = boxes(*rows, ids=range(at * 100, at * 100 + 100))
        frame = Frame(
            image=image, index=at, source_id="cam", captured_ns=EPOCH_NS + at * 10**9, monotonic_ns=at * 10**9
        )
        for one in steps:
            one.step(Result(frame=frame, labels=LABELS, detections=found))
    kept = {one.name: one.step._steps["cam"]._kept for one in steps}  # type: ignore[attr-defined]
    assert len(kept["stay"].known.stays) <= MOST_OBJECTS
    assert len(kept["bag"].known.spots) <= 256
    assert len(kept["road"].known.lost) <= 300
    del image, frame, found
    gc.collect()
    assert not [
        one
        for one in gc.get_objects()
        if isinstance(one, Frame) and one.source_id == "cam" and one.captured_ns >= EPOCH_NS
    ]
    assert not [array for one in kept.values() for array in _arrays(one) if array.dtype == np.uint8 and array.ndim == 3]


def _arrays(root: object) -> list[np.ndarray]:
    found, todo, known = [], [root], set()
    while todo:
        one = todo.pop()
        if id(one) in known or isinstance(one, type) or callable(one):
            continue
        known.add(id(one))
        if isinstance(one, np.ndarray):
            found.append(one)
            todo.append(one.base)
        todo += gc.get_referents(one)
    return found


FOLLOWERS = (
    Dwell(name="x", for_s=1),
    Appear(name="x"),
    Leave(name="x"),
    Speed(name="x", lines=(YARD[:2], YARD[2:]), distance_m=1),
)


@pytest.mark.parametrize("rule", FOLLOWERS)
def test_who_follows_objects_asks_for_a_tracker(rule: Options) -> None:
    assert rule.needs_ids
    with pytest.raises(ConfigError, match="nothing tracks them"):
        one_of(rule)(result_of(standing_at(IN)))
    with pytest.raises(ConfigError, match="this model gives none"):
        one_of(rule)(result_of(None))


def test_a_crowd_and_an_absence_need_no_tracker_and_trust_one_that_runs() -> None:
    rule = one_of(Crowd(name="queue", least=1, for_s=0))
    assert rule(result_of(standing_at(IN))).events
    rule = one_of(Crowd(name="queue", least=1, for_s=0))
    assert not rule(result_of(standing_at(IN, ids=[-1]))).events
