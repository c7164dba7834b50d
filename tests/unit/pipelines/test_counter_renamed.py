"""A total says whose it is, and what became of one whose source or counter was renamed."""

from __future__ import annotations

import json
import logging
import subprocess
from pathlib import Path

import pytest

from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.steps import Line, Track
from edgecv.pipelines.steps.count.state_file import State, moved, read_state
from tests.command_line import run_here
from tests.unit.pipelines.blob import BlobModel
from tests.unit.pipelines.recorded import LABELS
from tests.unit.pipelines.test_counter_state import cross, door


def write(path: Path, **sources: dict[str, int]) -> None:
    path.write_text(json.dumps({"version": 1, "counter": "door", "sources": sources}))


def run(state: Path, *sources: str, name: str = "door", only: tuple[str, ...] = ()) -> list[Event]:
    """The events that come without a frame of a short run."""
    told: list[Event] = []
    line = Line(name=name, points=[[10, 20], [50, 20]], state=str(state), sources=only)
    clips = dict.fromkeys(sources, "synthetic://?frames=3&width=64&height=48")
    Pipeline(clips, BlobModel(), steps=[Track(), line], on_event=told.append).run()
    return [event for event in told if event.kind.startswith("counter")]


def totals(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_here("totals", *arguments)


def test_the_file_says_which_source_and_rule_a_total_belongs_to_and_when_it_was_written(tmp_path: Path) -> None:
    step = door(tmp_path / "door.json")
    cross(step, 3, source_id="cam")
    step.close()
    document = json.loads((tmp_path / "door.json").read_text())
    written = document.pop("written")
    assert document == {"version": 2, "counter": "door", "rule": "line", "sources": {"cam": {"in": 3, "out": 0}}}
    assert written["cam"].endswith("Z") and written["cam"] > "2026"


def test_a_file_of_version_1_goes_on(tmp_path: Path) -> None:
    write(tmp_path / "door.json", cam={"in": 7, "out": 1})
    step = door(tmp_path / "door.json")
    assert cross(step, 1)[-1].data["total"] == 8
    step.close()
    assert read_state(tmp_path / "door.json").version == 2


def test_totals_of_a_source_that_is_no_longer_there_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = tmp_path / "door.json"
    write(state, old={"in": 3, "out": 2}, cam={"in": 1, "out": 0})
    with caplog.at_level(logging.WARNING):
        (event,) = run(state, "cam", "new")
    assert event.kind == "counter.orphaned"
    assert {**event.data, "message": ""} == {
        "counter": "door", "file": "door.json", "source": "old", "totals": {"in": 3, "out": 2}, "written": "", "message": "",
    }  # fmt: skip
    said = event.data["message"]
    assert "source 'old' (in 3, out 2)" in said
    assert f"edgecv totals {state} --source 'old=NEW'" in said
    assert said in caplog.text
    assert json.loads(state.read_text())["sources"]["old"] == {"in": 3, "out": 2}, "they stay"


def test_totals_of_a_source_that_the_counter_is_no_longer_for_are_said(tmp_path: Path) -> None:
    write(tmp_path / "door.json", a={"in": 3}, b={"in": 4})
    (event,) = run(tmp_path / "door.json", "a", "b", only=("b",))
    assert event.data["source"] == "a"


def test_nothing_is_said_where_every_total_goes_on(tmp_path: Path) -> None:
    write(tmp_path / "door.json", a={"in": 3})
    assert run(tmp_path / "door.json", "a", "b") == []


def test_a_renamed_counter_is_told_where_its_totals_are(tmp_path: Path) -> None:
    write(tmp_path / "door.json", cam={"in": 3, "out": 2})
    (event,) = run(tmp_path / "gate.json", "cam", name="gate")
    assert (event.kind, event.data["counter"], event.data["other"]) == ("counter.orphaned", "gate", "door")
    assert event.data["totals"] == {"cam": {"in": 3, "out": 2}}
    assert "--counter gate" in event.data["message"]


def test_another_counter_of_the_same_pipeline_is_no_renamed_one(tmp_path: Path) -> None:
    write(tmp_path / "door.json", cam={"in": 3, "out": 2})
    told: list[Event] = []
    lines = [
        Line(name=name, points=[[10, 20], [50, 20]], state=str(tmp_path / f"{name}.json")) for name in ("gate", "door")
    ]
    clip = {"cam": "synthetic://?frames=3&width=64&height=48"}
    Pipeline(clip, BlobModel(), steps=[Track(), *lines], on_event=told.append).run()
    assert [event for event in told if event.kind.startswith("counter")] == []


def test_a_renamed_counter_with_the_file_of_the_old_one_is_refused_before_the_first_frame(tmp_path: Path) -> None:
    write(tmp_path / "door.json", cam={"in": 3})
    with pytest.raises(ConfigError, match="counts of 'door', not of 'gate'") as caught:
        door(tmp_path / "door.json", "gate")
    assert f"edgecv totals {tmp_path / 'door.json'} --counter gate" in caught.value.hint


def test_the_command_moves_totals_and_counting_goes_on(tmp_path: Path) -> None:
    state = tmp_path / "door.json"
    write(state, **{"old": {"in": 3, "out": 2}, "a=b": {"in": 1}, "new": {"in": 10, "out": 0}, "gone": {"in": 1}})
    done = totals(str(state), "--source", "old=new", "--source", "a=b=c", "--forget", "gone", "--counter", "gate")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "gate\n  new: in 13, out 2\n  c: in 1\n"
    step = Line(name="gate", points=[[100, 300], [500, 300]], settle_s=0, state=str(state)).build(LABELS)
    assert cross(step, 1, source_id="new")[-1].data["total"] == 14
    step.close()


def test_the_command_shows_the_file_and_refuses_what_cannot_be(tmp_path: Path) -> None:
    state = tmp_path / "door.json"
    step = door(state)
    cross(step, 1)
    done = totals(str(state), "--json")
    assert json.loads(done.stdout)["sources"] == {"cam": {"in": 1, "out": 0}}, "while it counts, too"
    done = totals(str(state), "--forget", "cam")
    assert (done.returncode, "in use" in done.stderr) == (2, True)
    step.close()
    before = state.read_bytes()
    (tmp_path / "other.json").write_text("{}")
    for arguments, message in (
        ((str(state), "--source", "cm=x"), "Did you mean 'cam'?"),
        ((str(state), "--source", "cam"), "OLD=NEW"),
        ((str(state), "--counter", "a.b"), "letters, digits"),
        ((str(tmp_path / "other.json"),), "no state file"),
        ((str(tmp_path / "missing.json"),), "no state file"),
    ):
        done = totals(*arguments)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert state.read_bytes() == before


def test_moving_adds_and_keeps_the_newest_time() -> None:
    state = State(
        counter="door",
        sources={"a": {"in": 1, "out": 0}, "b": {"in": 2, "in.person": 2}},
        written={"a": "2026-01-01T00:00:00Z", "b": "2026-02-01T00:00:00Z"},
    )
    after = moved(state, {"b": "a"}, (), "")
    assert after.sources == {"a": {"in": 3, "out": 0, "in.person": 2}}
    assert after.written == {"a": "2026-02-01T00:00:00Z"}
