"""Rules judge by times: the same scene gives the same events at 2 and at 30 frames a second, within one frame of the slower one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from edgecv.events import Event
from edgecv.pipelines.loop.step_chain import StepLike
from edgecv.pipelines.steps import Absence, Appear, Crowd, Dwell, Leave, LeftBehind, Speed, Track, Zone
from tests.unit.pipelines.recorded import EPOCH_NS
from tests.unit.pipelines.scripted import Actor, frames, stand, told, walk

PERSON, BICYCLE, CAR = range(3)
HALL = ((100, 100), (400, 100), (400, 400), (100, 400))
ROAD = (((450, 0), (450, 576)), ((700, 0), (700, 576)))
SCENE_S = 60.0
SCENE = (
    Actor(way=stand(1.23, 20.4, (200, 200))),
    Actor(way=stand(5.31, 16.3, (260, 200))),
    Actor(way=stand(6.14, 14.77, (320, 200))),
    Actor(way=walk((25, (420, 300)), (30.3, (740, 310))), class_id=CAR, size_wh=(60, 40)),  # 250 px of road in 4.14 s
    Actor(way=walk((33, (760, 330)), (38, (410, 330))), class_id=CAR, size_wh=(60, 40)),  # and back, faster
    Actor(way=stand(2, 45.4, (600, 500)), class_id=BICYCLE),  # put down by the next, who goes away
    Actor(way=walk((1.3, (610, 505)), (4, (610, 505)), (8, (760, 505)))),
    Actor(way=stand(38.2, 41.1, (300, 300))),
    Actor(way=walk((46, (50, 250)), (56, (450, 250)))),  # through the hall from 47.25 to 54.75
)
RULES: tuple[StepLike, ...] = (
    Zone(name="hall", points=HALL, settle_s=0),
    Crowd(name="queue", zone="hall", least=3, ends_below=2, for_s=3),
    Dwell(name="loitering", zone="hall", for_s=8, classes=("person",)),
    Absence(name="idle", zone="hall", for_s=10),
    Appear(name="come", zone="hall"),
    Leave(name="gone", zone="hall"),
    LeftBehind(name="luggage", classes=("bicycle",), for_s=10),
    Speed(name="road", lines=ROAD, distance_m=10, classes=("car",)),
)
# What a person who knows the scene writes down, in seconds.
TRUTH = {
    ("crowd.began", "queue", None): [6.14 + 3],
    ("crowd.ended", "queue", None): [16.3 + 2],
    ("dwell.began", "loitering", 1): [1.23 + 8],
    ("dwell.began", "loitering", 2): [5.31 + 8],
    ("dwell.began", "loitering", 3): [6.14 + 8],
    ("dwell.ended", "loitering", 1): [20.4 + 2],
    ("dwell.ended", "loitering", 2): [16.3 + 2],
    ("dwell.ended", "loitering", 3): [14.77 + 2],
    ("absence.began", "idle", None): [20.4 + 10],
    ("absence.ended", "idle", None): [38.2],
    ("object.appeared", "come", 1): [1.23 + 0.5],
    ("object.appeared", "come", 2): [5.31 + 0.5],
    ("object.appeared", "come", 3): [6.14 + 0.5],
    ("object.appeared", "come", 8): [38.2 + 0.5],
    ("object.appeared", "come", 9): [47.25 + 0.5],
    ("object.left", "gone", 1): [20.4 + 2],
    ("object.left", "gone", 2): [16.3 + 2],
    ("object.left", "gone", 3): [14.77 + 2],
    ("object.left", "gone", 8): [41.1 + 2],
    ("object.left", "gone", 9): [54.75 + 2],
    ("left_behind.began", "luggage", 6): [4 + 50 / 37.5 + 10],  # its owner is as far away as the owner's box is high
    ("left_behind.ended", "luggage", 6): [45.4 + 5],
    ("speed.measured", "road", 4): [29.6375],
    ("speed.measured", "road", 5): [33 + 310 / 70],
}


def by_rule(events: Sequence[Event]) -> dict[tuple[str, str, int | None], list[float]]:
    """Seconds after the begin, by kind, rule and object."""
    found: dict[tuple[str, str, int | None], list[float]] = {}
    for event in events:
        if "rule" in event.data:
            key = (event.kind, event.data["rule"], event.data.get("tracker_id"))
            found.setdefault(key, []).append((event.time_ns - EPOCH_NS) / 1e9)
    return found


def assert_same(found: dict[Any, list[float]], expected: dict[Any, list[float]], within_s: float) -> None:
    assert {key: len(times) for key, times in found.items()} == {key: len(times) for key, times in expected.items()}
    late = {
        key: (times, expected[key])
        for key, times in found.items()
        if times != pytest.approx(expected[key], abs=within_s)
    }
    assert not late


@cache
def fine() -> dict[tuple[str, str, int | None], list[float]]:
    return by_rule(told(RULES, frames(SCENE, SCENE_S, 30)))


@pytest.mark.parametrize(("fps", "phase"), [(2, 0.0), (2, 0.3), (2, 0.9), (5, 0.0), (5, 0.7), (10, 0.0), (30, 0.5)])
def test_the_same_events_at_any_rate(fps: int, phase: float) -> None:
    found = by_rule(told(RULES, frames(SCENE, SCENE_S, fps, phase=phase)))
    assert_same(found, fine(), 1 / fps)
    assert_same(found, TRUTH, 1 / fps)


def test_the_same_when_frames_come_as_they_like() -> None:
    """A camera whose rate changes, and that drops frames."""
    rng = np.random.default_rng(3)
    every = list(frames(SCENE, SCENE_S, 30))
    kept, at = [], 0
    while at < len(every):
        kept.append(every[at])
        at += int(rng.integers(1, 12))
    assert_same(by_rule(told(RULES, kept)), TRUTH, 0.4)


@pytest.mark.parametrize(
    "fps", [2, 5, pytest.param(10, marks=pytest.mark.slow), pytest.param(30, marks=pytest.mark.slow)]
)
def test_the_same_behind_a_real_tracker(fps: int) -> None:
    """With one that confirms at once: else an id comes a frame later."""
    found, expected = by_kind(fps), by_kind(10 if fps == 30 else 30 if fps == 10 else 10)
    assert {name: len(found[name]) for name in ("dwell.began", "left_behind.began", "crowd.began", "object.left")} == {
        "dwell.began": 3,
        "left_behind.began": 1,
        "crowd.began": 1,
        "object.left": 4,
    }
    assert_same(found, expected, 1 / min(fps, 10))


@cache
def by_kind(fps: int) -> dict[str, list[float]]:
    """Seconds of the events behind a real tracker, by kind: its ids are others."""
    slow = (*SCENE[:3], *SCENE[5:8])  # it loses what moves by more than itself between two frames
    rules = (Track(confirm=1, match=0.99, lost_s=1.0), *RULES)
    events = by_rule(told(rules, frames(slow, SCENE_S, fps, ids=False)))
    kinds = {kind for kind, _, _ in events}
    return {kind: sorted(at for key, times in events.items() if key[0] == kind for at in times) for kind in kinds}


@pytest.mark.parametrize("fps", [2, 5, 10])
def test_speeds_are_those_of_the_scene(fps: int) -> None:
    events = [event for event in told(RULES, frames(SCENE, SCENE_S, fps)) if event.kind == "speed.measured"]
    assert [event.data["direction"] for event in events] == ["forth", "back"]
    paces = [320 / 5.3, 350 / 5]  # pixels per second; 250 of them are 10 m
    assert [event.data["speed"] for event in events] == pytest.approx([pace / 25 * 3.6 for pace in paces], rel=0.01)


STAYS = st.lists(
    st.tuples(st.floats(0, 30), st.floats(0.2, 25), st.sampled_from([(200, 200), (300, 350), (600, 500)])),
    min_size=1,
    max_size=6,
)
LONG = 1.0  # seconds: more than two frames of the slower rate


def _has_margin(stays: Sequence[tuple[float, float, tuple[float, float]]], limits: Sequence[float]) -> bool:
    """Whether no length of time, of those that decide, is so near a limit that two frames a second cannot tell."""
    moments = sorted({0.0, *(at for begin, length, _ in stays for at in (begin, begin + length))})
    spans = [late - early for at, early in enumerate(moments) for late in moments[at + 1 :]]
    return not any(abs(span - limit) < LONG for span in spans for limit in limits) and all(
        span > LONG for span in spans
    )


@settings(max_examples=25, deadline=None)
@given(STAYS)
def test_any_scene_with_some_margin(stays: list[tuple[float, float, tuple[float, float]]]) -> None:
    if not _has_margin(stays, (2.0, 3.0, 5.0, 7.0, 8.0, 10.0)):
        return
    actors = [Actor(way=stand(begin, begin + length, place)) for begin, length, place in stays]
    rules = (
        Zone(name="hall", points=HALL),
        Crowd(name="queue", zone="hall", least=2, for_s=5),
        Dwell(name="loitering", zone="hall", for_s=8),
        Absence(name="idle", zone="hall", for_s=10),
        Appear(name="come", zone="hall", for_s=0),
        Leave(name="gone", zone="hall", clear_s=0),
    )
    slow, quick = (by_rule(told(rules, frames(actors, 70, fps))) for fps in (2, 10))
    assert_same(slow, quick, 0.5 + 1 / 10)
