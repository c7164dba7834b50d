"""What every sink promises."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv import registry
from edgecv.errors import ConfigError, SinkError
from edgecv.events import Event
from edgecv.overlays import Overlay
from edgecv.pipelines.recording.recording import Recording
from edgecv.pipelines.sinks import open_sink
from edgecv.protocols import Sink, TakesEvents, WatchesStatus
from edgecv.results import Detections, Frame, Result
from edgecv.status import PipelineStatus
from tests.unit.pipelines.receiver import Receiver

DEADLINE_S = 60


def make_result(index: int, size_wh: tuple[int, int] = (64, 48), source_id: str = "test") -> Result:
    image = np.full((size_wh[1], size_wh[0], 3), index * 20, np.uint8)
    found = Detections(
        xyxy=np.array([[1, 2, 30, 40]], np.float32),
        confidence=np.array([0.75], np.float32),
        class_id=np.array([0]),
    )
    at_ns = 1_000_000_000 + index * 200_000_000
    frame = Frame(image=image, index=index, source_id=source_id, captured_ns=at_ns, monotonic_ns=at_ns)
    door = Overlay(name="door", shape="line", points=((0, 0), (9, 9)), counts={"in": 0})
    found = found if index else Detections.empty()
    return Result(frame=frame, labels=("person",), detections=found, age_ms=1.5, overlays=(door,))


def make_event(kind: str = "source.stale") -> Event:
    return Event(kind=kind, time_ns=7, source_id="test", data={"waited_s": 2.5})


def count_lines(path: Path) -> int:
    return len([json.loads(line) for line in path.read_text().splitlines()])


def count_rows(path: Path) -> int:
    with path.open(newline="") as file:
        return len({row["index"] for row in csv.DictReader(file)}) + 1  # the first frame has no detection


def count_counted(path: Path) -> int:
    with path.open(newline="") as file:
        return sum(int(row["frames"]) for row in csv.DictReader(file))


def count_frames(path: Path) -> int:
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count


def count_segment_frames(folder: Path) -> int:
    return sum(count_frames(path) for path in folder.glob("*.mp4"))


def count_images(folder: Path) -> int:
    return len([path for path in folder.glob("*.jpg") if json.loads(path.with_suffix(".json").read_text())])


def count_records(path: Path) -> int:
    return Recording.open(path).extent.records


COUNT: dict[str, Callable[[Path], int]] = {
    "counts": count_counted,
    "csv": count_rows,
    "jsonl": count_lines,
    "record": count_records,
    "segments": count_segment_frames,
    "snapshots": count_images,
    "video": count_frames,
}
FILES = {"counts": "counts.csv", "csv": "out.csv", "jsonl": "out.jsonl", "record": "out.rec", "video": "out.mp4"}
FOLDERS = {"segments": "segments", "snapshots": "shots"}
OPTIONS = {"snapshots": "?on=all&every_s=0", "webhook": "?events=all&linger_s=0.01"}
DATABASE = {"events": "events.db"}  # which goes on with what is there: tests/unit/pipelines/test_events_store.py
OF_EVENTS = {"clips": "clips"}  # which writes nothing without an event: tests/unit/pipelines/test_sink_clips.py
SINKS = (*FILES, *FOLDERS, *DATABASE, *OF_EVENTS, "metrics", "preview", "webhook")
TAKE_EVENTS = {"clips", "counts", "events", "jsonl", "preview", "webhook"}
WATCH = {"counts", "metrics", "preview"}

every_sink = pytest.mark.parametrize("scheme", SINKS)
every_file_sink = pytest.mark.parametrize(("scheme", "file"), FILES.items(), ids=FILES)
every_path_sink = pytest.mark.parametrize(("scheme", "file"), {**FILES, **FOLDERS}.items(), ids=[*FILES, *FOLDERS])
PLACES = {**FILES, **FOLDERS, **DATABASE, **OF_EVENTS}
every_place = pytest.mark.parametrize(("scheme", "file"), PLACES.items(), ids=PLACES)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def make_uri(scheme: str, folder: Path, receiver: Receiver) -> str:
    targets = {"metrics": "0", "preview": "0", "webhook": receiver.url}
    target = targets.get(scheme) or folder / PLACES[scheme]
    return f"{scheme}:{target}{OPTIONS.get(scheme, '')}"


def test_every_registered_sink_stands_here() -> None:
    assert set(registry.names("sinks")) <= set(SINKS)


@every_path_sink
def test_every_result_is_written(tmp_path: Path, scheme: str, file: str) -> None:
    sink = open_sink(f"{scheme}:{tmp_path / file}{OPTIONS.get(scheme, '')}", fps=10)
    for index in range(5):
        sink.emit(make_result(index))
    sink.close()
    assert COUNT[scheme](tmp_path / file) == 5


def test_every_result_is_sent(receiver: Receiver) -> None:
    sink = open_sink(f"webhook:{receiver.url}?events=all")
    for index in range(5):
        sink.emit(make_result(index))
    sink.close()
    assert [document["index"] for document in receiver.documents] == list(range(5))


@every_sink
def test_closing_twice_is_closing_once_and_then_it_takes_nothing(
    tmp_path: Path, scheme: str, receiver: Receiver
) -> None:
    sink = open_sink(make_uri(scheme, tmp_path, receiver), fps=10)
    sink.emit(make_result(0))
    sink.close()
    sink.close()
    with pytest.raises(SinkError, match="closed"):
        sink.emit(make_result(1))


@every_sink
def test_one_that_was_opened_in_vain_closes(tmp_path: Path, scheme: str, receiver: Receiver) -> None:
    before = set(threading.enumerate())
    open_sink(make_uri(scheme, tmp_path, receiver), fps=10).close()
    assert set(threading.enumerate()) <= before
    assert not receiver.documents


@every_sink
def test_it_takes_events_and_watches_the_status_as_it_says(tmp_path: Path, scheme: str, receiver: Receiver) -> None:
    sink: Sink = open_sink(make_uri(scheme, tmp_path, receiver), fps=10)
    assert isinstance(sink, TakesEvents) == (scheme in TAKE_EVENTS)
    assert isinstance(sink, WatchesStatus) == (scheme in WATCH)
    if isinstance(sink, WatchesStatus):
        sink.attach(_never_asked)
    if isinstance(sink, TakesEvents):
        sink.emit_event(make_event())
    sink.close()
    if isinstance(sink, TakesEvents):
        with pytest.raises(SinkError, match="closed"):
            sink.emit_event(make_event())


def _never_asked() -> PipelineStatus:
    raise AssertionError("nobody scraped")


@every_file_sink
def test_an_existing_file_is_kept_unless_it_shall_go(tmp_path: Path, scheme: str, file: str) -> None:
    (tmp_path / file).write_bytes(b"precious")
    with pytest.raises(ConfigError) as caught:
        open_sink(f"{scheme}:{tmp_path / file}", fps=10)
    assert "overwrite=1" in caught.value.hint
    uris = [(f"{scheme}:{tmp_path / file}?overwrite=1", False), (f"{scheme}:{tmp_path / file}", True)]
    for uri, overwrite in uris:
        with pytest.raises(ConfigError, match="not replaced"):
            open_sink(uri, fps=10, overwrite=overwrite)
    assert (tmp_path / file).read_bytes() == b"precious", "it is no file of this kind"
    (tmp_path / file).write_bytes(b"")
    for uri, overwrite in uris:
        sink = open_sink(uri, fps=10, overwrite=overwrite)
        sink.emit(make_result(0))
        sink.close()
        assert COUNT[scheme](tmp_path / file) == 1


@pytest.mark.parametrize(("scheme", "folder"), FOLDERS.items(), ids=FOLDERS)
def test_a_folder_keeps_what_else_lies_in_it(tmp_path: Path, scheme: str, folder: str) -> None:
    place = tmp_path / folder
    place.mkdir()
    (place / "notes.txt").write_text("precious")
    (place / "20200101T000000.mp4").write_text("of somebody else")
    sink = open_sink(f"{scheme}:{place}{OPTIONS.get(scheme, '')}")
    sink.emit(make_result(0))
    sink.close()
    assert {"notes.txt", "20200101T000000.mp4"} < {path.name for path in place.iterdir()}


@pytest.mark.parametrize(("scheme", "folder"), FOLDERS.items(), ids=FOLDERS)
def test_two_sinks_do_not_share_a_folder(tmp_path: Path, scheme: str, folder: str) -> None:
    first = open_sink(f"{scheme}:{tmp_path / folder}")
    with pytest.raises(ConfigError, match="Another sink"):
        open_sink(f"{scheme}:{tmp_path / folder}")
    first.close()
    open_sink(f"{scheme}:{tmp_path / folder}").close()


@pytest.mark.parametrize(("scheme", "folder"), FOLDERS.items(), ids=FOLDERS)
def test_a_file_is_no_folder(tmp_path: Path, scheme: str, folder: str) -> None:
    (tmp_path / folder).write_text("a file")
    with pytest.raises(ConfigError, match="not a folder"):
        open_sink(f"{scheme}:{tmp_path / folder}")


@every_place
def test_an_unwritable_target_is_refused_at_once(tmp_path: Path, scheme: str, file: str) -> None:
    with pytest.raises(SinkError) as caught:
        open_sink(f"{scheme}:{tmp_path / 'missing' / file}", fps=10)
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


@every_sink
def test_an_unknown_option_is_refused(tmp_path: Path, scheme: str, receiver: Receiver) -> None:
    uri = make_uri(scheme, tmp_path, receiver)
    servers = {"metrics": "host", "preview": "host"}
    names = {
        **servers,
        "clips": "keep_gb",
        "events": "keep",
        "segments": "seconds",
        "snapshots": "every_s",
        "webhook": "events",
    }
    known = names.get(scheme, "overwrite")
    misspelt = known[:-2] + known[-1]
    with pytest.raises(ConfigError) as caught:
        open_sink(f"{uri}{'&' if '?' in uri else '?'}{misspelt}=1", fps=10)
    assert f"'{known}'" in caught.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "uri",
    [
        "segments:DIR?seconds=0",
        "segments:DIR?format=avi",
        "segments:DIR?keep_gb=0",
        "snapshots:DIR?on=sometimes",
        "snapshots:DIR?max_per_minute=0",
        "events:DIR?keep=0",
        "events:DIR?keep_days=-1",
        "metrics:http",
        "metrics:70000",
        "webhook:https://h/?events=some",
        "webhook:https://h/?batch=0",
    ],
)
def test_a_value_that_does_not_fit_is_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(ConfigError):
        open_sink(uri.replace("DIR", str(tmp_path / "dir")))
    assert not list(tmp_path.iterdir())


def test_events_stand_with_their_frame_or_on_a_line_of_their_own(tmp_path: Path) -> None:
    sink = open_sink(f"jsonl:{tmp_path / 'out.jsonl'}")
    plain = make_result(1)
    crossed = Result(frame=plain.frame, detections=plain.detections, events=(make_event("line.crossed"),))
    sink.emit(plain)
    sink.emit(crossed)
    assert isinstance(sink, TakesEvents)
    sink.emit_event(make_event())
    sink.close()
    without, with_event, alone = (json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines())
    assert "events" not in without
    assert "event" not in without
    assert [event["kind"] for event in with_event["events"]] == ["line.crossed"]
    assert alone == {
        "event": {
            "kind": "source.stale",
            "time_ns": 7,
            "source_id": "test",
            "data": {"waited_s": 2.5},
            "priority": "event",
        }
    }


def test_an_event_that_is_no_json_is_refused_and_the_next_line_is_whole(tmp_path: Path) -> None:
    sink = open_sink(f"jsonl:{tmp_path / 'out.jsonl'}")
    result = make_result(1)
    strange = Event(kind="odd", time_ns=1, data={"what": object()})
    with pytest.raises(SinkError, match="no JSON"):
        sink.emit(Result(frame=result.frame, detections=result.detections, events=(strange,)))
    sink.emit(result)
    sink.close()
    assert count_lines(tmp_path / "out.jsonl") == 1


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


def test_a_video_of_two_sources_is_refused_and_says_what_to_take(tmp_path: Path) -> None:
    sink = open_sink(f"video:{tmp_path / 'out.mp4'}", fps=10)
    sink.emit(make_result(0))
    with pytest.raises(SinkError, match="one source") as caught:
        sink.emit(make_result(0, source_id="other"))
    assert "segments:" in caught.value.hint
    sink.emit(make_result(1))
    sink.close()
    assert count_frames(tmp_path / "out.mp4") == 2
