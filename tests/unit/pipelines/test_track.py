"""Ids: who keeps one, who gets none, and what time does to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from edgecv.errors import ConfigError
from edgecv.pipelines.steps.track.tracker import ByteTracker, Track
from edgecv.results import Detections, Result
from tests.unit.pipelines.recorded import Crowd, boxes, result_of, standing_at, street

FRAME_S = 0.1


def walk(steps: Sequence[tuple[float, Detections]], options: Track | None = None) -> list[list[int]]:
    """The ids of each frame; times in seconds."""
    track = (options or Track()).build()
    found = [track(result_of(detections, seconds)) for seconds, detections in steps]
    return [result.detections.tracker_id.tolist() for result in found]


def walker(frames: Sequence[int], pace_px: float = 5.0) -> list[tuple[float, Detections]]:
    return [(at * FRAME_S, standing_at((100 + pace_px * at, 200))) for at in frames]


def test_an_id_comes_with_the_confirmation_and_stays() -> None:
    assert walk(walker(range(6))) == [[-1], [1], [1], [1], [1], [1]]
    assert walk(walker(range(4)), Track(confirm=1)) == [[1], [1], [1], [1]]
    assert walk(walker(range(6)), Track(confirm=4)) == [[-1], [-1], [-1], [1], [1], [1]]


def test_what_is_seen_once_uses_up_no_id() -> None:
    ghosts = [(at * FRAME_S, standing_at((100, 200), (300 + 97 * at, 400))) for at in range(4)]
    ids = walk([*ghosts, (0.4, standing_at((100, 200), (591, 400)))])
    assert [row[0] for row in ids] == [-1, 1, 1, 1, 1]
    assert [row[1] for row in ids] == [-1, -1, -1, -1, 2]


def test_every_detection_stays_and_keeps_its_box() -> None:
    found = boxes((10, 10, 50, 90, 0.9), (300, 10, 340, 90, 0.05), (500, 10, 500, 90, 0.9))
    track = Track(confirm=1).build()
    result = track(result_of(found))
    assert result.detections.tracker_id.tolist() == [1, -1, -1], "too unsure, and without an area"
    assert np.array_equal(result.detections.xyxy, found.xyxy)


def test_an_unsure_detection_carries_an_object_on_but_begins_none() -> None:
    sure, unsure = boxes((100, 100, 140, 180, 0.8)), boxes((100, 100, 140, 180, 0.15))
    times = [at * FRAME_S for at in range(5)]
    assert walk(list(zip(times, [sure, sure, unsure, unsure, sure], strict=True))) == [[-1], [1], [1], [1], [1]]
    assert walk(list(zip(times, [unsure] * 5, strict=True))) == [[-1]] * 5


@pytest.mark.parametrize(("away_s", "same"), [(0.5, True), (1.9, True), (2.5, False)])
@pytest.mark.parametrize("frame_s", [0.04, 0.1, 0.25])
def test_a_lost_object_keeps_its_id_for_seconds_at_any_frame_rate(frame_s: float, away_s: float, same: bool) -> None:
    here, nothing = standing_at((100, 200)), boxes()
    gone = np.arange(1.0 + frame_s, 1.0 + away_s - 1e-9, frame_s)
    back = 1.0 + away_s
    steps = [(at, here) for at in np.arange(0, 1.0 + 1e-9, frame_s)] + [(at, nothing) for at in gone]
    ids = walk([*steps, (back, here), (back + frame_s, here)], Track(lost_s=2.0))
    assert ids[-1] == ([1] if same else [2])


def test_dropped_frames_do_not_lose_a_fast_object() -> None:
    every = walk(walker(range(30), pace_px=12))
    some = [at for at in range(30) if at < 10 or at % 4 == 0]  # three of four are dropped: 48 px between two looks
    assert walk(walker(some, pace_px=12)) == [every[at] for at in some]


def test_dropped_frames_need_the_times() -> None:
    """The same boxes at the same pace of frames: without the times the object is another one each time."""
    some = [at for at in range(30) if at < 10 or at % 4 == 0]
    blind = [(row * FRAME_S, found) for row, (_, found) in enumerate(walker(some, pace_px=12))]
    assert walk(blind)[10:] != [[1]] * (len(some) - 10)


def test_each_source_has_its_own_objects() -> None:
    track = Track(confirm=1).build()
    first, second, again = (
        track(result_of(standing_at((x, 200)), seconds, source))
        for x, seconds, source in [(100, 0.0, "a"), (105, 0.1, "b"), (100, 0.1, "a")]
    )
    assert [one.detections.tracker_id.tolist() for one in (first, second, again)] == [[1], [1], [1]]
    track.forget("a")
    assert track(result_of(boxes(), 0.2, "a")).detections.tracker_id.tolist() == []


def test_classes_may_flicker_unless_told_otherwise() -> None:
    flicker = [(at * FRAME_S, boxes((10, 10, 50, 90, 0.9, at % 2))) for at in range(6)]
    assert walk(flicker) == [[-1], [1], [1], [1], [1], [1]]
    assert walk(flicker, Track(same_class=True)) == [[-1]] * 6


@pytest.mark.parametrize(
    "wrong", [{"high": 1.5}, {"low": 0.5, "high": 0.3}, {"high": 0.6, "start": 0.5}, {"confirm": 0}]
)
def test_limits_that_contradict_each_other_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Track(**wrong).build()


def test_a_classifier_cannot_be_tracked() -> None:
    with pytest.raises(ConfigError, match="gives none"):
        Track().build()(result_of(None))


def test_a_change_of_resolution_begins_anew_with_ids_of_its_own() -> None:
    track, found = Track(confirm=1).build(), standing_at((100, 200))
    first = result_of(found)
    larger = replace(first, frame=replace(first.frame, image=np.zeros((1152, 1536, 3), np.uint8)))
    assert [track(one).detections.tracker_id.tolist() for one in (first, first, larger, larger)] == [[1], [1], [2], [2]]


def test_a_step_before_may_repeat_a_time() -> None:
    still = [(0.0, standing_at((100, 200)))] * 5
    assert walk(still) == [[-1], [1], [1], [1], [1]]


def test_memory_stays_bounded_when_every_frame_is_full_of_strangers() -> None:
    rng = np.random.default_rng(3)
    tracker = ByteTracker(Track(confirm=1, lost_s=3600))
    for at in range(40):
        corners = rng.uniform(0, 20_000, (150, 2))
        tracker.follow(boxes(*np.column_stack([corners, corners + 30])), at * 100_000_000)
    assert len(tracker._objects.state) <= 1000


@pytest.mark.parametrize("burst_s", [(0.005, 0.195), (0.005, 0.005, 0.29), (0.1, 0.1, 0.4, 0.02)], ids=str)
def test_frames_that_come_in_bursts_cost_few_ids(burst_s: tuple[float, ...]) -> None:
    """As a file gives them that is read ahead: the times jump, the objects do not."""
    steady = walk([(at * FRAME_S, found) for at, found in enumerate(street())])
    times = np.cumsum([burst_s[at % len(burst_s)] for at in range(len(steady))])
    bursts = walk(list(zip(times.tolist(), street(), strict=True)))
    assert max(map(max, filter(None, bursts))) <= 2 * max(map(max, filter(None, steady)))


@pytest.mark.parametrize("seed", range(3))
def test_no_two_detections_of_a_frame_share_an_id_and_none_comes_back_after_its_time(seed: int) -> None:
    frames = Crowd(people=25, seed=seed).detections()
    ids = walk([(at * FRAME_S, found) for at, found in enumerate(frames)], Track(lost_s=1.0))
    seen: dict[int, list[int]] = {}
    for at, row in enumerate(ids):
        confirmed = [one for one in row if one >= 0]
        assert len(set(confirmed)) == len(confirmed)
        for one in confirmed:
            seen.setdefault(one, []).append(at)
    assert sorted(seen) == list(range(1, len(seen) + 1)), "ids have no gaps"
    assert all(later - earlier <= 11 for frames_of in seen.values() for earlier, later in pairwise(frames_of))


def test_the_same_frames_give_the_same_ids() -> None:
    frames = [(at * FRAME_S, found) for at, found in enumerate(Crowd(seed=5).detections())]
    assert walk(frames) == walk(frames)


def test_other_fields_travel_along() -> None:
    found = boxes((10, 10, 50, 90))
    more = Detections(xyxy=found.xyxy, confidence=found.confidence, class_id=found.class_id, data={"x": np.ones(1)})
    result: Result = Track().build()(result_of(more))
    assert result.detections is not None and result.detections.data is not None
