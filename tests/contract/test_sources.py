"""What every source promises, and what live sources promise besides."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv import registry
from edgecv.errors import ConfigError, SourceError
from edgecv.pipelines.recording.sink import RecordSink
from edgecv.pipelines.sources import open_source
from edgecv.pipelines.sources.supervised.source import SupervisedSource
from edgecv.protocols import Source, Supervised
from edgecv.results import Detections, Frame, Result
from tests.cameras.mjpeg_server import mjpeg_server
from tests.cameras.rpicam import put_rpicam
from tests.cameras.world import Diary, need_gstreamer, next_frame, rtsp_server, wait_until, workers
from tests.conftest import SHARED

FRAMES = 6


def _video(folder: Path) -> str:
    path = folder / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for index in range(FRAMES):
        writer.write(np.full((48, 64, 3), index * 20, np.uint8))
    writer.release()
    return str(path)


def _images(folder: Path) -> str:
    for index in range(FRAMES):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((48, 64, 3), index * 20, np.uint8))
    return f"{folder}/"


def _pattern(folder: Path) -> str:
    _images(folder)
    return f"{folder}/?.png"


def _synthetic(_: Path) -> str:
    return f"synthetic://?frames={FRAMES}&width=64&height=48"


def _live(_: Path) -> str:
    return f"synthetic://?frames={FRAMES}&width=64&height=48&fps=100&live=1"


def _recording(folder: Path) -> str:
    source = open_source(_synthetic(folder))
    sink = RecordSink(folder / "a.rec", fps=source.fps)
    while (frame := source.read()) is not None:
        sink.emit(Result(frame=frame, detections=Detections.empty()))
    sink.close()
    return f"recording://{folder / 'a.rec'}"


SOURCES = {
    "file": _video,
    "images": _images,
    "pattern": _pattern,
    "recording": _recording,
    "synthetic": _synthetic,
    "live": _live,
}
every_source = pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)


def _read_all(source: Source) -> list[Frame]:
    frames = []
    while (frame := source.read()) is not None:
        frames.append(frame)
    return frames


# The live sources; usb:// needs a device, and rtsps:// and https:// are the same class as their plain sisters.
LIVE = ("gst", "csi", "rtsp", "http")


@pytest.fixture(params=LIVE)
def live_uri(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A camera of every kind, 64 x 48 pixels, for the time of a test."""
    with contextlib.ExitStack() as stack:
        if request.param == "gst":
            need_gstreamer()
            yield "gst:videotestsrc is-live=true pattern=snow ! video/x-raw,width=64,height=48"
        elif request.param == "csi":
            put_rpicam(tmp_path, monkeypatch)
            yield "csi://0?width=64&height=48"
        elif request.param == "rtsp":
            need_gstreamer(rtsp=True)
            yield stack.enter_context(rtsp_server("--size", "64x48")).url
        else:
            yield f"http://{stack.enter_context(mjpeg_server()).host}/video"


def test_every_registered_source_stands_here_or_needs_a_device() -> None:
    assert set(registry.names("sources")) <= {*SOURCES, *LIVE, "usb", "rtsps", "https"}
    assert registry.resolve("sources", "rtsps") is registry.resolve("sources", "rtsp")
    assert registry.resolve("sources", "https") is registry.resolve("sources", "http")


def test_a_live_source_keeps_every_promise(live_uri: str) -> None:
    """One test, because each camera takes a second to start."""
    before_utc, before = time.time_ns(), time.monotonic_ns()
    source = open_source(live_uri)
    assert isinstance(source, SupervisedSource)
    assert isinstance(source, Supervised)
    assert source.live
    source.on_change = diary = Diary()
    frames = [next_frame(source) for _ in range(6)]
    kept = frames[0].image.copy()
    last = next_frame(source)

    indices = [frame.index for frame in frames]
    assert indices == sorted(set(indices))
    assert indices[0] >= 0
    for frame in frames:
        assert frame.image.shape == (48, 64, 3)
        assert frame.image.dtype == np.uint8
        assert frame.image.flags.c_contiguous
        assert frame.source_id == source.source_id
        assert before_utc <= frame.captured_ns <= time.time_ns()
        assert before <= frame.monotonic_ns <= time.monotonic_ns()
    assert sorted(frame.monotonic_ns for frame in frames) == [frame.monotonic_ns for frame in frames]
    assert (frames[0].image == kept).all(), "frames do not share their pixels"
    assert not (last.image == kept).all(), "and show something new"

    assert (source.health().state, source.health().code) == ("live", "")
    source.close()
    source.close()
    assert source.read() is None
    assert source.health().state == "ended"
    assert diary.states == ["live", "ended"]
    assert not workers()


