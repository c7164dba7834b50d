"""Cameras behind a program: a GStreamer pipeline, and the Raspberry Pi's ``rpicam-vid``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from edgecv.errors import ConfigError, SourceError
from edgecv.pipelines.sources import open_source
from edgecv.pipelines.sources.csi import jetson_elements, rpicam_arguments
from edgecv.pipelines.sources.live import LiveOptions
from edgecv.pipelines.sources.supervised.source import SupervisedSource
from edgecv.results import Frame
from tests.cameras.rpicam import put_rpicam
from tests.cameras.world import PATIENCE_S, Diary, children, is_running, need_gstreamer, next_frame, wait_until, workers
from tests.conftest import CHECKOUT


def _open(uri: str) -> tuple[SupervisedSource, Diary]:
    source = open_source(uri)
    assert isinstance(source, SupervisedSource)
    source.on_change = diary = Diary()
    return source, diary


def _read_all(uri: str) -> list[Frame]:
    source, diary = _open(uri)
    frames = []
    alarm = threading.Timer(PATIENCE_S, source.interrupt)
    alarm.start()
    while (frame := source.read()) is not None:
        frames.append(frame)
    alarm.cancel()
    source.close()
    assert diary.states == ["live", "ended"]
    return frames


@pytest.fixture
def gstreamer() -> None:
    need_gstreamer()


@pytest.mark.parametrize(
    ("size", "query", "shape"),
    [
        ("width=320,height=240", "", (240, 320, 3)),
        ("width=322,height=241", "", (241, 322, 3)),
        ("width=161,height=121", "", (121, 161, 3)),
        ("width=320,height=240", " ?width=80", (60, 80, 3)),
        ("width=320,height=240", " ?width=100&height=90", (90, 100, 3)),
    ],
)
def test_a_pipeline_gives_true_colours_in_any_size(
    gstreamer: None, size: str, query: str, shape: tuple[int, int, int]
) -> None:
    """Bars of pure colours, in the order that SMPTE gives them; the conversion through I420 costs a few levels."""
    frames = _read_all(f"gst:videotestsrc pattern=smpte100 num-buffers=8 ! video/x-raw,{size}{query}")
    assert {frame.image.shape for frame in frames} == {shape}
    assert frames[-1].index == 7
    row = frames[-1].image[shape[0] // 4].astype(int)
    centres = [row[round(shape[1] * (bar + 0.5) / 7)] for bar in range(7)]
    wanted = [(1, 1, 1), (0, 1, 1), (1, 1, 0), (0, 1, 0), (1, 0, 1), (0, 0, 1), (1, 0, 0)]
    assert np.abs(np.array(centres) - 255 * np.array(wanted)).max() < 40


def test_a_pipeline_that_changes_its_size_is_read_anew_and_never_wrongly(gstreamer: None) -> None:
    source, diary = _open(
        "gst:concat name=all videotestsrc pattern=white num-buffers=9 ! video/x-raw,width=320,height=240 ! all. "
        "videotestsrc pattern=white num-buffers=9 ! video/x-raw,width=162,height=122 ! all. all."
    )
    frames = []
    wait_until(lambda: frames.append(next_frame(source)) or diary.has("reconnecting", "eof"), "noticing the change")
    assert "changed their size" in next(health.error for _, health in diary.entries if health.state == "reconnecting")
    assert all(frame.image.shape == (240, 320, 3) and frame.image.min() > 250 for frame in frames)
    source.close()


@pytest.mark.parametrize(
    ("pipeline", "code", "state"),
    [
        ("videotestsrc ! nosuchelement", "codec", "failed"),
        ("videotestsrc ! fakesink", "codec", "connecting"),
        ("filesrc location=/no/such/file ! decodebin", "missing", "connecting"),
        ("tcpclientsrc host=127.0.0.1 port=9 ! decodebin", "refused", "connecting"),
    ],
)
def test_a_pipeline_that_cannot_run_says_why(gstreamer: None, pipeline: str, code: str, state: str) -> None:
    source, diary = _open(f"gst:{pipeline}")
    wait_until(lambda: diary.has(state, code), f"{state} {code}")
    assert source.health().hint
    source.close()


def test_a_pipeline_that_hangs_is_stale_and_its_program_goes(gstreamer: None) -> None:
    source, _ = _open("gst:videotestsrc is-live=true ! video/x-raw,width=64,height=48 ?deadline_s=1")
    next_frame(source)
    (worker,) = workers()
    (program,) = children(worker)
    os.kill(program, signal.SIGSTOP)
    wait_until(lambda: source.health().state == "stale", "staleness")
    wait_until(lambda: source.health().state == "live", "coming back")
    assert not is_running(program)
    (program,) = children(workers()[0])
    source.close()
    wait_until(lambda: not is_running(program), "the end of the program", 3.0)


def test_a_pipeline_does_not_outlive_a_killed_app(gstreamer: None) -> None:
    app = (
        "import time\nfrom edgecv.pipelines.sources import open_source\n"
        "source = open_source('gst:videotestsrc is-live=true ! identity drop-probability=0')\n"
        "source.read()\nprint('ready', flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", app], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        (worker,) = children(parent.pid)
        (program,) = children(worker)
        parent.kill()
    wait_until(lambda: not is_running(worker) and not is_running(program), "their end", 5.0)


def test_an_empty_or_unbalanced_pipeline_is_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        open_source("gst:")
    with pytest.raises(ConfigError, match="quotes"):
        open_source('gst:videotestsrc name="a')


@pytest.fixture
def pi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_rpicam(tmp_path, monkeypatch)


def test_a_ribbon_cable_camera_is_read_through_its_program(pi: None, capfd: pytest.CaptureFixture[str]) -> None:
    source, _ = _open("csi://0?width=128&height=96&fps=20")
    frames = [next_frame(source) for _ in range(5)]
    assert {frame.image.shape for frame in frames} == {(96, 128, 3)}
    assert all(np.ptp(frame.image) <= 2 for frame in frames), "whole images"
    (program,) = children(workers()[0])
    source.close()
    assert not is_running(program)
    assert capfd.readouterr() == ("", "")


def test_an_absent_ribbon_cable_camera_is_missed(pi: None) -> None:
    source, diary = _open("csi://7")
    wait_until(lambda: diary.has("connecting", "missing"), "the answer of the program")
    assert "cable" in source.health().hint
    source.close()


def test_a_board_without_the_program_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    sources = [_open(uri)[0] for uri in ("csi://0", "gst:videotestsrc")]
    for source in sources:
        with pytest.raises(SourceError, match=r"program") as caught:
            source.read()
        source.close()
        assert caught.value.code == "missing"
        assert "apt install" in caught.value.hint


def test_options_reach_the_programs_of_the_boards() -> None:
    options = LiveOptions(width=1280, height=720, fps=30)
    arguments = " ".join(rpicam_arguments("rpicam-vid", 1, options))
    assert "--camera 1" in arguments
    assert "--width 1280 --height 720 --framerate 30" in arguments
    assert "--width" not in rpicam_arguments("rpicam-vid", 0, LiveOptions())
    elements = " ".join(jetson_elements(1, options))
    assert elements.startswith(
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),framerate=30000/1000 ! nvvidconv"
    )
    assert "width=1280,height=720" in elements
