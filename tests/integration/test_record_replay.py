"""``edgecv record`` and ``edgecv replay`` as users run them, with a real ONNX model: counts, kills, signals, exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from edgecv.cli.app import explain, run_command
from edgecv.cli.app_config import check_app, read_app_file
from edgecv.model import load
from edgecv.pipelines.recording.layout import RESULTS
from edgecv.pipelines.recording.recording import Recording
from edgecv.pipelines.recording.replay import open_replay
from edgecv.quantize.calibration.calibration_set import open_calibration
from tests.conftest import CHECKOUT, names_in
from tests.models import write_bundle
from tests.unit.pipelines.test_recording import Crossings, bits, recorded, result_of

DEADLINE_S = 60
ENDLESS = "synthetic://?frames=0&width=64&height=64&fps=100&live=1"


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgecv", *map(str, arguments)]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*arguments: str | Path) -> tuple[int, str, str]:
    program = start(*arguments)
    try:
        stdout, stderr = program.communicate(timeout=DEADLINE_S)
    finally:
        program.kill()
    return program.returncode, stdout, stderr


def wait_for_frames(path: Path, count: int) -> None:
    """Until so many images lie there."""
    deadline = time.monotonic() + DEADLINE_S
    while len([*path.rglob("*.jpg")]) < count:
        assert time.monotonic() < deadline, "nothing is recorded"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("model") / "tiny.ecv").path


def clip(frames: int, width: int = 64) -> str:
    return f"synthetic://?frames={frames}&width={width}&height=64"


def lines(path: Path) -> list[dict[str, Any]]:
    """Results without what differs between two runs."""
    documents = [json.loads(line) for line in path.read_text().splitlines()]
    for document in documents:
        del document["age_ms"], document["timings_ms"]
    return documents


APP = """
[model]
bundle = "{bundle}"
runtime = "onnxruntime"
precision = "int8"  # one variant: nothing is chosen, so nothing is said
threads = 1

[[sources]]
name = "door"
uri = "synthetic://?frames=120&width=64&height=64"

[[sources]]
name = "yard"
uri = "synthetic://?frames=80&width=96&height=64"
"""


def test_two_cameras_are_recorded_and_replayed_alike(tmp_path: Path, bundle: Path) -> None:
    path, config = tmp_path / "two.rec", tmp_path / "app.toml"
    config.write_text(APP.format(bundle=bundle))
    code, stdout, stderr = run("record", "--config", config, "--out", path, "--frames", "png", "--json")
    assert (code, stderr) == (0, "")
    document = json.loads(stdout)
    assert (document["frames"], document["recorded"], document["lost"], document["full"]) == (200, 200, 0, "")

    counted = []
    for number in range(2):
        out = tmp_path / f"{number}.jsonl"
        code, stdout, stderr = run("replay", path, "--config", config, "--out", f"jsonl:{out}", "--json")
        assert (code, stderr) == (0, "")
        document = json.loads(stdout)
        assert (document["frames"], document["notes"]) == (200, [])
        assert document["counts"] == {"door": {}, "yard": {}}
        crossings = Crossings()
        open_replay(path, steps=[crossings]).run()
        counted.append((crossings.counted, crossings.evidence))
    assert lines(tmp_path / "0.jsonl") == lines(tmp_path / "1.jsonl")
    assert any(document["detections"] for document in lines(tmp_path / "0.jsonl"))
    assert counted[0] == counted[1]
    assert all(sum(counts.values()) > 1 for counts in counted[0][0].values())


RULES = """
sinks = ["jsonl:live.jsonl", "record:live.rec"]

[[steps]]
type = "track"
confirm = 1

[[steps]]
type = "zone"
name = "left"
points = [[0, 0], [32, 0], [32, 64], [0, 64]]
anchor = "center"

[[steps]]
type = "crowd"
name = "queue"
zone = "left"
least = 1
for_s = 0.002
clear_s = 0

[[steps]]
type = "absence"
name = "idle"
zone = "left"
for_s = 0.002

[[steps]]
type = "dwell"
name = "stay"
zone = "left"
for_s = 0.003
clear_s = 0.001
schedule = { days = ["mon-sun"], hours = "00:00-24:00", time_zone = "UTC" }