@pytest.mark.parametrize(
    "uri", ["gst:videotestsrc ?wdith=3", "gst:videotestsrc?wdith=3", "csi://0?wdith=3", "usb://0?wdith=3"]
)
def test_an_unknown_option_of_a_live_source_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="no option 'wdith'") as caught:
        open_source(uri)
    assert "'width'" in caught.value.hint


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps", "http", "https"])
def test_wrong_values_of_network_options_are_refused(scheme: str) -> None:
    with pytest.raises(ConfigError, match="width"):
        open_source(f"{scheme}://me:hunter2@127.0.0.1:9/1?width=wide")
    with pytest.raises(ConfigError, match="deadline_s"):
        open_source(f"{scheme}://me:hunter2@127.0.0.1:9/1?deadline_s=-1")


@pytest.mark.parametrize("uri", ["usb://93", "93", "usb:///dev/video93"])
def test_an_absent_camera_is_waited_for(uri: str, capfd: pytest.CaptureFixture[str]) -> None:
    source = open_source(uri)
    assert isinstance(source, SupervisedSource)
    wait_until(lambda: source.health().code == "missing", "the camera being missed")
    health = source.health()
    source.close()
    assert health.state == "connecting"
    assert "plugged in" in health.hint
    assert capfd.readouterr().err == "", "OpenCV has nothing to add"


def test_a_truncated_video_gives_what_it_has_and_then_says_so(tmp_path: Path) -> None:
    cut = tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(cut), cv2.VideoWriter_fourcc(*"MJPG"), 10, (320, 240))
    noise = np.random.default_rng(0)
    for _ in range(20):
        writer.write(noise.integers(0, 255, (240, 320, 3), np.uint8))
    writer.release()
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    source = open_source(cut)
    frames = []
    with pytest.raises(SourceError) as caught:
        while (frame := source.read()) is not None:
            frames.append(frame)
    source.close()
    assert caught.value.code == "eof"
    assert caught.value.hint
    assert 5 <= len(frames) <= 12


@every_source
def test_frames_are_whole_numbered_and_stamped(make: Callable[[Path], str], tmp_path: Path) -> None:
    before_utc, before = time.time_ns(), time.monotonic_ns()
    source = open_source(make(tmp_path))
    frames = _read_all(source)
    source.close()
    assert [frame.index for frame in frames] == list(range(FRAMES))
    for frame in frames:
        assert frame.image.shape == (48, 64, 3)
        assert frame.image.dtype == np.uint8
        assert frame.source_id == source.source_id
        assert before_utc <= frame.captured_ns <= time.time_ns()
        assert before <= frame.monotonic_ns <= time.monotonic_ns()
    assert len({frame.image.tobytes() for frame in frames}) == FRAMES
    assert sorted(frame.monotonic_ns for frame in frames) == [frame.monotonic_ns for frame in frames]


@every_source
def test_after_the_end_comes_nothing_more(make: Callable[[Path], str], tmp_path: Path) -> None:
    source = open_source(make(tmp_path))
    _read_all(source)
    assert source.read() is None
    source.close()


@every_source
def test_closing_twice_is_closing_once(make: Callable[[Path], str], tmp_path: Path) -> None:
    source = open_source(make(tmp_path))
    assert source.read() is not None
    source.close()
    source.close()
    assert source.read() is None


@every_source
def test_frames_do_not_share_their_pixels(make: Callable[[Path], str], tmp_path: Path) -> None:
    source = open_source(make(tmp_path))
    first = source.read()
    assert first is not None
    kept = first.image.copy()
    _read_all(source)
    source.close()
    assert (first.image == kept).all()


@every_source
def test_rate_and_kind_are_announced(make: Callable[[Path], str], tmp_path: Path) -> None:
    source = open_source(make(tmp_path))
    assert source.fps > 0
    assert source.live is (make is _live)
    source.close()


