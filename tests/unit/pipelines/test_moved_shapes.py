"""Lines and areas that are moved while objects are in sight: nobody counts for that, nobody counts twice, totals go on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st

from edgecv.events import Event
from edgecv.pipelines.steps import Line, Zone
from edgecv.pipelines.steps.options import Options
from edgecv.pipelines.steps.per_source import PerSource
from tests.unit.pipelines.recorded import LABELS, result_of, standing_at

FRAME_S = 0.1
AREA = ((100, 100), (300, 100), (300, 300), (100, 300))
WIDE = ((100, 100), (500, 100), (500, 300), (100, 300))
IN, OUT = (200, 200), (400, 200)  # of AREA; WIDE holds both

Walk = Sequence[tuple[float, float] | None]


class Scene:
    """Objects 1, 2, ... that walk, and a counter that may be exchanged meanwhile."""

    def __init__(self, options: Options) -> None:
        self.step: Any = options.build(LABELS)
        self.events: list[Event] = []
        self._at = 0

    def walk(self, *paths: Walk) -> dict[str, int]:
        for number in range(max(map(len, paths))):
            there = [(one, path[number]) for one, path in enumerate(paths, start=1) if path[number] is not None]
            found = standing_at(*(point for _, point in there if point), ids=[one for one, _ in there])
            self.events += self.step(result_of(found, self._at * FRAME_S)).events
            self._at += 1
        return self.counts

    def edit(self, options: Options) -> dict[str, int]:
        before = self.step
        self.step = options.build_after(LABELS, before)
        assert isinstance(self.step, PerSource)
        assert self.step.adopt(before)
        before.close()
        return self.counts

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.step.counts("cam"))

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


def level(y: float, back: bool = False, **more: Any) -> Line:
    """A line across the image; \"in\" leads down, and up where it is drawn ``back``."""
    points = ((100, y), (500, y))
    return Line(name="door", points=points[::-1] if back else points, **more)


def down(start: float, stop: float, x: float = 300) -> Walk:
    return [(x, y) for y in range(int(start), int(stop), 10)]


def stay(y: float, frames: int = 10, x: float = 300) -> Walk:
    return [(x, y)] * frames


def test_a_line_that_is_moved_over_a_standing_object_counts_nothing() -> None:
    scene = Scene(level(300))
    scene.walk(stay(350))
    scene.edit(level(400))
    scene.walk(stay(350))
    scene.edit(level(300))
    assert scene.walk(stay(350)) == {"door.in": 0, "door.out": 0}
    assert scene.kinds == []


def test_who_counted_does_not_count_again_where_the_line_was_moved_ahead() -> None:
    scene = Scene(level(300))
    assert scene.walk(down(200, 360))["door.in"] == 1
    scene.edit(level(400))
    assert scene.walk(down(360, 500)) == {"door.in": 1, "door.out": 0}
    back = [*down(360, 500)[::-1], *stay(360, 5)]
    assert scene.walk(back) == {"door.in": 1, "door.out": 1}, "the way back is another one"
    assert scene.walk(down(360, 500)) == {"door.in": 2, "door.out": 1}, "and so is the next one"


def test_who_did_not_count_yet_counts_at_the_new_place() -> None:
    scene = Scene(level(300))
    scene.walk(stay(350))
    scene.edit(level(400))
    assert scene.walk(down(350, 460))["door.in"] == 1
    other = Scene(level(300))
    other.walk(down(200, 250))
    other.edit(level(400))
    assert other.walk(down(250, 380))["door.in"] == 0, "nothing is left where the line was"
    assert other.walk(down(380, 460))["door.in"] == 1


def test_a_crossing_under_way_counts_once_or_at_the_new_place() -> None:
    scene = Scene(level(300))
    scene.walk(down(200, 320))
    assert scene.counts["door.in"] == 0, "it has not stayed for long enough"
    scene.edit(level(290))
    assert scene.walk(down(320, 400))["door.in"] == 1
    ahead = Scene(level(300))
    ahead.walk(down(200, 320))
    ahead.edit(level(380))
    assert ahead.walk(down(320, 370))["door.in"] == 0
    assert ahead.walk(down(370, 460))["door.in"] == 1


def test_a_line_that_is_turned_round_counts_the_other_way_and_nothing_for_the_turn() -> None:
    scene = Scene(level(300))
    scene.walk(down(200, 400), stay(200, 20, 200))
    assert scene.edit(level(300, back=True)) == {"door.in": 1, "door.out": 0}
    assert scene.walk(stay(400), stay(200, 10, 200)) == {"door.in": 1, "door.out": 0}
    assert scene.walk(down(200, 400)[::-1], down(200, 400, 200)) == {"door.in": 2, "door.out": 1}


@given(
    st.lists(st.sampled_from([250, 300, 350, 400]), min_size=1, max_size=6),
    st.lists(st.integers(200, 450), min_size=1, max_size=6),
    st.booleans(),
)
def test_nobody_who_stands_still_ever_counts(places: list[int], people: list[int], back: bool) -> None:
    scene = Scene(level(300))
    for at, y in enumerate(places):
        scene.walk(*(stay(one, 5, 150 + 50 * number) for number, one in enumerate(people)))
        scene.edit(level(y, back=back and at % 2 == 0))
    scene.walk(*(stay(one, 5, 150 + 50 * number) for number, one in enumerate(people)))
    assert scene.counts == {"door.in": 0, "door.out": 0}


