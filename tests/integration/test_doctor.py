"""``edgecv doctor`` on this machine, with real cameras, brokers and runtimes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgecv.cli.doctor import _show
from edgecv.cli.reach import broker_finding, source_finding
from edgecv.cloud_sync.mqtt.broker_url import parse_broker_url
from edgecv.devices.doctor.finding import Finding
from edgecv.pipelines.uris import parse_source
from tests.command_line import run_here
from tests.conftest import CHECKOUT
from tests.unit.cloud_sync.support import Mosquitto, running_mosquitto


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _files(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What it says of this machine, a source that answers and a broker that does not."""
    folder = tmp_path_factory.mktemp("doctor")
    (folder / "kept.txt").write_text("as it was")
    before = _files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        broker = f"mqtt://127.0.0.1:{_free_port()}"
        done = run_here("doctor", "--json", "--source", "synthetic://?frames=3&width=64&height=48", "--mqtt", broker)
    assert done.returncode == 1, done.stderr
    assert _files(folder) == before, "the doctor changes nothing"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _of(document: dict[str, Any], wanted: str) -> dict[str, str]:
    return next(one for one in document["findings"] if one["id"] == wanted)


def test_a_broker_that_does_not_answer_fails_it(document: dict[str, Any]) -> None:
    found = _of(document, "broker")
    assert document["failed"] is True
    assert (found["level"], found["fix"].startswith("nc -vz -w 5 -- 127.0.0.1 ")) == ("fail", True)
    assert found["what"].endswith("refused. Check host and port.")  # two sentences


def test_a_source_that_answers_is_said_with_its_size(document: dict[str, Any]) -> None:
    assert _of(document, "source")["what"].endswith("gives frames of 64 x 48")


def test_each_finding_is_whole(document: dict[str, Any]) -> None:
    for one in document["findings"]:
        assert set(one) == {"id", "level", "what", "why", "fix"}
        assert bool(one["why"] and one["fix"]) == (one["level"] != "ok"), one


def test_the_runtimes_of_this_machine_were_tried(document: dict[str, Any]) -> None:
    pytest.importorskip("onnxruntime")
    found = _of(document, "runtime-onnxruntime")
    assert (found["level"], "computes a tiny model" in found["what"]) == ("ok", True), found


def test_a_working_folder_that_was_deleted_is_no_traceback(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    program = f"cd {gone} && rmdir {gone} && exec {sys.executable} -m edgecv doctor --json"
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        ["sh", "-c", program], capture_output=True, text=True, timeout=90, check=False, env=environment
    )
    assert _of(json.loads(done.stdout), "disk")["what"].endswith(" in ."), done.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--source", ""),
        ("--source", "nosuch://x"),
        ("--mqtt", "http://x"),
        ("--mqtt", "mqtt://10.0.0.9"),
        ("--jsn", ""),
    ],
)
def test_wrong_usage_is_no_finding(option: str, value: str) -> None:
    done = run_here("doctor", option, value)
    assert (done.returncode, done.stdout) == (2, ""), done


def test_text_for_people_has_a_line_to_paste_for_each_trouble(tmp_path: Path) -> None:
    done = run_here("doctor", "--source", tmp_path / "missing.mp4")
    lines = done.stdout.splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith("fail  source"))
    assert lines[at + 1].split()[0] == "why"
    assert lines[at + 2].split()[0] == "fix"
    assert lines[-1].startswith("1 fail, ")
    assert done.returncode == 1


def test_a_long_id_stands_apart_from_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    _show(Finding(id="onnxruntime-gpu-jetson", level="warn", what="onnxruntime-gpu 1.29", why="", fix=""))
    assert capsys.readouterr().out.split() == ["warn", "onnxruntime-gpu-jetson", "onnxruntime-gpu", "1.29"]


# Source -> a word of the line to paste. No password is ever in it.
ABSENT = {
    "usb://97": "v4l2-ctl --list-devices",
    "rtsp://joe:s3cret@127.0.0.1:{port}/1": "nc -vz -w 5 -- 127.0.0.1 {port}",
    "http://joe:s3cret@127.0.0.1:{port}/x.mjpg": "nc -vz -w 5 -- 127.0.0.1 {port}",
}


@pytest.mark.parametrize("text", ABSENT)
def test_a_camera_that_is_not_there_is_told_with_its_line_to_paste(text: str) -> None:
    port = str(_free_port())
    found = source_finding(parse_source(text.replace("{port}", port)))
    assert (found.level, ABSENT[text].replace("{port}", port) in found.fix) == ("fail", True), found
    assert found.why
    assert "s3cret" not in str(found)


# What a stranger may have written into a name.
HOSTILE = (
    "-la;touch x",
    "rtsp://$(touch${IFS}x)/1",
    "a b;touch x.mp4",
    "rtsp://127.0.0.1:99999/1",
    "gst:`touch x`",
    "'$(touch x)'.mp4",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_line_to_paste_runs_nothing_that_a_name_holds(text: str, tmp_path: Path) -> None:
    found = source_finding(parse_source(text), limit_s=5.0)
    words = found.fix.partition("  # ")[0]
    subprocess.run(["sh", "-c", words], cwd=tmp_path, capture_output=True, check=False, timeout=20)
    assert found.level == "fail"
    assert not list(tmp_path.iterdir()), words


def test_a_broker_that_lets_the_device_in_is_well(tmp_path: Path) -> None:
    with running_mosquitto(tmp_path) as broker:
        assert broker_finding(parse_broker_url(broker.url)).level == "ok"


def _locked(folder: Path) -> Mosquitto:
    return Mosquitto(folder, ["allow_anonymous false"])


def test_a_broker_that_refuses_the_device_says_so_with_a_line_to_paste(tmp_path: Path) -> None:
    broker = _locked(tmp_path)
    try:
        found = broker_finding(parse_broker_url(broker.url))
    finally:
        broker.kill()
    assert (found.level, "password_file" in found.fix) == ("fail", True), found


def test_a_server_that_is_no_broker_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"mqtt://127.0.0.1:{server.getsockname()[1]}?protocol=5"
        found = broker_finding(parse_broker_url(url), limit_s=1.0)
    assert (found.level, "does not answer" in found.what) == ("fail", True), found