[[steps]]
type = "appear"
name = "come"
zone = "left"
for_s = 0
cooldown_s = 0.01
sources = ["door"]
"""


def test_rules_say_the_same_in_a_replay(tmp_path: Path, bundle: Path) -> None:
    """While it is recorded, and in two replays: the same events, at the same times, with the same keys."""
    config = tmp_path / "app.toml"
    app = RULES.replace("[[steps]]", APP.format(bundle=bundle) + "\n[[steps]]", 1)
    config.write_text(app.replace("live.", f"{tmp_path}/live."))
    assert run("run", "--config", config)[0] == 0
    replayed, again = tmp_path / "replayed.jsonl", tmp_path / "again.jsonl"
    code, _, stderr = run("replay", tmp_path / "live.rec", "--config", config, "--out", f"jsonl:{replayed}")
    assert code == 0, stderr
    steps = check_app(read_app_file(config), "app.toml").steps
    open_replay(tmp_path / "live.rec", steps=steps, sinks=[f"jsonl:{again}"]).run()
    said = [[event for row in lines(path) for event in row.get("events", ())] for path in (replayed, again)]
    live = [event for document in lines(tmp_path / "live.jsonl") for event in document.get("events", ())]
    assert said[0] == said[1] == live
    rules = Counter(event["data"]["rule"] for event in live if "rule" in event["data"])
    assert min(rules[name] for name in ("queue", "idle", "stay", "come")) > 0, rules


def test_a_file_with_other_limits_than_recorded_is_told(tmp_path: Path, bundle: Path) -> None:
    path, config = recorded(tmp_path / "a.rec", [result_of(0)], confidence=0.25), tmp_path / "app.toml"
    config.write_text("[model]\nconfidence = 0.5\nclasses = ['person']")
    code, _, stderr = run("replay", path, "--config", config, "--out", f"jsonl:{tmp_path / 'out.jsonl'}")
    assert code == 0
    assert "the file says confidence = 0.5, recorded was with 0.25" in stderr
    assert lines(tmp_path / "out.jsonl")[0]["detections"] == [], "recorded was a car"


def test_replay_keeps_the_named_classes_and_reads_the_runtime_of_the_file(tmp_path: Path, bundle: Path) -> None:
    path, config, out = recorded(tmp_path / "a.rec", [result_of(0)]), tmp_path / "app.toml", tmp_path / "out.jsonl"
    assert run("replay", path, "--classes", " person,", "--out", f"jsonl:{out}")[0] == 0
    assert lines(out)[0]["detections"] == [], "recorded was a car"
    config.write_text("[model]\nruntime = 'teleport'")
    code, _, stderr = run("replay", path, "--bundle", bundle, "--config", config)
    assert (code, "teleport" in stderr) == (2, True), stderr


def test_the_bundle_finds_the_same_again_in_lossless_frames(tmp_path: Path, bundle: Path) -> None:
    path, out = tmp_path / "a.rec", tmp_path / "again.jsonl"
    limits = ("--conf", "0.4", "--threads", "1")
    assert run("record", bundle, "--source", clip(40), "--out", path, "--frames", "png", *limits)[0] == 0
    code, _, stderr = run("replay", path, "--bundle", bundle, "--threads", "1", "--out", f"jsonl:{out}")
    assert code == 0, stderr
    assert "40 of 40 frames" in stderr
    remembered = list(open_replay(path))
    with load(bundle, threads=1) as model:
        again = list(open_replay(path, model=model))
    assert [bits(result.detections) for result in again] == [bits(result.detections) for result in remembered]
    assert [len(document["detections"]) for document in lines(out)] == [len(r.detections or ()) for r in remembered]
    assert any(len(result.detections or ()) for result in remembered)


def test_kill_9_leaves_every_whole_frame_and_the_same_counts(tmp_path: Path, bundle: Path) -> None:
    path = tmp_path / "a.rec"
    program = start("record", bundle, "--source", "synthetic://?frames=0&width=64&height=64", "--out", path)
    wait_for_frames(path, 300)
    program.kill()
    program.communicate(timeout=DEADLINE_S)
    recording = Recording.open(path)
    assert recording.extent.records >= 299
    assert "not closed" in recording.notes[0]
    counted = []
    for _ in range(2):
        crossings = Crossings()
        summary = open_replay(path, steps=[crossings]).run()
        assert summary.frames == recording.extent.records
        counted.append((crossings.counted, crossings.evidence))
    assert counted[0] == counted[1]
    assert sum(counted[0][0]["synthetic://"].values()) > 5
    code, stdout, stderr = run("replay", path, "--json")
    assert code == 0
    assert json.loads(stdout)["notes"] == list(recording.notes)
    assert stderr.count("not closed") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)], ids=["ctrl-c", "sigterm"])
def test_a_signal_ends_a_recording_whole_and_with_a_report(
    tmp_path: Path, bundle: Path, number: signal.Signals, code: int
) -> None:
    path = tmp_path / "a.rec"
    program = start("record", bundle, "--source", ENDLESS, "--out", path, "--json")
    wait_for_frames(path, 10)
    program.send_signal(number)
    stdout, stderr = program.communicate(timeout=DEADLINE_S)
    assert program.returncode == code, stderr
    document, recording = json.loads(stdout), Recording.open(path)
    assert recording.notes == ()
    assert document["recorded"] == recording.extent.records >= 10
    assert document["lost"] == document["frames"] - document["recorded"]


def test_a_recording_ends_after_its_seconds_or_gigabytes(tmp_path: Path, bundle: Path) -> None:
    start_s = time.monotonic()
    source = ("--source", ENDLESS, "--out")
    code, _, stderr = run("record", bundle, *source, tmp_path / "a.rec", "--seconds", "0.5")
    assert (code, time.monotonic() - start_s < 30) == (0, True)
    assert f"MB: {tmp_path / 'a.rec'}" in stderr
    code, stdout, _ = run("record", bundle, *source, tmp_path / "b.rec", "--max-gb", "0.00005", "--json")
    document = json.loads(stdout)
    assert code == 0
    assert "0.00005" in document["full"] or "5e-05" in document["full"]
    assert 0 < document["size_bytes"] < 60_000
    assert Recording.open(tmp_path / "b.rec").extent.records == document["recorded"] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["replay", "missing.rec"], 1, "is no recording"),
        (["replay", "."], 1, "is no recording"),
        (["replay", "good.rec", "--conf", "0.5"], 2, "--bundle"),
        (["replay", "good.rec", "--config", "missing.toml"], 2, "missing.toml cannot be read"),
        (["replay", "good.rec", "--speed", "-1"], 2, "speed"),
        (["replay", "good.rec", "--json", "--out", "jsonl:-"], 2, "both write to stdout"),
        (["replay", "good.rec", "--out", "jsnol:x"], 2, "Did you mean 'jsonl'"),
        (["replay", "cut.rec"], 1, "of 5 frames"),
        (["record", "tiny.ecv", "--source", "synthetic://?frames=5", "--out", "good.rec"], 2, "exists"),
        (
            ["record", "tiny.ecv", "--source", "synthetic://?frames=5", "--out", "new.rec", "--frames", "none"],
            2,
            "jpeg, png",
        ),
        (
            ["record", "tiny.ecv", "--source", "synthetic://?frames=5", "--out", "new.rec", "--classes", "cat"],
            2,
            "bright",
        ),
        (["record", "tiny.ecv", "--source", "missing.mp4", "--out", "new.rec"], 1, "does not exist"),
        (["record", "tiny.ecv", "--source", "synthetic://?frames=5", "--out", "no/new.rec"], 1, "folder exist"),
        (["record", "tiny.ecv", "--out", "new.rec"], 2, "--source"),
        (["record", "--source", "synthetic://?frames=5", "--out", "new.rec"], 2, "no bundle"),
        (["record", "tiny.ecv", "--source", "synthetic://?frames=5"], 2, "--out"),
        (["record", "tiny.ecv", "--source", "good.rec/frames/", "--out", "good.rec", "--force"], 2, "lies in good.rec"),
    ],
    ids=lambda value: " ".join(value[2:] or value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_says_why_and_leaves_nothing(
    tmp_path: Path,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    (tmp_path / "tiny.ecv").symlink_to(bundle)
    for name in ("good", "cut"):
        recorded(tmp_path / f"{name}.rec", [result_of(index) for index in range(5)])
    results = tmp_path / "cut.rec" / RESULTS
    results.write_bytes(results.read_bytes()[:-2])
    before = names_in(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["edgecv", *arguments])
    with pytest.raises(Exception) as problem:
        run_command()
    assert explain(problem.value) == code
    assert says in capsys.readouterr().err
    assert names_in(tmp_path) == before


def test_a_recording_is_a_calibration_set(tmp_path: Path, bundle: Path) -> None:
    path = tmp_path / "a.rec"
    assert run("record", bundle, "--source", clip(120, 128), "--out", path)[0] == 0
    found = open_calibration(path)
    assert len(found) > 16
    assert all(image.suffix == ".jpg" for image in (*found.calibrate, *found.held_out))
    assert not set(found.calibrate) & set(found.held_out)
