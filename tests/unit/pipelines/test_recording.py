"""Recordings: what goes in comes out bit for bit, whatever ended the recording; a damaged or foreign one says so."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.errors import ConfigError, EdgeCVError, SinkError, SourceError
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.recording.layout import HEADER, RESULTS, Header, RecordedFrom, image_path
from edgecv.pipelines.recording.recording import RecordedFrame, RecordedModel, Recording
from edgecv.pipelines.recording.records import Record, StoredArray, StoredMasks, encode_record
from edgecv.pipelines.recording.replay import open_replay
from edgecv.pipelines.recording.sink import RecordSink
from edgecv.pipelines.recording.source import RecordedSource
from edgecv.pipelines.sources import open_source
from edgecv.pipelines.sources.synthetic import SyntheticSource
from edgecv.pipelines.steps.per_source import PerSource
from edgecv.results import Classification, Detections, Frame, Result
from tests.conftest import names_in
from tests.unit.pipelines.blob import DEADLINE_S, BlobModel, assert_no_threads

S_NS = 1_000_000_000


def clip(frames: int = 60, width: int = 64, height: int = 48, extra: str = "") -> SyntheticSource:
    return SyntheticSource(f"synthetic://?frames={frames}&width={width}&height={height}&fps=10{extra}")


def image(number: int = 0, size_wh: tuple[int, int] = (32, 24)) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (size_wh[1], size_wh[0], 3), np.uint8)


def result_of(index: int, found: Detections | Classification | None = None, source: str = "door") -> Result:
    if found is None:
        box = np.array([[index, 2, 30, 20.1]], np.float32)
        found = Detections(xyxy=box, confidence=np.array([0.7], np.float32), class_id=np.array([1]))
    return Result(
        frame=Frame(
            image=image(index),
            index=index,
            source_id=source,
            captured_ns=1_700_000_000 * S_NS + index,
            monotonic_ns=5 * S_NS + index * S_NS,
        ),
        labels=("person", "car"),
        detections=found if isinstance(found, Detections) else None,
        classification=found if isinstance(found, Classification) else None,
        model="tiny/onnx-int8",
    )


def recorded(path: Path, results: Sequence[Result], *, close: bool = True, **options: Any) -> Path:
    sink = RecordSink(path, **options)
    for result in results:
        sink.emit(result)
    if close:
        sink.close()
    return path


def frames_of(path: Path, source: int = 0) -> list[RecordedFrame]:
    opened = RecordedSource(Recording.open(path), source)
    frames = []
    while (frame := opened.read()) is not None:
        assert isinstance(frame, RecordedFrame)
        frames.append(frame)
    opened.close()
    return frames


def bits(found: object) -> dict[str, tuple[Any, ...]]:
    """Every array of an answer, so that nothing less than the same bits is equal."""
    arrays = {name: getattr(found, name) for name in type(found).__slots__}  # type: ignore[attr-defined]
    return {n: (a.dtype, a.shape, a.tobytes()) for n, a in arrays.items() if isinstance(a, np.ndarray)}


class Crossings:
    """Counts how often the centre of the best box passes the middle of the image, and keeps the evidence."""

    def __init__(self) -> None:
        self.sides: dict[str, bool] = {}
        self.counted: dict[str, dict[str, int]] = {}
        self.evidence: dict[str, list[tuple[Any, ...]]] = {}

    def __call__(self, result: Result) -> Result:
        frame, found = result.frame, result.detections
        assert found is not None
        if len(found):
            self._see(frame, found)
        return result

    def _see(self, frame: Frame, found: Detections) -> None:
        name, box = frame.source_id, found.xyxy[0]
        is_right = bool((box[0] + box[2]) / 2 > frame.image.shape[1] / 2)
        if self.sides.get(name, is_right) is not is_right:
            counts = self.counted.setdefault(name, {"left": 0, "right": 0})
            counts["right" if is_right else "left"] += 1
            evidence = (frame.index, frame.captured_ns, frame.monotonic_ns, box.tobytes(), found.confidence.tobytes())
            self.evidence.setdefault(name, []).append(evidence)
        self.sides[name] = is_right


ODD = np.array([[-0.0, np.nan, np.inf, 1e-42], [1 / 3, 2**24 + 1, -1.5, np.nextafter(np.float32(1), 2)]], np.float32)
TWO: dict[str, Any] = {"xyxy": ODD, "confidence": np.float32([0.1, 1 / 3]), "class_id": np.array([2**62, -1])}
MASKS = np.random.default_rng(1).random((2, 24, 32)) > 0.5
ANSWERS: Mapping[str, Detections | Classification] = {
    "odd floats": Detections(**TWO),
    "nothing": Detections.empty(),
    "ids": Detections(**TWO, tracker_id=np.array([7, -(2**40)])),
    "noisy masks": Detections(**TWO, mask=MASKS),
    "empty and full masks": Detections(**TWO, mask=np.stack([np.zeros((24, 32), bool), np.ones((24, 32), bool)])),
    "keypoints": Detections(**TWO, keypoints=np.random.default_rng(2).random((2, 17, 3), np.float32)),
    "turned boxes": Detections(**TWO, obb=np.random.default_rng(3).random((2, 5), np.float32)),
    "no boxes but shapes": replace(
        Detections.empty(), keypoints=np.zeros((0, 17, 3), np.float32), mask=np.zeros((0, 24, 32), bool)
    ),
    "columns in another order": Detections(**{**TWO, "xyxy": np.asfortranarray(ODD)}),
    "classes": Classification(class_id=np.array([4, 1]), confidence=np.float32([0.9, 1e-42])),
}


@pytest.mark.parametrize("found", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_comes_back_bit_for_bit(tmp_path: Path, found: Detections | Classification) -> None:
    (frame,) = frames_of(recorded(tmp_path / "a.rec", [result_of(3, found)]))
    assert type(frame.found) is type(found)
    assert bits(frame.found) == bits(found)


def test_a_frame_keeps_its_index_and_times_and_with_png_its_pixels(tmp_path: Path) -> None:
    results = [result_of(index) for index in (0, 1, 5)]
    for result, frame in zip(results, frames_of(recorded(tmp_path / "a.rec", results, images="png")), strict=True):
        assert (frame.image == result.frame.image).all()
        fields = ("index", "source_id", "captured_ns", "monotonic_ns")
        assert [getattr(frame, name) for name in fields] == [getattr(result.frame, name) for name in fields]


def test_a_jpeg_recording_is_close_and_smaller(tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 320 * 240 * 3).reshape(240, 320, 3).astype(np.uint8)
    results = [replace(result_of(0), frame=replace(result_of(0).frame, image=smooth))]
    (frame,) = frames_of(recorded(tmp_path / "a.rec", results))
    assert np.abs(frame.image.astype(int) - smooth).mean() < 4
    assert Recording.open(tmp_path / "a.rec").header.images == "jpeg"


def test_the_same_counts_with_the_same_evidence(tmp_path: Path) -> None:
    """Two sources of different sizes; counted while they are recorded, then in two replays."""
    first, again = Crossings(), [Crossings(), Crossings()]
    sources = {"door": clip(200), "yard": clip(150, 96, 64)}
    Pipeline(sources, BlobModel(), steps=[first], sinks=[RecordSink(tmp_path / "two.rec")]).run()
    for crossings in again:
        assert open_replay(tmp_path / "two.rec", steps=[crossings]).run().frames == 350
        assert crossings.counted == first.counted
        assert crossings.evidence == first.evidence
    assert min(sum(counts.values()) for counts in first.counted.values()) > 5
    assert set(first.counted) == {"door", "yard"}


def test_counts_of_steps_per_source_stand_in_the_status_of_a_replay(tmp_path: Path) -> None:
    class Counted(Crossings):
        def counts(self) -> dict[str, int]:
            return next(iter(self.counted.values()))

    Pipeline({"door": clip(200)}, BlobModel(), sinks=[RecordSink(tmp_path / "one.rec")]).run()
    pipeline = open_replay(tmp_path / "one.rec", steps=[PerSource(lambda _: Counted())])
    pipeline.run()
    (status,) = pipeline.status().sources
    assert (status.source_id, status.frames, status.health.state) == ("door", 200, "ended")
    assert status.counts["left"] + status.counts["right"] > 5


def lines(path: Path) -> list[dict[str, Any]]:
    documents = [json.loads(line) for line in path.read_text().splitlines()]
    for document in documents:
        del document["age_ms"], document["timings_ms"]
    return documents


def test_a_replay_writes_the_lines_of_the_recorded_run_in_their_order(tmp_path: Path) -> None:
    sources = {"door": clip(40), "yard": clip(90, 96, 64), "gate": clip(20)}
    sinks = [RecordSink(tmp_path / "three.rec"), f"jsonl:{tmp_path / 'first.jsonl'}"]
    Pipeline(sources, BlobModel(), sinks=sinks).run()
    for name in ("second.jsonl", "third.jsonl"):
        open_replay(tmp_path / "three.rec", sinks=[f"jsonl:{tmp_path / name}"]).run()
        assert lines(tmp_path / name) == lines(tmp_path / "first.jsonl")


def test_an_uneven_order_is_kept_by_a_model_behind_gates_too(tmp_path: Path) -> None:
    order = [*"aaaaaaaaab", *"bca", *"cccccccc", *"ab", *"bbbbb"]
    path = recorded(tmp_path / "a.rec", [result_of(i, source=name) for i, name in enumerate(order)])
    seen: list[tuple[int, str]] = []
    pipeline = open_replay(
        path,
        model=BlobModel(),  # type: ignore[arg-type]  # the calls of one
        gates=[lambda frame: frame.source_id != "a" or frame.index % 4 == 0],
        on_result=lambda result: seen.append((result.frame.index, result.frame.source_id)),
    )
    pipeline.run()
    assert seen == [(i, name) for i, name in enumerate(order) if name != "a" or i % 4 == 0]
    assert pipeline.summary.dropped == {"still": len(order) - len(seen)}


def test_a_live_source_is_recorded_and_nothing_is_lost_in_silence(tmp_path: Path) -> None:
    sink, seen = RecordSink(tmp_path / "live.rec"), []
    pipeline = Pipeline(clip(0, extra="0&live=1"), BlobModel(), sinks=[sink], max_frames=60)
    for result in pipeline:
        seen.append(result)
    frames = frames_of(tmp_path / "live.rec")
    (count,) = pipeline.summary.sinks
    assert len(frames) == sink.frames == count.emitted == 60 - count.dropped
    by_index = {result.frame.index: result for result in seen}
    for frame in frames:
        assert frame.monotonic_ns == by_index[frame.index].frame.monotonic_ns
        assert bits(frame.found) == bits(by_index[frame.index].detections)


def test_the_model_again_finds_the_same_in_lossless_images(tmp_path: Path) -> None:
    Pipeline(clip(30), BlobModel(), sinks=[RecordSink(tmp_path / "a.rec", images="png")]).run()
    pipeline = open_replay(tmp_path / "a.rec", model=BlobModel())  # type: ignore[arg-type]  # the calls of one
    again = [bits(result.detections) for result in pipeline]
    assert again == [bits(frame.found) for frame in frames_of(tmp_path / "a.rec")]
    assert pipeline.summary.stage_p50_ms.keys() >= {"inference"}


def test_the_model_again_runs_with_the_limits_of_then_or_others(tmp_path: Path) -> None:
    model: Any = BlobModel()
    sink = RecordSink(tmp_path / "a.rec", images="png", confidence=0.95, classes=["speck"])
    Pipeline(clip(5), model, sinks=[sink], confidence=0.95, classes=["speck"]).run()
    assert [len(result.detections or ()) for result in open_replay(tmp_path / "a.rec", model=model)] == [0] * 5
    other = open_replay(tmp_path / "a.rec", model=model, confidence=0.5)
    assert [len(result.detections or ()) for result in other] == [0] * 5, "the classes of then"
    assert [
        len(result.detections or ())
        for result in open_replay(tmp_path / "a.rec", model=model, confidence=0.5, classes=[0])
    ] == [1] * 5
    with pytest.raises(ConfigError, match="Limits are for a model"):
        open_replay(tmp_path / "a.rec", confidence=0.5)


# How a recording ends


def test_whatever_byte_a_killed_process_reached_the_whole_frames_are_there(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.rec", [result_of(index) for index in range(4)], close=False)
    whole = (path / RESULTS).read_bytes()
    last = len(encode_record(next(iter([*Recording.open(path).records()][-1:]))))
    for end in range(len(whole) - last, len(whole)):
        (path / RESULTS).write_bytes(whole[:end])
        opened = Recording.open(path)
        assert (opened.extent.records, opened.extent.torn_bytes) == (3, end - len(whole) + last)
        assert "not closed" in opened.notes[0]
        assert ("unfinished" in opened.notes[0]) is (opened.extent.torn_bytes > 0)
    assert [frame.index for frame in frames_of(path)] == [0, 1, 2]


@pytest.mark.parametrize(
    "tail", [b"\0" * 500, b"\xff" * 500, b"\x05\0\0\0\1\2\3\4abcde"], ids=["zeros", "ones", "wrong sum"]
)
def test_what_a_dead_machine_left_at_the_end_is_ignored(tmp_path: Path, tail: bytes) -> None:
    path = recorded(tmp_path / "a.rec", [result_of(index) for index in range(4)], close=False)
    with (path / RESULTS).open("ab") as file:
        file.write(tail)
    assert len(frames_of(path)) == 4
    assert f"{len(tail)} bytes" in Recording.open(path).notes[0]


def test_an_image_without_a_record_is_not_missed(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.rec", [result_of(0)], close=False)
    (path / "frames/00-door/00000001.new").write_bytes(b"half an image")
    assert len(frames_of(path)) == 1


def test_a_closed_recording_has_no_notes_and_must_be_whole(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.rec", [result_of(index) for index in range(4)])
    assert Recording.open(path).notes == ()
    data = (path / RESULTS).read_bytes()
    (path / RESULTS).write_bytes(data[:-3])
    with pytest.raises(SourceError, match="3 of 4 frames") as caught:
        Recording.open(path)
    assert caught.value.code == "eof"


def test_any_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.rec", [result_of(index) for index in range(3)])
    data = (path / RESULTS).read_bytes()
    for at in range(0, len(data), 7):
        (path / RESULTS).write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(SourceError, match=r"damaged|of 3 frames|no frames") as caught:
            frames_of(path)
        assert caught.value.hint


def test_a_recording_without_frames_leaves_no_folder(tmp_path: Path) -> None:
    RecordSink(tmp_path / "a.rec").close()
    assert names_in(tmp_path) == []


def test_one_that_was_killed_before_its_first_frame_says_so(tmp_path: Path) -> None:
    recorded(tmp_path / "a.rec", [], close=False)
    with pytest.raises(SourceError, match="no frames"):
        Recording.open(tmp_path / "a.rec")


def test_a_missing_image_ends_its_source_after_what_came_before(tmp_path: Path) -> None:
    results = [result_of(index, source=name) for index in range(4) for name in ("door", "yard")]
    path = recorded(tmp_path / "a.rec", results)
    (path / "frames/00-door/00000004.jpg").unlink()
    seen: list[tuple[str, int]] = []
    pipeline = open_replay(path, on_result=lambda result: seen.append((result.frame.source_id, result.frame.index)))
    with pytest.raises(SourceError, match=r"00000004\.jpg"):
        pipeline.run()
    assert [index for name, index in seen if name == "door"] == [0, 1]
    assert [index for name, index in seen if name == "yard"] == [0, 1, 2, 3]
    assert {source.health.state for source in pipeline.status().sources} == {"failed", "ended"}
    assert_no_threads()


def test_another_image_in_its_place_is_noticed(tmp_path: Path) -> None:
    import cv2

    path = recorded(tmp_path / "a.rec", [result_of(0)])
    cv2.imwrite(str(path / "frames/00-door/00000000.jpg"), image(size_wh=(16, 16)))
    with pytest.raises(SourceError, match="16 x 16, recorded was 32 x 24"):
        frames_of(path)


# Limits and targets


def test_a_full_recording_says_so_and_stays_readable(tmp_path: Path) -> None:
    one = recorded(tmp_path / "one.rec", [result_of(0)])
    size = sum(path.stat().st_size for path in one.rglob("*.jpg"))
    sink = RecordSink(tmp_path / "a.rec", max_gb=3.5 * size / 1e9)
    pipeline = Pipeline(clip(50, 32, 24), BlobModel(), sinks=[sink])
    with pytest.raises(SinkError, match=r"lost \d+ of 50 results.*limit of .* GB") as caught:
        pipeline.run()
    assert caught.value.hint
    (count,) = pipeline.summary.sinks
    assert (count.emitted, count.failed) == (sink.frames, 50 - sink.frames)
    assert [frame.index for frame in frames_of(tmp_path / "a.rec")] == list(range(sink.frames))
    assert sum(path.stat().st_size for path in (tmp_path / "a.rec").rglob("*.jpg")) <= 3.5 * size


def test_the_minutes_of_a_recording_are_those_of_its_frames(tmp_path: Path) -> None:
    sink = RecordSink(tmp_path / "a.rec", max_minutes=0.1)
    for index in range(6):
        sink.emit(result_of(index))
    with pytest.raises(SinkError, match=r"0\.1 minutes \(max_minutes\) after 6 frames"):
        sink.emit(result_of(6))
    sink.close()
    assert len(frames_of(tmp_path / "a.rec")) == 6


@pytest.mark.parametrize("options", [{"images": "none"}, {"max_gb": 0}, {"max_gb": float("nan")}, {"max_minutes": -1}])
def test_what_makes_no_sense_is_refused_and_leaves_nothing(tmp_path: Path, options: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        RecordSink(tmp_path / "a.rec", **options)
    assert caught.value.hint
    assert names_in(tmp_path) == []


def test_only_a_recording_is_replaced(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.rec", [result_of(0), result_of(1)])
    with pytest.raises(ConfigError, match="exists"):
        RecordSink(path)
    assert len(frames_of(recorded(path, [result_of(0)], overwrite=True))) == 1
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "precious.jpg").touch()
    with pytest.raises(ConfigError, match="no recording: it is not replaced"):
        RecordSink(photos, overwrite=True)
    assert names_in(photos) == ["precious.jpg"]


def test_a_recording_in_work_is_not_replaced(tmp_path: Path) -> None:
    sink = RecordSink(tmp_path / "a.rec")
    sink.emit(result_of(0))
    with pytest.raises(ConfigError, match="being recorded at this moment"):
        RecordSink(tmp_path / "a.rec", overwrite=True)
    sink.close()
    RecordSink(tmp_path / "a.rec", overwrite=True).close()


@pytest.mark.parametrize("target", ["a.rec", "a.rec/frames", "."])
def test_a_replay_never_writes_into_what_it_reads(tmp_path: Path, target: str) -> None:
    path = recorded(tmp_path / "a.rec", [result_of(0)])
    with pytest.raises(ConfigError, match="which is read"):
        open_replay(path, sinks=[f"record:{tmp_path / target}?overwrite=1"])
    assert len(frames_of(path)) == 1


def test_a_disk_that_refuses_an_image_costs_that_frame_only(tmp_path: Path) -> None:
    sink = RecordSink(tmp_path / "a.rec")
    sink.emit(result_of(0))
    (tmp_path / "a.rec/frames/01-yard").write_bytes(b"a file where a folder should be")
    with pytest.raises(SinkError, match="cannot be written"):
        sink.emit(result_of(0, source="yard"))
    sink.emit(result_of(1))
    sink.close()
    assert [frame.index for frame in frames_of(tmp_path / "a.rec")] == [0, 1]


# What is no recording, or means harm


def header_with(**changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        document = json.loads((path / HEADER).read_text())
        (path / HEADER).write_text(json.dumps(document | changes))

    return change


def link_out(relative: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        outside = path.parent / "outside"
        (path / relative).rename(outside)
        (path / relative).symlink_to(outside)

    return change


BAD: Mapping[str, tuple[Callable[[Path], Any], str]] = {
    "no header": (lambda path: (path / HEADER).unlink(), "is no recording"),
    "foreign document": (header_with(format="coco"), "is no recording"),
    "a list": (lambda path: (path / HEADER).write_text("[]"), "damaged"),
    "cut": (lambda path: (path / HEADER).write_text('{"format": "edg'), "damaged"),
    "no text": (lambda path: (path / HEADER).write_bytes(b"\xff\xfe\0"), "damaged"),
    "newer": (header_with(schema=2, anything=1), "schema 2; this EdgeCV reads up to 1"),
    "unknown key": (header_with(anything=1), "damaged.*anything"),
    "unknown images": (header_with(images="../../x"), "damaged"),
    "no sources": (header_with(sources=[]), "names no source"),
    "a source twice": (header_with(sources=[{"name": "door"}] * 2), "twice"),
    "no results": (lambda path: (path / RESULTS).unlink(), "cannot be read"),
    "huge header": (lambda path: (path / HEADER).open("r+b").truncate(17_000_000), "too large"),
    "header outside": (link_out(HEADER), "leads out"),
    "results outside": (link_out(RESULTS), "leads out"),
    "frames outside": (link_out("frames"), "leads out"),
    "image outside": (link_out("frames/00-door/00000000.jpg"), "leads out"),
}


@pytest.mark.parametrize(("damage", "message"), BAD.values(), ids=BAD)
def test_what_is_no_whole_recording_is_an_error_with_a_next_step(
    tmp_path: Path, damage: Callable[[Path], Any], message: str
) -> None:
    path = recorded(tmp_path / "a.rec", [result_of(0)])
    damage(path)
    with pytest.raises(EdgeCVError, match=message) as caught:
        frames_of(path)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["missing.rec", "file.rec"])
def test_what_is_no_folder_is_no_recording(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.rec").touch()
    with pytest.raises(SourceError, match="is no recording"):
        Recording.open(tmp_path / name)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc", "..", "", "a\0b", "rtsp://10.0.0.7/1?x=../..", "тор"])
def test_no_name_of_a_source_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    path = image_path(Header(sources=(RecordedFrom(name=name),)), 0, 3)
    assert (tmp_path / path).resolve().is_relative_to(tmp_path.resolve() / "frames")
    (frame,) = frames_of(recorded(tmp_path / "a.rec", [result_of(0, source=name)]))
    assert frame.source_id == name


ONE = {
    "xyxy": StoredArray((1, 4), bytes(16)),
    "confidence": StoredArray((1,), bytes(4)),
    "class_id": StoredArray((1,), bytes(8)),
}
MADE_UP: Mapping[str, Mapping[str, Any]] = {
    "negative source": {"source": -1},
    "source that is not there": {"source": 7},
    "too few bytes": {"arrays": {**ONE, "xyxy": StoredArray((1, 4), bytes(15))}},
    "negative shape": {"arrays": {**ONE, "xyxy": StoredArray((-1, -4), bytes(16))}},
    "lengths differ": {"arrays": {**ONE, "confidence": StoredArray((2,), bytes(8))}},
    "unknown array": {"arrays": {**ONE, "image": StoredArray((1,), bytes(4))}},
    "no boxes": {"arrays": {}},
    "boxes of a classification": {"is_classification": True},
    "endless masks": {"masks": StoredMasks(2**31, 2**31, (b"",))},
    "negative masks": {"masks": StoredMasks(-1, -1, (b"\1\0\0\0",))},
    "runs beyond the mask": {"masks": StoredMasks(2, 2, (b"\xff\xff\xff\xff",))},
    "half a run": {"masks": StoredMasks(2, 2, (b"\1\0\0",))},
    "negative image": {"image": -5},
}


@pytest.mark.parametrize("changes", MADE_UP.values(), ids=MADE_UP)
def test_a_record_that_somebody_made_up_is_an_error(tmp_path: Path, changes: Mapping[str, Any]) -> None:
    path = recorded(tmp_path / "a.rec", [result_of(0)])
    fields: dict[str, Any] = {
        "source": 0,
        "index": 0,
        "captured_ns": 1,
        "monotonic_ns": 1,
        "position_ns": None,
        "width": 32,
        "height": 24,
        "image": 0,
    }
    record = Record(**{**fields, "is_classification": False, "arrays": ONE, **changes})
    (path / RESULTS).write_bytes(encode_record(record))
    with pytest.raises(SourceError) as caught:
        frames_of(path)
    assert caught.value.hint


# As a source


def test_a_recording_is_a_source_for_any_pipeline(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.rec", [result_of(i, source=name) for i in range(3) for name in ("door", "yard 2")])
    for choice in ("1", "yard%202"):
        source = open_source(f"recording://{path}?source={choice}")
        assert source.source_id == "yard 2"
        source.close()
    with pytest.raises(ConfigError, match="2 sources") as caught:
        open_source(f"recording://{path}")
    assert "door, yard 2" in caught.value.hint
    with pytest.raises(ConfigError, match="no source '2'"):
        open_source(f"recording://{path}?source=2")
    results = list(Pipeline(f"recording://{path}?source=0", BlobModel()))
    assert [result.frame.index for result in results] == [0, 1, 2]


def test_classes_are_chosen_from_what_was_recorded(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.rec", [result_of(0)])
    assert [len(r.detections or ()) for r in open_replay(path, classes=["car"])] == [1]
    assert [len(r.detections or ()) for r in open_replay(path, classes=["person"])] == [0]


def test_only_frames_of_a_recording_are_remembered(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.rec", [result_of(0)])
    with pytest.raises(SourceError, match="was not recorded"):
        RecordedModel(Recording.open(path).header).recall(result_of(0).frame)


def test_a_replay_at_its_own_speed_keeps_the_pauses(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.rec", [result_of(index) for index in range(5)])  # a second apart
    start = time.monotonic()
    assert open_replay(path, speed=20).run().frames == 5
    assert 0.19 <= time.monotonic() - start < DEADLINE_S
    with pytest.raises(ConfigError, match="negative"):
        open_replay(path, speed=-1)


def test_a_long_pause_does_not_delay_the_end(tmp_path: Path) -> None:
    late = replace(result_of(1), frame=replace(result_of(1).frame, monotonic_ns=10**18))  # thirty years later
    pipeline = open_replay(recorded(tmp_path / "a.rec", [result_of(0), late]), speed=1)
    timer = threading.Timer(0.3, pipeline.stop)
    timer.start()
    start = time.monotonic()
    assert pipeline.run().frames == 1
    assert time.monotonic() - start < 5
    timer.join(DEADLINE_S)
    assert_no_threads()


def test_at_its_own_speed_no_source_waits_for_the_pause_of_another(tmp_path: Path) -> None:
    late = replace(result_of(1, source="yard"), frame=replace(result_of(1, source="yard").frame, monotonic_ns=10**18))
    path = recorded(tmp_path / "a.rec", [result_of(0, source="yard"), late, *(result_of(index) for index in range(4))])
    seen: list[str] = []
    pipeline = open_replay(path, speed=50)
    guard = threading.Timer(DEADLINE_S, pipeline.stop)
    guard.start()
    for result in pipeline:
        seen.append(result.frame.source_id)
        if len(seen) == 5:
            pipeline.stop()
    guard.cancel()
    assert sorted(seen) == ["door"] * 4 + ["yard"]


def test_max_frames_ends_a_replay_early(tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.rec", [result_of(i, source=name) for i in range(9) for name in "ab"])
    assert open_replay(path, max_frames=5).run().frames == 5
    assert_no_threads()
