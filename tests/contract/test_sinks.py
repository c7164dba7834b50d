"""What every sink promises."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv import registry
from edgecv.errors import ConfigError, SinkError
from edgecv.pipelines.recording.recording import Recording
from edgecv.pipelines.sinks import open_sink
from edgecv.results import Detections, Frame, Result

DEADLINE_S = 60
SINKS = {"jsonl": "out.jsonl", "video": "out.mp4", "record": "out.rec"}
every_sink = pytest.mark.parametrize(("scheme", "file"), SINKS.items(), ids=SINKS)


def make_result(index: int, size_wh: tuple[int, int] = (64, 48)) -> Result:
    image = np.full((size_wh[1], size_wh[0], 3), index * 20, np.uint8)
    found = Detections(
        xyxy=np.array([[1, 2, 30, 40]], np.float32),
        confidence=np.array([0.75], np.float32),
        class_id=np.array([0]),
    )
    at_ns = 1_000_000_000 + index * 200_000_000
    frame = Frame(image=image, index=index, source_id="test", captured_ns=at_ns, monotonic_ns=at_ns)
    return Result(frame=frame, labels=("person",), detections=found if index else Detections.empty(), age_ms=1.5)


def count_lines(path: Path) -> int:
    return len([json.loads(line) for line in path.read_text().splitlines()])


def count_frames(path: Path) -> int:
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count


def count_records(path: Path) -> int:
    return Recording.open(path).extent.records


COUNT: dict[str, Callable[[Path], int]] = {"jsonl": count_lines, "video": count_frames, "record": count_records}


def test_every_registered_sink_stands_here() -> None:
    assert set(registry.names("sinks")) <= set(SINKS)


@every_sink
def test_every_result_is_written(tmp_path: Path, scheme: str, file: str) -> None:
    sink = open_sink(f"{scheme}:{tmp_path / file}", fps=10)
    for index in range(5):
        sink.emit(make_result(index))
    sink.close()
    assert COUNT[scheme](tmp_path / file) == 5


@every_sink
def test_closing_twice_is_closing_once_and_then_it_takes_nothing(tmp_path: Path, scheme: str, file: str) -> None:
    sink = open_sink(f"{scheme}:{tmp_path / file}", fps=10)
    sink.emit(make_result(0))
    sink.close()
    sink.close()
    with pytest.raises(SinkError, match="closed"):
        sink.emit(make_result(1))


@every_sink
def test_an_existing_file_is_kept_unless_it_shall_go(tmp_path: Path, scheme: str, file: str) -> None:
    (tmp_path / file).write_bytes(b"precious")
    with pytest.raises(ConfigError) as caught:
        open_sink(f"{scheme}:{tmp_path / file}", fps=10)
    assert "overwrite=1" in caught.value.hint
    assert (tmp_path / file).read_bytes() == b"precious"
    for uri, overwrite in [(f"{scheme}:{tmp_path / file}?overwrite=1", False), (f"{scheme}:{tmp_path / file}", True)]:
        sink = open_sink(uri, fps=10, overwrite=overwrite)
        sink.emit(make_result(0))
        sink.close()
        assert COUNT[scheme](tmp_path / file) == 1


@every_sink
def test_an_unwritable_target_is_refused_at_once(tmp_path: Path, scheme: str, file: str) -> None:
    with pytest.raises(SinkError) as caught:
        open_sink(f"{scheme}:{tmp_path / 'missing' / file}", fps=10)
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


@every_sink
def test_an_unknown_option_is_refused(tmp_path: Path, scheme: str, file: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_sink(f"{scheme}:{tmp_path / file}?overwite=1", fps=10)
    assert "overwrite" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_line_is_the_document_of_the_design(tmp_path: Path) -> None:
    sink = open_sink(f"jsonl:{tmp_path / 'out.jsonl'}")
    sink.emit(make_result(0))
    sink.emit(make_result(1))
    empty, one = (
        json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()
    )  # before close: flushed
    sink.close()
    assert empty["detections"] == []
    assert one["index"] == 1
    assert one["detections"] == [
        {"xyxy": [1.0, 2.0, 30.0, 40.0], "confidence": 0.75, "class_id": 0, "label": "person", "tracker_id": None}
    ]


def test_a_full_disk_is_an_error_and_nothing_follows_half_a_line() -> None:
    sink = open_sink("jsonl:/dev/full", overwrite=True)
    with pytest.raises(SinkError, match="No space left"):
        sink.emit(make_result(0))
    with pytest.raises(SinkError, match="broken"):
        sink.emit(make_result(1))
    sink.close()


_TO_STDOUT = """
from tests.contract.test_sinks import make_result
from edgecv.pipelines.sinks import open_sink
print("before")
sink = open_sink("jsonl:-")
sink.emit(make_result(1))
sink.close()
print("after")
"""


def test_a_dash_is_standard_output_and_leaves_it_open() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _TO_STDOUT], capture_output=True, text=True, timeout=DEADLINE_S, check=True
    )
    before, line, after = done.stdout.splitlines()
    assert (before, after) == ("before", "after")
    assert json.loads(line)["index"] == 1


@pytest.mark.parametrize(
    ("fps", "times_ms"), [(10.0, [0, 100, 300]), (0.0, [0, 200, 600])], ids=["rate-of-the-source", "capture-clock"]
)
def test_dropped_frames_leave_their_time_in_the_video(tmp_path: Path, fps: float, times_ms: list[int]) -> None:
    sink = open_sink(f"video:{tmp_path / 'out.mp4'}", fps=fps)
    for index in (0, 1, 3):
        sink.emit(make_result(index))
    sink.close()
    capture = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    seen = []
    while capture.read()[0]:
        seen.append(capture.get(cv2.CAP_PROP_POS_MSEC))
    assert np.allclose(seen, times_ms, atol=2)


def test_the_video_shows_what_was_found(tmp_path: Path) -> None:
    sink = open_sink(f"video:{tmp_path / 'out.mp4'}", fps=10)
    result = make_result(3, size_wh=(320, 240))
    sink.emit(result)
    sink.close()
    shown = cv2.VideoCapture(str(tmp_path / "out.mp4")).read()[1]
    assert np.abs(shown.astype(int) - result.frame.image).max() > 60
    assert result.frame.image.max() == 60, "the frame itself is untouched"
