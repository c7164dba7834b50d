"""Counts per interval: each counted once, in its interval, whatever is dropped, stopped or killed."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edgecv.errors import ConfigError
from edgecv.overlays import Overlay
from edgecv.pipelines.sinks import open_sink
from edgecv.pipelines.sinks.files.counts import CountsOptions, CountsSink
from edgecv.pipelines.steps import Line, Zone
from edgecv.results import Result
from edgecv.status import PipelineStatus, SourceHealth, SourceStatus
from tests.unit.pipelines.recorded import EPOCH_NS, LABELS, boxes, result_of, standing_at

DOOR = Line(name="door", points=[[0, 300], [768, 300]], settle_s=0)
YARD = Zone(name="yard", points=[[0, 300], [768, 300], [768, 570], [0, 570]], settle_s=0, forget_s=1)
START = "2027-01-15T08:0{}:00Z"  # EPOCH_NS is 08:00:00

Row = dict[str, str]


def read(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def of(rows: list[Row], counter: str) -> list[tuple[str, int, int, int]]:
    """Start, count, total and frames of the rows of a counter."""
    mine = [row for row in rows if row["counter"] == counter]
    return [(row["start"], int(row["count"]), int(row["total"]), int(row["frames"])) for row in mine]


def scene(
    *steps: Line | Zone, crossings_s: Sequence[float] = (), until_s: float = 0.0, source_id: str = "cam"
) -> list[Result]:
    """Results two times a second in which a new object crosses the door downwards at each of these seconds."""
    built = [step.build(LABELS) for step in steps or (DOOR,)]
    results = []
    for at in range(round(until_s * 2) + 1):
        there = [(1000 + number, at / 2 - cross_s) for number, cross_s in enumerate(crossings_s)]
        seen = [(number, 300 + 20 * (since_s + 0.25)) for number, since_s in there if -1 <= since_s <= 1]
        found = standing_at(*((400, y) for _, y in seen), ids=[number for number, _ in seen])
        result = result_of(found, at / 2, source_id)
        for step in built:
            result = step(result)
        results.append(result)
    for step in built:
        step.close()
    return results


def write(path: Path, results: Sequence[Result], **options: object) -> list[Row]:
    sink = CountsSink(path, options=CountsOptions(**options))
    for result in results:
        sink.emit(result)
    sink.close()
    return read(path)


def test_each_interval_has_a_row_with_count_and_total_also_where_nothing_happened(tmp_path: Path) -> None:
    rows = write(tmp_path / "c.csv", scene(crossings_s=(5, 10, 130), until_s=185))
    assert of(rows, "door.in") == [
        (START.format(0), 2, 2, 120),
        (START.format(1), 0, 2, 120),
        (START.format(2), 1, 3, 120),
        (START.format(3), 0, 3, 11),
    ]
    assert [count for _, count, _, _ in of(rows, "door.out")] == [0] * 4
    assert {row["source_id"] for row in rows} == {"cam"}
    assert {(row["position_s"], row["peak"], row["last"]) for row in rows} == {("", "", "")}


def test_events_of_dropped_results_count_in_their_own_interval(tmp_path: Path) -> None:
    results = scene(crossings_s=(5, 10, 50), until_s=125)
    lost, kept = results[:180], results[180:]  # until 90 s nothing reaches the sink but the events
    handed_on = tuple(event for result in lost for event in result.events)
    rows = write(tmp_path / "c.csv", [replace(kept[0], events=(*handed_on, *kept[0].events)), *kept[1:]])
    assert of(rows, "door.in") == [
        (START.format(0), 3, 3, 0),
        (START.format(1), 0, 3, 60),
        (START.format(2), 0, 3, 11),
    ]


def test_events_of_frames_that_a_step_dropped_count(tmp_path: Path) -> None:
    results = scene(crossings_s=(5, 10), until_s=70)
    sink = CountsSink(tmp_path / "c.csv")
    for result in results:
        if result.events:
            for event in result.events:
                sink.emit_event(event)
        else:
            sink.emit(result)
    sink.close()
    assert [count for _, count, _, _ in of(read(tmp_path / "c.csv"), "door.in")] == [2, 0]


def test_the_intervals_of_a_file_are_those_of_its_own_time(tmp_path: Path) -> None:
    results = []
    for at, result in enumerate(scene(crossings_s=(5, 70), until_s=75)):
        placed = tuple(replace(event, data={"position_s": at / 2, **event.data}) for event in result.events)
        frame = replace(result.frame, position_ns=at * 500_000_000, captured_ns=EPOCH_NS + at)
        results.append(replace(result, frame=frame, events=placed))
    rows = [row for row in write(tmp_path / "c.csv", results, every_s=30) if row["counter"] == "door.in"]
    assert [(row["start"], row["position_s"], row["count"], row["total"]) for row in rows] == [
        ("", "0.000", "1", "1"),
        ("", "30.000", "0", "1"),
        ("", "60.000", "1", "2"),
    ]
    again = write(tmp_path / "loop.csv", [*results, *results], every_s=30)
    played = [(row["position_s"], row["count"]) for row in again if row["counter"] == "door.in"]
    assert played == [("0.000", "1"), ("30.000", "0"), ("60.000", "1")] * 2


def test_what_is_inside_has_its_peak_and_its_last_value(tmp_path: Path) -> None:
    step = YARD.build(LABELS)
    crowd = {10: 1, 20: 3, 30: 2, 70: 2, 80: 0, 130: 0}  # from these seconds on so many stand inside
    results, there = [], 0
    for at in range(0, 150):
        there = crowd.get(at, there)
        found = standing_at(*((100 + 50 * n, 400) for n in range(there)), ids=range(1, there + 1))
        results.append(step(result_of(found, float(at))))
    rows = [row for row in write(tmp_path / "c.csv", results) if row["counter"] == "yard.inside"]
    assert [(row["peak"], row["last"], row["count"], row["total"]) for row in rows] == [
        ("3", "2", "", ""),
        ("2", "0", "", ""),
        ("0", "0", "", ""),
    ]


def test_the_peak_is_what_a_frame_showed_not_what_its_events_passed_through(tmp_path: Path) -> None:
    step = YARD.build(LABELS)
    step(result_of(standing_at((100, 400), ids=[2]), 0.0))
    swapped = step(result_of(standing_at((300, 400), (100, 200), ids=[1, 2]), 0.5))  # 1 comes before 2 leaves
    assert [event.data["inside"] for event in swapped.events] == [2, 1]
    later = step(result_of(standing_at((300, 400), ids=[1]), 1.0))
    handed_on = replace(later, events=(*swapped.events, *later.events))
    for name, results in (("all", [swapped, later]), ("handed on", [handed_on])):
        (row,) = [row for row in write(tmp_path / name, results) if row["counter"] == "yard.inside"]
        assert (row["peak"], row["last"]) == ("1", "1"), name


def test_classes_have_rows_of_their_own_where_they_are_counted(tmp_path: Path) -> None:
    door = Line(name="door", points=DOOR.points, settle_s=0, per_class=True)
    step = door.build(LABELS)
    results = []
    for number, (at_s, class_id) in enumerate(((5, 2), (20, 2), (70, 0), (190, 2))):
        for late_s, y in ((0, 280), (1, 320)):
            found = boxes((390, y - 40, 410, y, 0.9, class_id), ids=[number])
            results.append(step(result_of(found, float(at_s + late_s))))
    rows = write(tmp_path / "c.csv", results)
    assert [(count, total) for _, count, total, _ in of(rows, "door.in.car")] == [(2, 2), (0, 2), (0, 2), (1, 3)]
    assert [(count, total) for _, count, total, _ in of(rows, "door.in.person")] == [(1, 1), (0, 1), (0, 1)]
    assert [(count, total) for _, count, total, _ in of(rows, "door.in")] == [(2, 2), (1, 3), (0, 3), (1, 4)]


def restarted(tmp_path: Path, *, killed: bool) -> list[tuple[str, int, int, int]]:
    """Two runs of one counter with a state file; the first ends at 65 s with one crossing in its open interval."""
    door = Line(name="door", points=DOOR.points, settle_s=0, state=str(tmp_path / "door.json"))
    path = tmp_path / "c.csv"
    first = CountsSink(path, options=CountsOptions(append=True))
    for result in scene(door, crossings_s=(5, 62), until_s=65):
        first.emit(result)
    if not killed:
        first.close()
    second = CountsSink(path, options=CountsOptions(append=True))
    for result in scene(door, crossings_s=(90, 130), until_s=135):
        if result.frame.captured_ns >= EPOCH_NS + 80 * 10**9:
            second.emit(result)
    second.close()
    return of(read(path), "door.in")


def test_a_restart_in_the_middle_of_an_interval_counts_nothing_twice_and_loses_nothing(tmp_path: Path) -> None:
    assert restarted(tmp_path, killed=False) == [
        (START.format(0), 1, 1, 120),
        (START.format(1), 1, 2, 11),
        (START.format(1), 1, 3, 80),
        (START.format(2), 1, 4, 31),
    ]


def test_what_a_killed_run_counted_and_did_not_write_is_made_up_from_the_state_file(tmp_path: Path) -> None:
    assert restarted(tmp_path, killed=True) == [
        (START.format(0), 1, 1, 120),
        (START.format(1), 1, 2, 0),
        (START.format(1), 1, 3, 80),
        (START.format(2), 1, 4, 31),
    ]


def test_a_clock_that_is_set_back_loses_nothing_and_counts_nothing_twice(tmp_path: Path) -> None:
    results = scene(crossings_s=(5, 61, 65, 122), until_s=125)
    back = [
        replace(
            result,
            frame=replace(result.frame, captured_ns=result.frame.captured_ns - 63 * 10**9),
            events=tuple(replace(event, time_ns=event.time_ns - 63 * 10**9) for event in result.events),
        )
        for result in results[127:]
    ]
    rows = of(write(tmp_path / "c.csv", [*results[:127], *back]), "door.in")
    assert sum(count for _, count, _, _ in rows) == 4
    assert sum(frames for _, _, _, frames in rows) == len(results)
    assert rows[-1][2] == 4


def test_an_event_that_comes_before_an_older_result_counts_nothing_twice(tmp_path: Path) -> None:
    results = scene(crossings_s=(5, 10), until_s=30)
    crossings = [at for at, result in enumerate(results) if result.events]
    sink = CountsSink(tmp_path / "c.csv")
    for at, result in enumerate(results):
        if at == crossings[0]:  # a step dropped the frame of the second one
            sink.emit_event(results[crossings[1]].events[0])
        sink.emit(replace(result, events=()) if at == crossings[1] else result)
    sink.close()
    assert of(read(tmp_path / "c.csv"), "door.in") == [(START.format(0), 2, 2, 61)]


def test_events_that_were_lost_are_counted_by_the_total(tmp_path: Path) -> None:
    results = scene(crossings_s=(5, 10, 50, 70), until_s=125)
    silent = [replace(result, events=()) if at < 80 else result for at, result in enumerate(results)]
    assert of(write(tmp_path / "c.csv", silent), "door.in") == of(write(tmp_path / "d.csv", results), "door.in")


def test_totals_of_rules_count_when_a_result_shows_them(tmp_path: Path) -> None:
    results = []
    for at, (began, inside) in enumerate(((0, 2), (1, 5), (1, 4), (3, 9), (3, 1))):
        crowd = Overlay(name="crowd", shape="zone", points=(), counts={"inside": inside, "began": began})
        results.append(replace(result_of(None, at * 30.0), overlays=(crowd,)))
    rows = write(tmp_path / "c.csv", results)
    assert of(rows, "crowd.began") == [
        (START.format(0), 1, 1, 2),
        (START.format(1), 2, 3, 2),
        (START.format(2), 0, 3, 1),
    ]
    levels = [(row["peak"], row["last"]) for row in rows if row["counter"] == "crowd.inside"]
    assert levels == [("5", "5"), ("9", "9"), ("9", "1")]


def test_a_counter_that_begins_anew_at_0_is_counted_on(tmp_path: Path) -> None:
    first, second = scene(crossings_s=(5, 10), until_s=30), scene(crossings_s=(65, 70), until_s=75)
    rows = of(write(tmp_path / "c.csv", [*first, *second[121:]]), "door.in")
    assert [(count, total) for _, count, total, _ in rows] == [(2, 2), (2, 2)]


class Told:
    """How a pipeline does, as it would say it."""

    def __init__(self, **states: str) -> None:
        self.states = states

    def __call__(self) -> PipelineStatus:
        sources = tuple(
            SourceStatus(source_id=name, health=SourceHealth(state=state, since_ns=0))  # type: ignore[arg-type]
            for name, state in self.states.items()
        )
        return PipelineStatus(
            running=True, model="", elapsed_s=0, frames=0, fps=0, age_p50_ms=0, age_p99_ms=0, stage_p50_ms={},
            sources=sources, sinks=(),
        )  # fmt: skip


def test_a_silent_camera_has_rows_that_say_that_nobody_looked_until_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]
    monkeypatch.setattr("edgecv.pipelines.sinks.files.counts.time.monotonic", lambda: now_s[0])
    told = Told(cam="reconnecting", other="live")
    sink = CountsSink(tmp_path / "c.csv")
    sink.attach(told)
    for name in ("cam", "other"):
        for result in scene(crossings_s=(5,), until_s=20, source_id=name):
            sink.emit(result)
    for minute in (1.1, 2.1, 3.1):
        now_s[0] = minute * 60 - 20
        if minute == 3.1:
            del told.states["other"]
        sink.tick()
    rows = [(row["source_id"], row["start"], row["count"], row["frames"]) for row in read(tmp_path / "c.csv")]
    assert [row for row in rows if row[0] == "cam"][::2] == [
        ("cam", START.format(0), "1", "41"),
        ("cam", START.format(1), "0", "0"),
        ("cam", START.format(2), "0", "0"),
    ]
    assert [row for row in rows if row[0] == "other"][::2] == [
        ("other", START.format(0), "1", "41"),
        ("other", START.format(1), "0", "0"),
    ]
    sink.close()


def test_a_file_that_was_read_while_its_last_results_come_has_one_row_per_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle_s = [0.0]
    monkeypatch.setattr("edgecv.pipelines.sinks.files.counts.time.monotonic", lambda: idle_s[0])
    sink = CountsSink(tmp_path / "c.csv")
    sink.attach(Told(cam="ended"))
    for at, result in enumerate(scene(crossings_s=(5, 70), until_s=75)):
        placed = tuple(replace(event, data={"position_s": at / 2, **event.data}) for event in result.events)
        frame = replace(result.frame, position_ns=at * 500_000_000)
        sink.emit(replace(result, frame=frame, events=placed))
        idle_s[0] += 2  # a slow model
        sink.tick()
    before = [(row["position_s"], row["count"]) for row in read(tmp_path / "c.csv") if row["counter"] == "door.in"]
    assert before == [("0.000", "1")]
    idle_s[0] += 40
    sink.tick()
    after = [(row["position_s"], row["count"]) for row in read(tmp_path / "c.csv") if row["counter"] == "door.in"]
    assert after == [("0.000", "1"), ("60.000", "1")], "nothing more will come: the others may run for weeks"
    sink.close()


def test_a_recording_has_the_times_of_its_camera_and_nothing_is_filled_up_to_today(tmp_path: Path) -> None:
    sink = CountsSink(tmp_path / "c.csv")
    for result in scene(crossings_s=(5, 70), until_s=75):
        sink.emit(result)
        sink.tick()
    sink.close()
    assert of(read(tmp_path / "c.csv"), "door.in") == [(START.format(0), 1, 1, 120), (START.format(1), 1, 2, 31)]


def test_a_file_that_is_played_has_the_intervals_of_the_clock(tmp_path: Path) -> None:
    results = []
    for at, result in enumerate(scene(crossings_s=(5, 70), until_s=75)):
        placed = tuple(replace(event, data={"position_s": at % 20 / 2, **event.data}) for event in result.events)
        frame = replace(result.frame, position_ns=at % 20 * 500_000_000, scene_time_ns=at * 500_000_000)
        results.append(replace(result, frame=frame, events=placed))
    assert of(write(tmp_path / "c.csv", results), "door.in") == [
        (START.format(0), 1, 1, 120),
        (START.format(1), 1, 2, 31),
    ]
    sink = CountsSink(tmp_path / "event.csv")
    for result in results:
        for event in result.events:  # a step drops the frame of the first one
            sink.emit_event(event)
        sink.emit(replace(result, events=()))
    sink.close()
    rows = read(tmp_path / "event.csv")
    assert sum(int(row["count"]) for row in rows if row["counter"] == "door.in") == 2


def test_a_jump_of_the_clock_fills_no_disk(tmp_path: Path) -> None:
    results = scene(until_s=1)
    later = replace(results[1], frame=replace(results[1].frame, captured_ns=EPOCH_NS + 10**9 * 86_400 * 365))
    assert len(write(tmp_path / "c.csv", [results[0], later])) == 4


def test_a_counter_that_left_the_pipeline_has_no_more_rows(tmp_path: Path) -> None:
    both, one = scene(DOOR, YARD, until_s=5), scene(DOOR, until_s=125)
    rows = write(tmp_path / "c.csv", [*both, *one[11:]])
    assert {row["start"] for row in rows if row["counter"].startswith("yard")} == {START.format(0)}
    assert len(of(rows, "door.in")) == 3


@pytest.mark.parametrize("query", ["every_s=0", "every_s=x", "every_min=1"])
def test_wrong_options_are_refused(tmp_path: Path, query: str) -> None:
    with pytest.raises(ConfigError):
        open_sink(f"counts:{tmp_path / 'c.csv'}?{query}")
    assert not (tmp_path / "c.csv").exists()


def test_a_file_of_something_else_is_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("source_id,index\n")
    with pytest.raises(ConfigError, match="other columns"):
        open_sink(f"counts:{tmp_path / 'c.csv'}?append=1")
