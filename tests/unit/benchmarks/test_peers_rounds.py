"""EdgeCV beside other tools: how rounds are merged, what a side that fails shows, and what is held against what."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from edgecv.benchmarks.lab.peers import environments
from edgecv.benchmarks.lab.peers.environments import HERE, PINS, Environment, prepare
from edgecv.benchmarks.lab.peers.judged import Target, Verdict, judged
from edgecv.benchmarks.lab.peers.rounds import Summary, Turn, agreement, read_answer, run_rounds, run_side, summed_up
from edgecv.benchmarks.lab.peers.sides import GROUPS, SAME_OPENVINO, Files, Plan, Side, all_sides, ours
from edgecv.benchmarks.lab.process_tree import Measured, run_measured
from edgecv.errors import ConfigError, EdgeCVError
from tests.conftest import CHECKOUT

_TARGET = Target(group="g", peer="peer", peer_group="g", speed=1.1, memory=0.8)


def _side(name: str, program: str = "", *, reads: str = "json", group: str = "g", missing: str = "") -> Side:
    command = (sys.executable, "-S", "-c", program)
    return Side(name=name, group=group, command=command, reads=reads, missing=missing)


def _ended(stdout: str, code: int | None = 0, stderr: str = "") -> Measured:
    return Measured(code=code, stdout=stdout, stderr=stderr, wall_s=1.0, peak_rss_bytes=0)


def _summary(name: str, rates: tuple[float, ...], pss_mb: float, *, reads: str = "json", reason: str = "") -> Summary:
    turns = [Turn(fps=fps, peak_pss_mb=pss_mb, frames=10) for fps in rates]
    reasons = {0: reason} if reason else {}
    return summed_up([_side(name, reads=reads)], [turns], reasons)[0]


def test_rounds_become_medians_with_the_lowest_and_the_highest():
    found = _summary("a", (30.0, 50.0, 40.0), 100.0)
    assert (found.fps, found.fps_range, found.rounds_fps) == (40.0, (30.0, 50.0), (30.0, 50.0, 40.0))


def test_boxes_are_compared_with_those_of_edgecv_in_the_same_group():
    sides = [_side("edgecv", reads="edgecv"), _side("peer"), _side("app", reads="benchmark_app")]
    turns = [[Turn(fps=1, counts=(5, 6, 7, 8))], [Turn(fps=1, counts=(5, 6, 7))], [Turn(fps=1)]]
    edgecv, peer, app = summed_up(sides, turns, {})
    assert (edgecv.agreement, peer.agreement, app.agreement) == (1.0, 1.0, None)
    assert (edgecv.boxes, peer.boxes, app.boxes) == (6.5, 6.0, None)
    assert agreement((1, 2, 3, 4), (1, 2, 0, 0)) == 0.5


def test_a_side_that_fails_shows_its_reason_and_the_others_go_on():
    sides = [
        _side("fails", "import sys; sys.exit('there is no model')"),
        _side("works", 'print(\'{"fps": 5, "frames": 3, "counts": [1, 2]}\')'),
        _side("missing", "raise SystemExit('it must not be run')", missing="could not be installed: no wheel"),
    ]
    said: list[str] = []
    fails, works, missing = run_rounds(sides, 2, 60.0, said.append)
    assert fails.reason == "ended with code 1: there is no model"
    assert (works.reason, works.rounds_fps, works.boxes) == ("", (5.0, 5.0), 1.5)
    assert missing.reason == "could not be installed: no wheel"
    assert sum("there is no model" in line for line in said) == 1  # it is not tried again


def test_no_round_begins_that_would_end_too_late():
    side = _side("works", 'print(\'{"fps": 5, "frames": 3}\')')
    (found,) = run_rounds([side], 9, 0.0, lambda _: None)
    assert len(found.rounds_fps) == 3  # fewer would show no spread


@pytest.mark.parametrize(
    ("done", "said"),
    [
        (_ended("", 2, "usage\nno such option"), "ended with code 2: no such option"),
        (_ended("", None), "took too long"),
        (_ended('{"frames": 1}'), "gave no figures"),
        (_ended("nothing"), "gave no figures"),
    ],
)
def test_what_is_no_answer_is_said(done: Measured, said: str):
    with pytest.raises(EdgeCVError, match=said):
        read_answer(_side("a"), done)


def test_the_last_document_on_stdout_counts():
    assert read_answer(_side("a"), _ended('noise {\n{\n "fps": 12.5,\n "frames": 3\n}\n')).fps == 12.5


def test_benchmark_app_is_read_from_its_words():
    text = "[ INFO ] Count:            9 iterations\n[ INFO ] Latency:\n[ INFO ] Throughput:   2.72 FPS\n"
    turn = read_answer(_side("app", reads="benchmark_app"), _ended(text))
    assert (turn.fps, turn.frames, turn.counts) == (2.72, 9, ())


def test_processor_time_of_a_run_is_counted():
    program = 'sum(number for number in range(3_000_000)); print(\'{"fps": 1, "frames": 1}\')'
    assert 0.01 < run_side(_side("busy", program)).cpu_s < 20


def test_edgecv_is_held_against_the_fastest_peer_of_a_kind():
    summaries = [
        _summary("edgecv", (55.0, 60.0, 65.0), 150.0, reads="edgecv"),
        _summary("peer, slow", (10.0, 10.0, 10.0), 900.0),
        _summary("peer, quick", (50.0, 50.0, 50.0), 200.0),
        _summary("other", (500.0, 500.0, 500.0), 10.0),
    ]
    (found,) = judged(summaries, [_TARGET])
    assert (found.peer, found.speed, found.speed_range, found.memory) == ("peer, quick", 1.2, (1.1, 1.3), 0.75)
    assert (found.fast_enough, found.small_enough) == (True, True)


@pytest.mark.parametrize(
    ("speed", "of_rounds", "memory", "met"),
    [
        (1.2, 1.2, 0.7, (True, True)),
        (1.2, 1.0, 0.7, (False, True)),
        (1.0, 1.2, 0.9, (False, False)),
    ],
)
def test_a_target_is_met_only_when_medians_and_rounds_agree(speed, of_rounds, memory, met):
    found = Verdict(
        target=_TARGET, peer="p", speed=speed, speed_range=(speed, speed), round_speed=of_rounds, memory=memory
    )
    assert (found.fast_enough, found.small_enough) == met


def test_a_target_whose_peer_failed_is_not_judged():
    edgecv = _summary("edgecv", (1.0,), 1.0, reads="edgecv")
    assert judged([edgecv, _summary("peer", (), 0.0, reason="no wheel")], [_TARGET]) == []


def _files(folder: Path) -> Files:
    (folder / "export").mkdir()
    names = ("export/m.xml", "m.onnx", "m.tflite", "v.avi", "boxes.xml")
    for name in names:
        (folder / name).touch()
    (folder / "b.ecv/openvino-int8").mkdir(parents=True)
    (folder / "b.ecv/openvino-int8/model.xml").touch()
    return Files(
        bundle=folder / "b.ecv",
        video=folder / "v.avi",
        openvino=folder / "export",
        onnx=folder / "m.onnx",
        litert=folder / "m.tflite",
        with_boxes=folder / "boxes.xml",
    )


_PLAN = Plan(frames=50, threads=2, app_seconds=1)


def test_every_group_has_edgecv_a_peer_and_its_own_number_of_frames(tmp_path: Path):
    there = {name: Environment(name=name, python=sys.executable) for name in (HERE, *PINS)}
    sides = all_sides(_files(tmp_path), _PLAN, there)
    assert not [side for side in sides if side.missing]
    for group in GROUPS:
        of_group = [side for side in sides if side.group == group]
        assert [side for side in of_group if ours(side)]
        assert [side for side in of_group if not ours(side)]
    assert {side.threads for side in sides} >= {"`--threads 2`", "`nthreads`", "`-nthreads`"}


def test_a_side_without_environment_or_file_stays_in_the_table_with_the_reason(tmp_path: Path):
    files = _files(tmp_path)
    files.onnx.unlink()
    there = {name: Environment(name=name, python=sys.executable) for name in (HERE, *PINS)}
    there["model-api"] = Environment(name="model-api", reason="could not be installed: no wheel")
    sides = all_sides(files, _PLAN, there)
    reasons = {side.missing for side in sides if "Model API" in side.name}
    assert reasons == {"the environment model-api could not be installed: no wheel"}
    assert f"{files.onnx} does not exist" in {side.missing for side in sides}
    assert not [side for side in sides if side.missing and side.group == SAME_OPENVINO and "Model API" not in side.name]


def test_an_export_without_a_graph_is_refused(tmp_path: Path):
    files = msgspec.structs.replace(_files(tmp_path), openvino=tmp_path / "b.ecv")
    with pytest.raises(ConfigError, match=r"holds 0 \.xml files"):
        all_sides(files, _PLAN, {})


def test_an_environment_of_other_versions_does_not_count(tmp_path: Path):
    place = tmp_path / "litert"
    (place / "bin").mkdir(parents=True)
    (place / "bin/python").touch()
    (place / "made-with.txt").write_text("\n".join(PINS["litert"]) + "\n")
    assert prepare(["litert"], tmp_path, install=False)["litert"].python == str(place / "bin/python")
    (place / "made-with.txt").write_text("numpy==1.0\n")
    assert "holds other versions" in prepare(["litert"], tmp_path, install=False)["litert"].reason
    assert prepare([HERE], tmp_path, install=False)[HERE].python == sys.executable


def test_an_environment_that_cannot_be_installed_says_why(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(environments, "PINS", {"odd": ("no such requirement!",)})
    monkeypatch.setattr(environments.sys, "executable", "/bin/false")
    assert prepare(["odd"], tmp_path)["odd"].reason == "could not be installed: pip said nothing"


def test_what_peers_share_with_edgecv_has_the_same_version():
    locked = dict(line.split("==") for line in (CHECKOUT / "constraints.txt").read_text().splitlines() if "==" in line)
    pinned = {pin for name, pins in PINS.items() if name != "model-api" for pin in pins}
    assert all(locked[name] == number for name, number in (pin.split("==") for pin in pinned))


def test_proportional_memory_holds_the_children_too():
    hold = "held = b'x' * 60_000_000; import time; time.sleep(1.5)"
    parent = f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {hold!r}]); {hold}; child.wait()"
    done = run_measured([sys.executable, "-c", parent], timeout_s=60, pss=True)
    assert done.code == 0
    assert done.peak_pss_bytes > 120_000_000
    assert run_measured([sys.executable, "-c", "pass"], timeout_s=60).peak_pss_bytes == 0
