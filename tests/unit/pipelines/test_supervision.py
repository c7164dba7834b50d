"""A live source in its worker process: whole frames, honest states, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgecv.errors import ConfigError, SourceError
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.source_config import SourceConfig
from edgecv.pipelines.sources.supervised.retry import Retry
from edgecv.pipelines.sources.supervised.ring import RingReader
from edgecv.pipelines.sources.supervised.source import SupervisedSource
from edgecv.protocols import Supervised
from tests.cameras.scripted import LEVELS, TARGET
from tests.cameras.world import PATIENCE_S, Diary, children, is_running, next_frame, wait_until, workers
from tests.conftest import CHECKOUT
from tests.unit.pipelines.blob import BlobModel, pipeline_threads

Open = Callable[..., tuple[SupervisedSource, Diary]]


@pytest.fixture
def camera() -> Iterator[Open]:
    """Opens scripted cameras by their query, and closes them; waits between tries are short and never random."""
    opened: list[SupervisedSource] = []

    def open_camera(query: str = "", path: str = "", **options: object) -> tuple[SupervisedSource, Diary]:
        settings = {"retry": Retry(first_s=0.1), "draw": lambda: 0.5, **options}
        uri = f"scripted://{path}?{query}" if query else f"scripted://{path}"
        source = SupervisedSource(uri, target=TARGET, **settings)  # type: ignore[arg-type]
        source.on_change = diary = Diary()
        opened.append(source)
        return source, diary

    yield open_camera
    for source in opened:
        source.close()
    assert not workers()


def test_it_is_what_the_pipeline_calls_supervised(camera: Open) -> None:
    source, _ = camera()
    assert isinstance(source, Supervised)
    assert source.live
    assert source.health().state == "connecting"


def test_no_frame_is_torn_repeated_or_out_of_order(camera: Open) -> None:
    source, _ = camera("rate=2000&width=800&height=600")
    frames = [next_frame(source) for _ in range(300)]
    assert [frame.index for frame in frames if (frame.image != frame.index % LEVELS).any()] == []
    numbers = [frame.index for frame in frames]
    assert numbers == sorted(set(numbers))
    stamps = [frame.monotonic_ns for frame in frames]
    assert stamps == sorted(stamps)


def test_a_slow_reader_gets_the_newest_frame_and_the_others_are_counted(camera: Open) -> None:
    source, _ = camera()
    first = next_frame(source)
    wait_until(lambda: source.dropped >= 10, "ten frames going unread")
    second = next_frame(source)
    third = next_frame(source)
    assert second.index > first.index + 10
    assert source.dropped >= second.index - first.index - 1
    assert time.monotonic_ns() - third.monotonic_ns < 2_000_000_000


def test_every_number_is_read_or_counted(camera: Open) -> None:
    source, _ = camera("frames=200&rate=1000")
    read = []
    while (frame := source.read()) is not None:
        read.append(frame.index)
        time.sleep(0.005)
    assert read[-1] == 199
    assert len(read) + source.dropped == 200


def test_the_size_may_change_in_mid_stream(camera: Open) -> None:
    source, diary = camera("grow_after=20&frames=60")
    frames = []
    while (frame := source.read()) is not None:
        frames.append(frame)
    assert [f.image.shape for f in frames if f.index < 20] == [(48, 64, 3)] * sum(f.index < 20 for f in frames)
    assert frames[-1].image.shape == (96, 128, 3)
    assert all(len(np.unique(frame.image)) == 1 for frame in frames)
    assert diary.states == ["live", "ended"]


def test_the_end_of_a_source_is_its_end(camera: Open) -> None:
    source, diary = camera("frames=3")
    indices = []
    while (frame := source.read()) is not None:
        indices.append(frame.index)
    assert indices[-1] == 2
    assert source.read() is None
    assert diary.states == ["live", "ended"]


def test_an_absent_camera_is_no_error_and_is_found_when_it_comes(camera: Open, tmp_path: Path) -> None:
    plug = tmp_path / "plug"
    source, _ = camera(path=str(plug))
    wait_until(lambda: source.health().code == "missing", "the camera being missed")
    assert source.health().state == "connecting"
    assert source.health().hint == "Plug it in."
    plug.touch()
    next_frame(source)
    assert source.health().state == "live"
    assert (source.health().code, source.health().reconnects) == ("", 0)


def test_an_unplugged_camera_comes_back_with_rising_numbers(camera: Open, tmp_path: Path) -> None:
    plug = tmp_path / "plug"
    plug.touch()
    source, diary = camera(path=str(plug))
    before = next_frame(source)
    plug.unlink()
    wait_until(lambda: source.health().state == "reconnecting", "noticing the loss")
    assert source.health().code == "missing"
    plug.touch()
    wait_until(lambda: source.health().state == "live", "coming back")
    frames = [next_frame(source) for _ in range(3)]
    assert frames[-1].index > before.index
    assert source.health().reconnects == 1
    assert diary.states == ["live", "reconnecting", "live"]


def test_a_camera_that_hangs_is_stale_in_time_and_opened_again(camera: Open, tmp_path: Path) -> None:
    plug = tmp_path / "plug"
    plug.touch()
    source, diary = camera("deadline_s=0.5&connect_s=3", path=str(plug))
    next_frame(source)
    plug.write_text("frozen")
    frozen = time.monotonic()
    wait_until(lambda: diary.has("stale"), "staleness")
    told, health = next(entry for entry in diary.entries if entry[1].state == "stale")
    assert told - frozen < 3.5, "deadline 0.5 s, one second to tell, and a busy machine"
    assert health.code == "stale"
    assert health.hint
    plug.write_text("")
    wait_until(lambda: source.health().state == "live", "coming back")
    assert diary.states[:2] == ["live", "stale"]


def test_a_camera_that_never_answers_is_a_timeout(camera: Open) -> None:
    source, diary = camera("hang_after=0&connect_s=1")
    wait_until(lambda: diary.has("connecting", "timeout"), "the timeout")
    assert "connect_s" in source.health().hint


def test_a_killed_worker_is_replaced(camera: Open) -> None:
    source, diary = camera()
    before = next_frame(source)
    os.kill(workers()[0], signal.SIGKILL)
    wait_until(lambda: diary.states[-2:] == ["reconnecting", "live"], "coming back")
    assert any("signal 9" in health.error for _, health in diary.entries)
    frames = [next_frame(source) for _ in range(3)]
    assert frames[-1].index > before.index


def test_a_wrong_password_is_given_up_after_three_tries(camera: Open) -> None:
    source, diary = camera("fail=auth")
    with pytest.raises(SourceError, match="auth") as caught:
        source.read()
    assert (caught.value.code, caught.value.hint) == ("auth", "A hint.")
    assert diary.states == ["connecting", "failed"], "told when the class of the error changes, not with every try"
    with pytest.raises(SourceError, match="auth"):
        source.read()


def test_what_may_pass_is_tried_for_ever(camera: Open) -> None:
    tries: list[float] = []

    def draw() -> float:
        tries.append(time.monotonic())
        return 0.1

    source, _ = camera("fail=refused", draw=draw)
    wait_until(lambda: len(tries) >= 5, "five tries")
    assert source.health().state == "connecting"


def test_a_read_is_interrupted_from_another_thread(camera: Open) -> None:
    source, _ = camera("hang_after=0")
    read: list[object] = []
    thread = threading.Thread(target=lambda: read.append(source.read()))
    thread.start()
    source.interrupt()
    thread.join(PATIENCE_S)
    assert read == [None]
    assert source.read() is None


def test_closing_ends_a_waiting_read(camera: Open) -> None:
    source, _ = camera("hang_after=0")
    thread = threading.Thread(target=source.read)
    thread.start()
    start = time.monotonic()
    source.close()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert time.monotonic() - start < 4.0


@pytest.mark.parametrize("query", ["", "hang_after=3"], ids=["live", "hanging"])
def test_closing_leaves_no_process_thread_or_descriptor(camera: Open, query: str) -> None:
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    source, _ = camera(query)
    next_frame(source)
    (worker,) = workers()
    start = time.monotonic()
    source.close()
    assert time.monotonic() - start < 4.0
    assert not is_running(worker)
    assert not [thread.name for thread in threading.enumerate() if source.source_id in thread.name]
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert source.health().state == "ended"
    assert source.read() is None
    source.close()


PARENT = """
import os, sys, time
from edgecv.pipelines.sources.supervised.source import SupervisedSource
source = SupervisedSource("scripted://?hang_after=" + sys.argv[1], target="tests.cameras.scripted:ScriptedSource")
source.read()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("hang_after", [1, 10**9], ids=["hanging", "live"])
def test_a_worker_does_not_outlive_a_killed_parent(hang_after: int) -> None:
    command = [sys.executable, "-c", PARENT, str(hang_after)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        (worker,) = children(parent.pid)
        parent.kill()
    wait_until(lambda: not is_running(worker), "the end of the worker", 5.0)


def test_five_lines_in_any_folder_need_no_main_guard(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the worker imported a file of the app')")
    app = tmp_path / "app.py"
    app.write_text(
        f"import sys; sys.path.remove({str(tmp_path)!r}); sys.path.insert(0, {str(CHECKOUT)!r})\n"
        "from edgecv.pipelines.sources.supervised.source import SupervisedSource\n"
        f"source = SupervisedSource('scripted://?frames=5', target={TARGET!r})\n"
        "print(source.read().image.shape)\n"
        "source.close()\n"
    )
    done = subprocess.run(
        [sys.executable, str(app)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path if sys.version_info >= (3, 11) else CHECKOUT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "(48, 64, 3)\n", "")


def test_what_a_worker_prints_stays_out_of_sight_but_in_the_error(
    camera: Open, capfd: pytest.CaptureFixture[str]
) -> None:
    source, diary = camera("words=libfoo:%20rtsp://me:hunter2@cam/1%20is%20odd")
    next_frame(source)
    os.kill(workers()[0], signal.SIGKILL)
    wait_until(lambda: diary.has("reconnecting"), "noticing the loss")
    told = next(health.error for _, health in diary.entries if health.state == "reconnecting")
    assert "libfoo: rtsp://cam/1 is odd" in told
    assert capfd.readouterr().err == ""


def test_credentials_are_in_no_argument_and_no_environment(camera: Open) -> None:
    source = SupervisedSource("scripted://me:hunter2@?rate=100", target=TARGET)
    try:
        wait_until(lambda: bool(workers()), "a worker")
        (worker,) = workers()
        assert b"hunter2" not in Path(f"/proc/{worker}/cmdline").read_bytes()
        assert b"hunter2" not in Path(f"/proc/{worker}/environ").read_bytes()
        wait_until(lambda: bool(source.health().error), "an error")
        assert "hunter2" not in f"{source.health()} {source.source_id}"
    finally:
        source.close()


def test_a_rate_is_kept_and_is_no_staleness(camera: Open) -> None:
    source, diary = camera("fps=1&deadline_s=0.8")
    frames = [next_frame(source) for _ in range(3)]
    assert 1.4 <= (frames[-1].monotonic_ns - frames[0].monotonic_ns) / 1e9 < 4.0
    assert source.fps == 1.0
    assert diary.states == ["live"]


def test_a_listener_that_raises_does_no_harm(camera: Open, caplog: pytest.LogCaptureFixture) -> None:
    def complain(_: object) -> None:
        raise ValueError("from the app")

    source, _ = camera("frames=2")
    source.on_change = complain
    while source.read() is not None:
        pass
    wait_until(lambda: source.health().state == "ended", "the end")
    assert "from the app" in caplog.text


def test_wrong_options_are_refused_at_once(camera: Open) -> None:
    with pytest.raises(ConfigError, match="deadline"):
        camera("deadline=3")
    with pytest.raises(ConfigError, match="deadline_s"):
        camera("deadline_s=0")


def test_a_pipeline_takes_the_newest_frame_without_a_thread_before_the_source(camera: Open) -> None:
    source, _ = camera("rate=200&frames=300")
    with Pipeline(SourceConfig(source, "door", "every_nth", 2), BlobModel(busy_s=0.02), max_frames=12) as pipeline:
        numbers = []
        for result in pipeline:
            numbers.append(result.frame.index)
            assert not [name for name in pipeline_threads() if "capture" in name]
    assert numbers == sorted(set(numbers))
    dropped = pipeline.summary.dropped
    assert dropped["every_nth"] > 10
    assert dropped["latest"] > 5
    assert pipeline.summary.frames == 12


def test_a_dropped_frame_is_never_copied(camera: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = []
    copy = RingReader.copy
    monkeypatch.setattr(RingReader, "copy", lambda ring, image: copies.append(image) or copy(ring, image))
    source, _ = camera("rate=200&frames=200")
    pipeline = Pipeline(source, BlobModel(busy_s=0.03))
    pipeline.run()
    assert len(copies) == pipeline.summary.frames
    assert pipeline.summary.dropped["latest"] > 50


def test_the_error_of_a_camera_that_is_given_up_ends_the_pipeline(camera: Open) -> None:
    source, _ = camera("fail=auth")
    with pytest.raises(SourceError) as caught:
        Pipeline(source, BlobModel()).run()
    assert caught.value.code == "auth"