@every_source
def test_an_unknown_option_is_refused(make: Callable[[Path], str], tmp_path: Path) -> None:
    uri = make(tmp_path)
    with pytest.raises(ConfigError, match="no option 'wdith'"):
        open_source(uri + ("&" if "://?" in uri else "?") + "wdith=3")


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("missing.mp4", "missing"),
        ("missing/", "missing"),
        ("missing/*.png", "missing"),
        ("missing.png", "missing"),
        ("empty.mp4", "eof"),
    ],
)
def test_what_is_not_there_is_a_quick_error_with_a_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], uri: str, code: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.mp4").touch()
    start = time.monotonic()
    with pytest.raises(SourceError) as caught:
        open_source(uri)
    assert caught.value.code == code
    assert caught.value.hint
    assert time.monotonic() - start < 3.0
    assert capfd.readouterr().err == "", "OpenCV has nothing to add"


@pytest.mark.parametrize(
    "uri",
    [
        "usb://front",
        "csi://front",
        "gst:",
        "rtsp:///1",
        "http://",
        "synthetic://here",
        "synthetic://?width=0",
        "synthetic://?fps=0",
        "usb://0?fps=-1",
        "a.mp4?fps=3",
    ],
)
def test_what_makes_no_sense_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError):
        open_source(uri)


def test_unreadable_images_are_passed_and_all_named_at_the_end(tmp_path: Path) -> None:
    _images(tmp_path)
    count = len(list(tmp_path.iterdir()))
    for name in ("00.png", "2.png", "2a.jpg"):
        (tmp_path / name).write_bytes(b"no image")
    source = open_source(tmp_path)
    frames = []
    with pytest.raises(SourceError, match=rf"3 of {count + 2} images") as caught:
        while (frame := source.read()) is not None:
            frames.append(frame)
    assert len(frames) == count - 1
    assert all(name in caught.value.message for name in ("00.png", "2.png", "2a.jpg"))
    assert source.read() is None
    source.close()


def test_a_folder_is_read_as_a_person_counts_and_each_row_says_its_file(tmp_path: Path) -> None:
    case = SHARED / "cases/run/unpadded"
    if not case.exists():
        pytest.skip("../shared/cases is not on this machine")
    for uri in (str(case), f"{case}/*.jpg"):
        paths = [frame.path for frame in _read_all(open_source(uri))]
        assert [Path(path).name for path in paths] == ["frame1.jpg", "frame2.jpg", "frame10.jpg"]
        assert Path(paths[0]).is_file()


def test_what_macos_leaves_beside_an_image_is_no_image() -> None:
    case = SHARED / "cases/run/mac"
    if not case.exists():
        pytest.skip("../shared/cases is not on this machine")
    assert [Path(frame.path).name for frame in _read_all(open_source(case))] == ["0.jpg"]


def test_synthetic_frames_are_the_same_in_every_run() -> None:
    runs = [_read_all(open_source("synthetic://?frames=40&width=80&height=60")) for _ in range(2)]
    assert [f.image.tobytes() for f in runs[0]] == [f.image.tobytes() for f in runs[1]]


def test_a_live_source_keeps_its_rate() -> None:
    source = open_source("synthetic://?frames=11&fps=50&live=1")
    start = time.monotonic()
    assert len(_read_all(source)) == 11
    assert 0.19 <= time.monotonic() - start < 2.0


@pytest.mark.parametrize(
    ("make", "positions_ms"),
    [(_video, [0, 100, 200]), (_images, [0, 1000, 2000]), (_synthetic, [0, 40, 80])],
    ids=["video", "images", "synthetic"],
)
def test_a_second_in_a_file_is_a_second_however_fast_it_is_read(
    make: Callable[[Path], str], positions_ms: list[int], tmp_path: Path
) -> None:
    source = open_source(make(tmp_path))
    frames = [source.read() for _ in range(3)]
    source.close()
    assert [round(frame.scene_ns / 1e6) for frame in frames if frame is not None] == positions_ms


def test_a_camera_has_the_clock_of_the_machine(tmp_path: Path) -> None:
    source = open_source(_live(tmp_path))
    frame = source.read()
    source.close()
    assert frame is not None
    assert frame.position_ns is None
    assert frame.scene_ns == frame.monotonic_ns
