"""The loop: complete, in order, bounded, and gone when it is over."""

from __future__ import annotations

import gc
import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.errors import ConfigError, PluginError, SinkError, SourceError
from edgecv.events import Event
from edgecv.pipelines.loop.sink_worker import SinkWorker
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.sinks.files.jsonl import JsonlSink
from edgecv.pipelines.source_config import SourceConfig
from edgecv.pipelines.sources.synthetic import SyntheticSource, square_at
from edgecv.results import Frame, Result
from tests.unit.pipelines.blob import DEADLINE_S, BlobModel, assert_no_threads, pipeline_threads

CLIP = "synthetic://?frames=40&width=64&height=48&fps=10"
LIVE = "synthetic://?frames=0&width=64&height=48&fps=200&live=1"


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert_no_threads()


class BreakingSource(SyntheticSource):
    """A source that breaks after five frames, as a camera cable does."""

    closed = 0

    def read(self) -> Frame | None:
        if self._index == 5:
            raise SourceError("The cable broke.", code="stale")
        return super().read()

    def close(self) -> None:
        self.closed += 1
        super().close()


class SlowSink:
    """Takes its time and remembers what it got."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.pause_s = pause_s
        self.indices: list[int] = []
        self.closed = 0

    def emit(self, result: Result) -> None:
        time.sleep(self.pause_s)
        self.indices.append(result.frame.index)

    def close(self) -> None:
        self.closed += 1


class FailingSink(SlowSink):
    """Fails at every third result."""

    def emit(self, result: Result) -> None:
        if result.frame.index % 3 == 0:
            raise SinkError("The wire is cut.", "Mend it.")
        super().emit(result)


@pytest.mark.parametrize("use_with", [True, False])
def test_results_come_complete_and_in_order(use_with: bool) -> None:
    pipeline = Pipeline(CLIP, BlobModel())
    if use_with:
        with pipeline:
            results = list(pipeline)
    else:
        results = list(pipeline)
    assert [result.frame.index for result in results] == list(range(40))
    for result in results:
        left, top, side = square_at(result.frame.index, 64, 48)
        assert result.detections is not None
        assert np.abs(result.detections.xyxy[0] - (left, top, left + side, top + side)).max() <= 2
        assert result.model == "blob/numpy"
        assert result.labels == BlobModel.labels


def test_results_carry_age_and_stage_times() -> None:
    for result in Pipeline(CLIP, BlobModel(busy_s=0.002)):
        assert set(result.timings_ms) == {"wait", "preprocess", "inference", "postprocess"}
        assert all(value >= 0 for value in result.timings_ms.values())
        assert result.timings_ms["inference"] >= 2
        assert result.age_ms >= result.timings_ms["inference"]
        assert abs(result.frame.captured_ns - time.time_ns()) < DEADLINE_S * 1e9


def test_run_gives_a_summary() -> None:
    seen: list[int] = []

    def keep(result: Result) -> None:
        seen.append(result.frame.index)

    summary = Pipeline(CLIP, BlobModel(), sinks=[keep]).run()
    assert summary.frames == 40
    assert summary.dropped == {}
    assert summary.fps == pytest.approx(summary.frames / summary.elapsed_s, rel=0.01)
    assert set(summary.stage_p50_ms) == {"wait", "preprocess", "inference", "postprocess"}
    assert summary.age_p50_ms > 0
    (count,) = summary.sinks
    assert (count.name, count.emitted, count.failed, count.dropped, count.error) == ("keep", 40, 0, 0, "")
    assert seen == list(range(40))
    assert summary.as_dict()["sinks"][0]["emitted"] == 40


def test_max_frames_ends_an_endless_source() -> None:
    source = SyntheticSource("synthetic://?frames=0&width=64&height=48")
    assert Pipeline(source, BlobModel(), max_frames=7).run().frames == 7
    assert source._index == 7, "nothing is read that nobody asked for"


def test_classes_and_confidence_filter() -> None:
    assert all(len(result.detections) == 1 for result in Pipeline(CLIP, BlobModel(), classes=["blob"]))
    assert all(len(result.detections) == 0 for result in Pipeline(CLIP, BlobModel(), classes=[1]))
    assert all(len(result.detections) == 0 for result in Pipeline(CLIP, BlobModel(), confidence=0.95))


def test_steps_change_and_drop_results() -> None:
    sink = SlowSink()

    def every_second(result: Result) -> Result | None:
        return result if result.frame.index % 2 else None

    def rename(result: Result) -> Result:
        return replace(result, model="renamed")

    pipeline = Pipeline(CLIP, BlobModel(), steps=[every_second, rename], sinks=[sink])
    results = list(pipeline)
    assert [result.frame.index for result in results] == list(range(1, 40, 2)) == sink.indices
    assert {result.model for result in results} == {"renamed"}
    assert pipeline.summary.frames == 40
    assert pipeline.summary.dropped == {"step": 20}


def test_on_result_sees_every_result_in_the_calling_thread() -> None:
    seen: list[str] = []
    Pipeline(CLIP, BlobModel(), on_result=lambda _: seen.append(threading.current_thread().name)).run()
    assert seen == [threading.current_thread().name] * 40


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_frames": 0},
        {"classes": ["blbo"]},
        {"classes": [2]},
        {"classes": "blob"},
        {"classes": []},
        {"sinks": [7]},
        {"sinks": ["out.jsonl"]},
    ],
)
def test_wrong_arguments_are_refused_before_anything_starts(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        Pipeline(CLIP, BlobModel(), **arguments)
    assert caught.value.message


def test_a_misspelt_class_gets_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        Pipeline(CLIP, BlobModel(), classes=["blbo"])
    assert "blob" in caught.value.hint


def test_a_missing_source_leaves_no_output(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        Pipeline(tmp_path / "missing.mp4", BlobModel(), sinks=[f"jsonl:{tmp_path / 'out.jsonl'}"])
    assert not list(tmp_path.iterdir())


def test_a_sink_that_cannot_open_closes_the_source_and_the_other_sinks(tmp_path: Path) -> None:
    source, sink = BreakingSource("synthetic://"), SlowSink()
    with pytest.raises(SinkError):
        Pipeline(source, BlobModel(), sinks=[sink, f"jsonl:{tmp_path / 'no' / 'out.jsonl'}"])
    assert (source.closed, sink.closed) == (1, 1)


def test_the_source_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(ConfigError, match="in use"):
        Pipeline(path, BlobModel(), sinks=[f"video:{path}?overwrite=1"])
    assert path.read_bytes() == b"precious"


def test_two_sinks_do_not_share_a_file(tmp_path: Path) -> None:
    uri = f"jsonl:{tmp_path / 'out.jsonl'}?overwrite=1"
    with pytest.raises(ConfigError, match="in use"):
        Pipeline(CLIP, BlobModel(), sinks=[uri, uri])
    assert not list(tmp_path.iterdir())


def test_a_hanging_sink_ends_with_its_deadline() -> None:
    release = threading.Event()

    class HangingSink(SlowSink):
        def emit(self, result: Result) -> None:
            release.wait(DEADLINE_S)

    outlet = SinkWorker("hanging", HangingSink(), "latest")
    outlet.start()
    for result in Pipeline(CLIP, BlobModel()):
        outlet.offer(result, lambda: False)
    start = time.monotonic()
    outlet.close(0.1)
    assert time.monotonic() - start < DEADLINE_S / 2
    assert "did not finish" in outlet.count().error
    assert outlet.count().dropped == 40
    release.set()


def test_a_breaking_source_delivers_closes_the_sinks_and_then_raises() -> None:
    source, sink, results = BreakingSource("synthetic://?width=64&height=48"), SlowSink(0.002), []
    with pytest.raises(SourceError, match="cable"):
        for result in Pipeline(source, BlobModel(), sinks=[sink]):
            results.append(result.frame.index)
    assert results == sink.indices == list(range(5))
    assert (source.closed, sink.closed) == (1, 1)


def test_a_cut_video_delivers_what_it_has_and_then_raises(tmp_path: Path) -> None:
    path = tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for index in range(40):
        writer.write(np.random.default_rng(index).integers(0, 255, (48, 64, 3), np.uint8))
    writer.release()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    sink = SlowSink()
    pipeline = Pipeline(path, BlobModel(), sinks=[sink])
    with pytest.raises(SourceError) as caught:
        pipeline.run()
    assert caught.value.code == "eof"
    assert 10 < pipeline.summary.frames == len(sink.indices) < 30


@pytest.mark.parametrize("use_with", [True, False])
def test_an_exception_of_the_app_ends_everything(use_with: bool) -> None:
    source, sink = SyntheticSource("synthetic://?frames=0&width=64&height=48"), SlowSink()

    def app() -> None:
        pipeline = Pipeline(source, BlobModel(), sinks=[sink])
        if use_with:
            with pipeline:
                for result in pipeline:
                    if result.frame.index == 3:
                        raise ZeroDivisionError
        else:
            for result in pipeline:
                if result.frame.index == 3:
                    raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        app()
    assert_no_threads()
    assert sink.closed == 1
    assert sink.indices == [0, 1, 2, 3]


def test_leaving_the_loop_early_ends_everything() -> None:
    sink = SlowSink()
    for result in Pipeline(CLIP, BlobModel(), sinks=[sink]):
        if result.frame.index == 3:
            break
    assert_no_threads()
    assert (sink.indices, sink.closed) == ([0, 1, 2, 3], 1)


def test_inside_with_a_second_loop_goes_on() -> None:
    with Pipeline(CLIP, BlobModel()) as pipeline:
        for result in pipeline:
            if result.frame.index == 3:
                break
        assert [result.frame.index for result in pipeline] == list(range(4, 40))


def test_an_ended_pipeline_cannot_be_used_again() -> None:
    pipeline = Pipeline(CLIP, BlobModel())
    pipeline.run()
    with pytest.raises(ConfigError, match="ended"):
        pipeline.run()


def test_an_unused_pipeline_closes() -> None:
    source, sink = BreakingSource("synthetic://"), SlowSink()
    with Pipeline(source, BlobModel(), sinks=[sink]):
        pass
    assert (source.closed, sink.closed) == (1, 1)


@pytest.mark.parametrize("where", ["step", "on_result"])
def test_an_exception_of_a_callback_ends_everything(where: str) -> None:
    def fail(_: Result) -> Result:
        raise ZeroDivisionError

    sink = SlowSink()
    arguments = {"steps": [fail]} if where == "step" else {"on_result": fail}
    with pytest.raises(PluginError if where == "step" else ZeroDivisionError) as caught:
        Pipeline(CLIP, BlobModel(), sinks=[sink], **arguments).run()
    assert isinstance(caught.value.__cause__ or caught.value, ZeroDivisionError)
    assert sink.closed == 1


def test_stop_from_another_thread_ends_the_run() -> None:
    pipeline = Pipeline("synthetic://?frames=0&width=64&height=48", BlobModel(busy_s=0.001))
    threading.Timer(0.1, pipeline.stop).start()
    start = time.monotonic()
    assert pipeline.run().frames > 0
    assert time.monotonic() - start < DEADLINE_S


def test_a_failing_sink_is_counted_logged_once_and_raised_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    failing, healthy = FailingSink(), SlowSink()
    pipeline = Pipeline(CLIP, BlobModel(), sinks=[failing, healthy])
    seen = 0
    with caplog.at_level(logging.WARNING), pytest.raises(SinkError, match="FailingSink lost 14 of 40") as caught:
        for _ in pipeline:
            seen += 1
    assert seen == 40
    assert caught.value.hint == "Mend it."
    bad, good = pipeline.summary.sinks
    assert (bad.emitted, bad.failed, bad.error) == (26, 14, "The wire is cut.")
    assert (good.emitted, good.failed) == (40, 0)
    assert len([record for record in caplog.records if "wire is cut" in record.getMessage()]) == 1


def test_any_exception_of_a_sink_function_stays_off_the_frames() -> None:
    def fail(_: Result) -> None:
        raise ZeroDivisionError("by zero")

    pipeline = Pipeline(CLIP, BlobModel(), sinks=[fail])
    with pytest.raises(SinkError, match="fail lost 40 of 40 results: ZeroDivisionError: by zero"):
        pipeline.run()
    assert pipeline.summary.frames == 40


def test_an_exception_of_the_app_is_not_hidden_by_a_failing_sink() -> None:
    with pytest.raises(ZeroDivisionError), Pipeline(CLIP, BlobModel(), sinks=[FailingSink()]) as pipeline:
        for _ in pipeline:
            raise ZeroDivisionError


def test_a_slow_sink_of_a_lossless_source_loses_nothing_and_holds_back_the_frames() -> None:
    sink, ahead = SlowSink(pause_s=0.004), []
    for result in Pipeline(CLIP, BlobModel(), sinks=[sink]):
        ahead.append(result.frame.index - len(sink.indices))
    assert sink.indices == list(range(40))
    assert max(ahead) <= 10, "the queue is bounded"


def test_a_slow_sink_of_a_live_source_drops_and_counts_and_never_slows_the_frames() -> None:
    sink = SlowSink(pause_s=0.1)
    pipeline = Pipeline(LIVE, BlobModel(), sinks=[sink], max_frames=60)
    summary = pipeline.run()
    assert summary.elapsed_s < 60 * 0.1 / 2
    (count,) = summary.sinks
    assert count.emitted + count.dropped == 60
    assert count.dropped > 20
    assert sink.indices == sorted(sink.indices)


def eventful(index: int, source_id: str = "cam", count: int = 1) -> Result:
    events = tuple(
        Event(kind="line.crossed", time_ns=index, source_id=source_id, data={"number": number})
        for number in range(count)
    )
    frame = Frame(
        image=np.zeros((8, 8, 3), np.uint8), index=index, source_id=source_id, captured_ns=index, monotonic_ns=index
    )
    return Result(frame=frame, labels=(), events=events)


class StallingSink:
    """Stands still at its first result until it is let go."""

    def __init__(self) -> None:
        self.go_on, self.results = threading.Event(), list[Result]()

    def emit(self, result: Result) -> None:
        self.go_on.wait(DEADLINE_S)
        self.results.append(result)

    def close(self) -> None: ...


@pytest.mark.parametrize("sources", [("cam",), ("door", "yard"), ("door", "yard", "yard", "yard")])
def test_a_dropped_result_hands_its_events_on(sources: tuple[str, ...]) -> None:
    sink = StallingSink()
    outlet = SinkWorker("stalling", sink, "latest")
    outlet.start()
    for index in range(100):
        outlet.offer(eventful(index, sources[index % len(sources)]), lambda: False)
    sink.go_on.set()
    outlet.close(DEADLINE_S)
    count = outlet.count()
    assert count.dropped > 80
    assert count.events_lost == 0
    assert len(sink.results) == 100 - count.dropped
    told = [event for result in sink.results for event in result.events]
    assert sorted(event.time_ns for event in told) == list(range(100)), "each once"
    if len(sources) < 3:
        assert all(event.source_id == result.frame.source_id for result in sink.results for event in result.events)
        assert [event.time_ns for event in told if event.source_id == sources[0]] == list(range(0, 100, len(sources)))


def test_a_result_carries_a_bounded_number_of_events_and_the_rest_is_counted() -> None:
    sink = StallingSink()
    outlet = SinkWorker("stalling", sink, "latest")
    outlet.start()
    for index in range(100):
        outlet.offer(eventful(index, count=1000), lambda: False)
    sink.go_on.set()
    outlet.close(DEADLINE_S)
    told = sum(len(result.events) for result in sink.results)
    assert 4096 <= told < 20_000
    assert told + outlet.count().events_lost == 100_000


def test_events_that_a_sink_did_not_take_in_time_are_counted() -> None:
    sink = StallingSink()
    outlet = SinkWorker("stalling", sink, "lossless")
    outlet.start()
    for index in range(20):
        outlet.offer(eventful(index), lambda: True)  # a stop: the queue is full and nobody waits
    outlet.close(0.1)
    count = outlet.count()
    assert (count.dropped, count.events_lost) == (20, 20)
    sink.go_on.set()


def test_a_stop_leaves_no_gap_in_what_a_slow_sink_wrote_and_takes_no_event() -> None:
    sink = StallingSink()
    outlet = SinkWorker("stalling", sink, "lossless")
    outlet.start()
    for index in range(20):
        outlet.offer(eventful(index), lambda: True)
    sink.go_on.set()
    outlet.close(DEADLINE_S)
    indices = [result.frame.index for result in sink.results]
    assert indices == list(range(len(indices)))
    assert sorted(event.time_ns for result in sink.results for event in result.events) == list(range(20))


def test_no_count_of_a_line_is_lost_on_the_way_to_a_file_that_stalls(tmp_path: Path) -> None:
    counted: list[Event] = []

    def cross(result: Result) -> Result:
        event = Event(kind="line.crossed", time_ns=time.time_ns(), source_id=result.frame.source_id)
        counted.append(event)
        return replace(result, events=(event,))

    class StallsOnce(JsonlSink):
        stalled = False

        def emit(self, result: Result) -> None:
            if not self.stalled and result.frame.index > 5:
                self.stalled = True
                time.sleep(0.3)
            super().emit(result)

    path = tmp_path / "out.jsonl"
    pipeline = Pipeline(LIVE, BlobModel(), steps=[cross], sinks=[StallsOnce(path)], max_frames=60)
    (count,) = pipeline.run().sinks
    assert count.dropped > 0
    told = [event for line in path.read_text().splitlines() for event in json.loads(line).get("events", ())]
    assert sorted(event["time_ns"] for event in told) == sorted(event.time_ns for event in counted)


def test_a_slow_model_on_a_live_source_sees_fresh_frames() -> None:
    pipeline = Pipeline(LIVE, BlobModel(busy_s=0.03), max_frames=20)
    results = list(pipeline)
    assert pipeline.summary.dropped["latest"] > 40
    assert max(result.age_ms for result in results[5:]) < 300, "it does not grow"
    gaps = np.diff([result.frame.index for result in results])
    assert gaps.min() >= 1
    assert gaps.max() > 1


def test_the_policy_can_be_chosen() -> None:
    endless = "synthetic://?frames=0&width=64&height=48"
    assert (
        Pipeline(SourceConfig(endless, policy="latest"), BlobModel(busy_s=0.005), max_frames=10).run().dropped["latest"]
        > 0
    )
    assert Pipeline(SourceConfig(LIVE, policy="lossless"), BlobModel(), max_frames=10).run().dropped == {}


def test_capture_runs_ahead_by_a_bounded_number_of_frames() -> None:
    source = SyntheticSource("synthetic://?frames=0&width=64&height=48")
    with Pipeline(source, BlobModel(), max_frames=50) as pipeline:
        for result in pipeline:
            time.sleep(0.002)
            assert source._index - result.frame.index <= 5


def test_results_are_not_kept() -> None:
    others = [thing for thing in gc.get_objects() if isinstance(thing, Result)]  # of tests before this one
    for result in Pipeline(CLIP, BlobModel(), sinks=[SlowSink()]):
        del result
    gc.collect()
    held = {id(thing) for thing in gc.get_objects() if isinstance(thing, Result)}
    assert not held - {id(thing) for thing in others}


def test_capture_overlaps_with_the_model() -> None:
    class SlowSource(SyntheticSource):
        def read(self) -> Frame | None:
            time.sleep(0.01)
            return super().read()

    source = SlowSource("synthetic://?frames=30&width=64&height=48")
    summary = Pipeline(source, BlobModel(busy_s=0.01)).run()
    assert summary.elapsed_s < 30 * 0.02 * 0.9


class QuickSink(SlowSink):
    """Says that it never blocks, and notes in which threads it is called."""

    non_blocking = True

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[str] = set()

    def emit(self, result: Result) -> None:
        self.threads.add(threading.current_thread().name)
        super().emit(result)


def test_a_sink_that_never_blocks_is_called_by_the_loop() -> None:
    sink = QuickSink()
    pipeline = Pipeline(CLIP, BlobModel(), sinks=[sink])
    for _ in pipeline:
        assert not [name for name in pipeline_threads() if "sink" in name]
    assert sink.threads == {threading.current_thread().name}
    assert pipeline.summary.sinks[0].emitted == pipeline.summary.frames


class QuickFailure(FailingSink):
    non_blocking = True


def test_a_sink_that_never_blocks_and_fails_does_not_end_the_run() -> None:
    pipeline = Pipeline(CLIP, BlobModel(), sinks=[QuickFailure()])
    with pytest.raises(SinkError, match=r"lost .* The wire is cut"):
        pipeline.run()
    count = pipeline.summary.sinks[0]
    assert count.emitted + count.failed == pipeline.summary.frames
    assert count.emitted > 0 < count.failed
