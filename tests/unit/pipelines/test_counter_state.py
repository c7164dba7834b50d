"""Counts survive a restart, a kill and a damaged file; the same frames give the same counts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.pipelines.steps import Line, Track, Zone
from edgecv.pipelines.steps.per_source import PerSource
from tests.conftest import CHECKOUT, names_in
from tests.unit.pipelines.recorded import LABELS, boxes, result_of, standing_at, street

LEVEL = [[100, 300], [500, 300]]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "door.json"


def door(state: Path, name: str = "door") -> PerSource:
    return Line(name=name, points=LEVEL, settle_s=0, state=str(state)).build(LABELS)


def cross(step: PerSource, times: int, start_s: float = 0.0, source_id: str = "cam") -> list[Event]:
    """Go through the door, one object after the other, a second each."""
    events: list[Event] = []
    for at in range(times):
        for y, seconds in ((200, 0.0), (400, 0.5)):
            result = result_of(standing_at((300, y), ids=[at + 1000]), start_s + at + seconds, source_id)
            events += step(result).events
    return events


def test_counts_go_on_after_a_restart(state: Path) -> None:
    first = door(state)
    cross(first, 3)
    first.close()
    second = door(state)
    events = cross(second, 2)
    assert dict(second.counts("cam")) == {"door.in": 5, "door.out": 0}
    assert [event.data["total"] for event in events] == [4, 5]
    second.close()


def test_each_source_has_its_own_counts_in_the_file(state: Path) -> None:
    first = door(state)
    cross(first, 3, source_id="a")
    cross(first, 1, source_id="b")
    first.forget("a")
    first.close()
    assert json.loads(state.read_text())["sources"] == {"a": {"in": 3, "out": 0}, "b": {"in": 1, "out": 0}}
    second = door(state)
    assert cross(second, 1, source_id="b")[-1].data["total"] == 2
    assert cross(second, 1, source_id="a")[-1].data["total"] == 4
    second.close()


def test_zones_go_on_too_but_nobody_is_inside(state: Path) -> None:
    for entered in (1, 2):
        points = [[100, 100], [300, 100], [300, 300]]
        zone = Zone(name="yard", points=points, settle_s=0, state=str(state)).build(LABELS)
        zone(result_of(standing_at((280, 200), ids=[1])))
        assert dict(zone.counts("cam")) == {"yard.inside": 1, "yard.entered": entered, "yard.left": 0}
        zone.close()


def test_the_file_is_written_at_most_once_a_second_and_at_the_end(state: Path) -> None:
    step = door(state)
    seen = []
    for at in range(40):
        y = 200 if at % 2 else 400  # through the door in every frame, ten times a second
        step(result_of(standing_at((300, y), ids=[7]), at * 0.1))
        seen.append(state.stat().st_mtime_ns if state.exists() else 0)
    assert 3 <= len(set(seen) - {0}) <= 4
    step.close()
    counts = json.loads(state.read_text())["sources"]["cam"]
    assert counts["in"] + counts["out"] == 39


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"counter": "door"}',
        b'{"counter": "door", "sources": {"cam": {"in": -4}}}',
        b"\0" * 99,
    ],
)
def test_a_damaged_file_is_put_aside_and_counting_starts_anew(state: Path, content: bytes) -> None:
    state.write_bytes(content)
    step = door(state)
    events = cross(step, 2)
    step.close()
    assert [event.kind for event in events] == ["counter.damaged", "line.crossed", "line.crossed"]
    assert events[0].data["counter"] == "door" and "door.json.damaged-1" in events[0].data["message"]
    assert state.with_name("door.json.damaged-1").read_bytes() == content
    assert json.loads(state.read_text())["sources"] == {"cam": {"in": 2, "out": 0}}


def test_an_earlier_damaged_file_is_kept(state: Path) -> None:
    for number in (1, 2):
        state.write_bytes(b"%d" % number)
        step = door(state)
        step(result_of(boxes(ids=[])))
        step.close()
    kept = [name for name in names_in(state.parent) if "damaged" in name]
    assert kept == ["door.json.damaged-1", "door.json.damaged-2"]


def test_two_counters_never_share_a_file(state: Path) -> None:
    first, second = door(state), door(state, "gate")
    cross(first, 1)
    with pytest.raises(ConfigError, match="in use"):
        cross(second, 1)
    with pytest.raises(ConfigError, match="in use"):
        door(state)
    first.close()
    with pytest.raises(ConfigError, match="counts of 'door'"):
        cross(second, 1)
    again = door(state)
    assert cross(again, 1)[-1].data["total"] == 2, "refusing freed the file"
    again.close()


def test_a_step_that_was_closed_may_count_on_while_the_file_is_free(state: Path) -> None:
    step = door(state)
    cross(step, 1)
    step.close()
    step.close()
    cross(step, 1, start_s=10)
    step.close()
    assert json.loads(state.read_text())["sources"]["cam"]["in"] == 2
    other = door(state)
    cross(other, 1)
    with pytest.raises(ConfigError, match="in use"):
        cross(step, 2, start_s=20)
    other.close()


def test_a_missing_folder_is_said_before_the_first_frame(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        door(tmp_path / "no" / "door.json")


def test_a_file_that_cannot_be_written_does_not_stop_the_count(state: Path) -> None:
    step = door(state)
    cross(step, 1)
    state.unlink()
    state.mkdir()  # root writes everywhere, but not over a folder
    events = cross(step, 5, start_s=10)
    assert [event.kind for event in events].count("counter.unsaved") == 1, "said once"
    assert dict(step.counts("cam"))["door.in"] == 6
    state.rmdir()
    cross(step, 1, start_s=20)
    assert json.loads(state.read_text())["sources"]["cam"]["in"] == 6, "what could not be written before"
    step.close()
    assert json.loads(state.read_text())["sources"]["cam"]["in"] == 7


PROGRAM = """
import sys
from edgecv.pipelines.steps import Line
from tests.unit.pipelines.recorded import LABELS, result_of, standing_at
step = Line(name="door", points=[[100, 300], [500, 300]], settle_s=0, state=sys.argv[1]).build(LABELS)
for at in range(10**9):
    step(result_of(standing_at((300, 200 if at % 2 else 400), ids=[1]), at * 1.0))
    if at == 50:
        print("counting", flush=True)