@given(st.lists(st.sampled_from([260, 300, 340, 380]), min_size=3, max_size=3))
def test_one_way_through_counts_at_most_once_wherever_the_line_is_moved(places: list[int]) -> None:
    scene = Scene(level(300))
    for start, y in zip((200, 250, 350), places, strict=True):
        scene.walk(down(start, start + (50 if start == 200 else 100)))
        scene.edit(level(y))
    counts = scene.walk([*down(450, 500), *stay(500, 5)])
    assert counts["door.in"] <= 1
    assert counts["door.out"] == 0


def test_a_direction_that_is_renamed_keeps_its_total_and_those_of_its_classes() -> None:
    scene = Scene(level(300, per_class=True))
    scene.walk(down(200, 400))
    assert scene.edit(level(300, per_class=True, directions=("enter", "leave"))) == {
        "door.enter": 1,
        "door.leave": 0,
        "door.enter.person": 1,
    }
    swapped = scene.edit(level(300, per_class=True, directions=("leave", "enter")))
    assert swapped["door.enter"] == 1, "the names are the same, they change sides"


def test_pixels_are_those_of_the_newest_image_and_relative_ones_fit_any() -> None:
    scene = Scene(level(300))
    scene.walk(down(200, 250))
    scene.edit(Line(name="door", points=((0.1, 0.5), (0.7, 0.5)), units="relative"))  # 288 of 576
    assert scene.walk(down(250, 400))["door.in"] == 1
    scene.edit(level(5000))
    scene.walk(stay(400, 2))
    assert scene.kinds[-1] == "step.misplaced", "said again of the new place"


def test_an_area_that_is_moved_over_objects_says_who_is_in_and_counts_nobody() -> None:
    scene = Scene(Zone(name="yard", points=AREA))
    assert scene.walk([IN] * 10, [OUT] * 10) == {"yard.inside": 1, "yard.entered": 1, "yard.left": 0}
    wide = scene.edit(Zone(name="yard", points=WIDE))
    assert wide == {"yard.inside": 2, "yard.entered": 1, "yard.left": 0}
    assert scene.walk([IN] * 10, [OUT] * 10) == wide
    narrow = scene.edit(Zone(name="yard", points=AREA))
    assert narrow == {"yard.inside": 1, "yard.entered": 1, "yard.left": 0}
    assert scene.walk([IN] * 10, [OUT] * 10) == narrow
    assert scene.kinds == ["zone.entered"]
    assert scene.walk([OUT] * 10, [IN] * 10) == {"yard.inside": 1, "yard.entered": 2, "yard.left": 1}, "by themselves"


def test_who_comes_back_into_an_area_that_was_moved_off_enters_no_second_time() -> None:
    scene = Scene(Zone(name="yard", points=WIDE))
    scene.walk([OUT] * 10)
    scene.edit(Zone(name="yard", points=AREA))
    assert scene.walk([OUT] * 5, [None] * 5)["yard.inside"] == 0
    assert scene.walk([IN] * 10) == {"yard.inside": 1, "yard.entered": 1, "yard.left": 0}
    assert scene.walk([OUT] * 10) == {"yard.inside": 0, "yard.entered": 1, "yard.left": 1}
    assert scene.walk([IN] * 10) == {"yard.inside": 1, "yard.entered": 2, "yard.left": 1}


def test_an_area_that_was_moved_over_and_off_again_leaves_the_first_entry_to_count() -> None:
    scene = Scene(Zone(name="yard", points=AREA))
    scene.walk([OUT] * 10)
    for points in (WIDE, AREA):
        scene.edit(Zone(name="yard", points=points))
        scene.walk([OUT] * 5)
    assert scene.walk([IN] * 10) == {"yard.inside": 1, "yard.entered": 1, "yard.left": 0}


def test_a_stay_goes_on_while_a_corner_is_moved() -> None:
    options = {"name": "yard", "dwell_s": 2.0}
    scene = Scene(Zone(points=AREA, **options))
    scene.walk([IN] * 15)
    scene.edit(Zone(points=((90, 90), *AREA[1:]), **options))
    scene.walk([IN] * 30)
    assert scene.kinds == ["zone.entered", "zone.dwell"]
    assert scene.events[-1].data["dwell_s"] == pytest.approx(2.0)


def test_a_class_that_counts_no_more_is_not_inside_any_more() -> None:
    scene = Scene(Zone(name="yard", points=AREA, per_class=True))
    scene.walk([IN] * 10)
    assert scene.edit(Zone(name="yard", points=AREA, per_class=True, classes=("car",)))["yard.inside"] == 0
    scene.walk([IN] * 120)
    assert scene.kinds == ["zone.entered"]


@given(st.lists(st.tuples(st.sampled_from([AREA, WIDE]), st.sampled_from([IN, OUT, (600, 400)])), max_size=8))
def test_inside_is_always_who_stands_in_the_area(edits: list[tuple[Any, tuple[int, int]]]) -> None:
    scene = Scene(Zone(name="yard", points=AREA))
    for points, place in edits:
        scene.edit(Zone(name="yard", points=points))
        counts = scene.walk([place] * 6)
        assert counts["yard.inside"] == (place == IN or (place == OUT and points == WIDE))
    kinds = [event.kind for event in scene.events]
    assert all(one != "zone.entered" or other != "zone.entered" for one, other in pairwise(kinds))