"""


@pytest.fixture
def killed(state: Path) -> Iterator[Path]:
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, str(state)], cwd=CHECKOUT, stdout=subprocess.PIPE)
    try:
        assert program.stdout is not None and program.stdout.readline() == b"counting\n"
        time.sleep(0.05)
        program.kill()
        program.communicate(timeout=20)
        yield state
    finally:
        program.kill()


def test_a_kill_costs_nothing_that_was_written(killed: Path) -> None:
    counts = json.loads(killed.read_text())["sources"]["cam"]
    assert counts["in"] + counts["out"] >= 50
    step = door(killed)
    assert cross(step, 1)[-1].data["total"] == counts["in"] + 1
    step.close()


def run_street() -> tuple[list[Event], dict[str, int]]:
    steps = [
        Track().build(),
        Line(name="street", points=[[300, 100], [300, 560]]).build(LABELS),
        Zone(name="area", points=[[150, 150], [550, 120], [650, 450], [100, 500]], dwell_s=3).build(LABELS),
    ]
    events: list[Event] = []
    for at, found in enumerate(street()):
        result = result_of(found, at * 0.1)
        for step in steps:
            result = step(result)
        events += result.events
    return events, {**steps[1].counts("cam"), **steps[2].counts("cam")}


def test_a_replay_gives_the_same_events_whenever_it_runs() -> None:
    first, counts = run_street()
    time.sleep(0.01)
    assert (first, counts) == run_street()
    assert {event.kind for event in first} == {"line.crossed", "zone.entered", "zone.left", "zone.dwell"}


def test_the_order_of_detections_in_a_frame_changes_no_total() -> None:
    def totals(order: slice) -> dict[str, int]:
        step = Line(name="door", points=LEVEL).build(LABELS)
        for at in range(30):
            found = standing_at((200, 200 + 10 * at), (300, 490 - 10 * at), (400, 200 + 10 * at), ids=[1, 2, 3])
            step(replace(result_of(found, at * 0.1), detections=found[order]))
        return dict(step.counts("cam"))

    assert totals(slice(None)) == totals(slice(None, None, -1)) == {"door.in": 2, "door.out": 1}
