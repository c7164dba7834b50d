"""Many sources in one loop: fair, apart, added and removed while it runs; fresh frames; gates; what sinks are told."""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgecv.errors import ConfigError, PluginError, SinkError, SourceError, SpecMismatch
from edgecv.events import Event
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.source_config import SourceConfig
from edgecv.pipelines.sources.frames import FrameStamper
from edgecv.pipelines.sources.synthetic import SyntheticSource
from edgecv.pipelines.steps import Track
from edgecv.pipelines.steps.per_source import PerSource
from edgecv.results import Detections, Frame, Result
from edgecv.status import PipelineStatus, SourceHealth
from tests.unit.pipelines.blob import DEADLINE_S, BlobModel, assert_no_threads


def clip(frames: int = 20) -> SyntheticSource:
    return SyntheticSource(f"synthetic://?frames={frames}&width=64&height=48&fps=10")


def camera(fps: float = 100, frames: int = 0) -> SyntheticSource:
    return SyntheticSource(f"synthetic://?frames={frames}&width=64&height=48&fps={fps}&live=1")


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert_no_threads()


class BreakingSource(SyntheticSource):
    """Breaks after three frames."""

    def read(self) -> Frame | None:
        if self._index == 3:
            raise SourceError("The cable broke.", "Mend it.", code="stale")
        return super().read()


class Watcher:
    """A sink that wants to know everything."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.events: list[Event] = []
        self.status: Callable[[], PipelineStatus] | None = None

    def attach(self, status: Callable[[], PipelineStatus]) -> None:
        self.status = status

    def emit(self, result: Result) -> None:
        self.results.append(result)

    def emit_event(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        pass


def test_every_file_comes_complete_and_in_its_order() -> None:
    seen: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    for result in Pipeline({"a": clip(7), "b": clip(20), "c": clip(13)}, BlobModel()):
        seen[result.frame.source_id].append(result.frame.index)
    assert seen == {"a": list(range(7)), "b": list(range(20)), "c": list(range(13))}


def test_a_list_of_sources_keeps_their_names_apart() -> None:
    names = {result.frame.source_id for result in Pipeline([clip(2), clip(2), clip(2)], BlobModel())}
    assert names == {"synthetic://", "synthetic://#2", "synthetic://#3"}


def test_no_source_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="no source"):
        Pipeline([], BlobModel())
    with pytest.raises(ConfigError, match="no source"):
        Pipeline({}, BlobModel())


def test_a_saturated_loop_serves_all_cameras_alike() -> None:
    """One camera is ten times as fast as the others, and the model slower than any of them."""
    cameras = {"fast": camera(500), "b": camera(50), "c": camera(50), "d": camera(50)}
    counts: Counter[str] = Counter()
    with Pipeline(cameras, BlobModel(busy_s=0.02), max_frames=80) as pipeline:
        for result in pipeline:
            counts[result.frame.source_id] += 1
        status = pipeline.status()
    assert min(counts.values()) >= 0.8 * sum(counts.values()) / len(counts), counts
    dropped = {source.source_id: source.dropped.get("latest", 0) for source in status.sources}
    assert dropped["fast"] > dropped["b"]


def test_one_broken_source_stops_no_other_and_is_raised_at_the_end() -> None:
    watcher = Watcher()
    pipeline = Pipeline(
        {"good": clip(30), "bad": BreakingSource("synthetic://?frames=9")}, BlobModel(), sinks=[watcher]
    )
    with pytest.raises(SourceError, match="The cable broke"):
        pipeline.run()
    counts = Counter(result.frame.source_id for result in watcher.results)
    assert counts == {"good": 30, "bad": 3}
    (event,) = watcher.events
    assert (event.kind, event.source_id) == ("source.failed", "bad")
    assert event.data == {"code": "stale", "error": "The cable broke.", "hint": "Mend it."}
    states = {source.source_id: source.health.state for source in pipeline.status().sources}
    assert states == {"good": "ended", "bad": "failed"}


def test_a_source_is_added_and_removed_while_it_runs() -> None:
    seen: list[str] = []
    forgotten: list[str] = []

    class Memory:
        def __init__(self, source_id: str) -> None:
            self.source_id = source_id

        def __call__(self, result: Result) -> Result:
            return result

        def close(self) -> None:
            forgotten.append(self.source_id)

    with Pipeline({"first": camera()}, BlobModel(), steps=[PerSource(Memory)]) as pipeline:
        for result in pipeline:
            seen.append(result.frame.source_id)
            if len(seen) == 3:
                assert pipeline.add_source(camera(), "second") == "second"
            if "second" in seen and "first" in [s.source_id for s in pipeline.status().sources]:
                thread = threading.Thread(target=pipeline.remove_source, args=("first",))
                thread.start()
                thread.join(DEADLINE_S)
                removed_at = len(seen)
            if seen[-10:] == ["second"] * 10:
                break
    assert "first" not in seen[removed_at + 3 :], "what was in flight may still come"
    assert forgotten == ["first", "second"]


def test_names_are_unique_and_known() -> None:
    with Pipeline({"door": clip()}, BlobModel()) as pipeline:
        extra = clip()
        with pytest.raises(ConfigError, match="'door' already"):
            pipeline.add_source(extra, "door")
        assert extra.read() is None, "the refused one is closed"
        with pytest.raises(ConfigError, match="no source 'window'"):
            pipeline.remove_source("window")
    with pytest.raises(ConfigError, match="has ended"):
        pipeline.add_source(clip())


def test_with_the_last_source_the_pipeline_ends() -> None:
    with Pipeline({"only": camera()}, BlobModel()) as pipeline:
        for number, _ in enumerate(pipeline):
            if number == 3:
                pipeline.remove_source("only")
    assert pipeline.summary.frames >= 4


def test_every_nth_frame_of_a_file() -> None:
    pipeline = Pipeline(SourceConfig(clip(20), policy="every_nth", nth=3), BlobModel())
    assert [result.frame.index for result in pipeline] == [0, 3, 6, 9, 12, 15, 18]
    assert pipeline.summary.dropped == {"every_nth": 13}


class OldFrames(SyntheticSource):
    """Every second frame is ten seconds old, as after a stall of the network."""

    def read(self) -> Frame | None:
        frame = super().read()
        return frame and replace(frame, monotonic_ns=frame.monotonic_ns - (frame.index % 2) * 10_000_000_000)


def test_frames_too_old_are_dropped_before_the_model_and_counted() -> None:
    pipeline = Pipeline(SourceConfig(OldFrames("synthetic://?frames=20"), max_age_ms=5000), BlobModel())
    results = list(pipeline)
    assert [result.frame.index for result in results] == list(range(0, 20, 2))
    assert pipeline.summary.dropped == {"too_old": 10}
    assert all(result.age_ms < 5000 for result in results)


def test_a_source_is_treated_in_its_own_way() -> None:
    sparse = SourceConfig(clip(20), policy="every_nth", nth=10)
    counts = Counter(result.frame.source_id for result in Pipeline({"all": clip(20), "few": sparse}, BlobModel()))
    assert counts == {"all": 20, "few": 2}


@pytest.mark.parametrize("source", [clip, camera], ids=["file", "camera"])
def test_a_gate_keeps_frames_from_the_model(source: Callable[[], SyntheticSource]) -> None:
    pipeline = Pipeline(source(), BlobModel(), gates=[lambda frame: frame.index % 4 == 0], max_frames=5)
    assert all(result.frame.index % 4 == 0 for result in pipeline)
    assert pipeline.summary.frames == 5
    assert pipeline.summary.dropped["still"] >= 3


@pytest.mark.parametrize(
    "arguments",
    [
        {"policy": "newest"},
        {"nth": 2},
        {"policy": "every_nth", "nth": 0},
        {"max_age_ms": 0},
        {"max_age_ms": -3.0},
    ],
    ids=str,
)
def test_a_source_config_that_makes_no_sense_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        SourceConfig(clip(), **arguments)  # type: ignore[arg-type]


def test_steps_of_one_source_see_only_its_frames() -> None:
    seen: dict[str, list[int]] = {}

    def remember(source_id: str) -> Callable[[Result], Result]:
        mine = seen.setdefault(source_id, [])

        def step(result: Result) -> Result:
            assert result.frame.source_id == source_id
            mine.append(result.frame.index)
            return result

        return step

    Pipeline({"a": clip(12), "b": clip(15)}, BlobModel(), steps=[PerSource(remember)]).run()
    assert seen == {"a": list(range(12)), "b": list(range(15))}


class Tells(SyntheticSource):
    """A camera that says how it is, as a supervised one does."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.on_change: Callable[[SourceHealth], None] | None = None
        self._interrupted = threading.Event()
        self._health = SourceHealth(state="connecting", since_ns=0)

    def read(self) -> Frame | None:
        if self._index == 4:
            self._tell(SourceHealth(state="stale", since_ns=1, code="stale", error="Nothing came.", hint="Wait."))
            self._interrupted.wait(DEADLINE_S)
            return None
        return super().read()

    def health(self) -> SourceHealth:
        return self._health

    def interrupt(self) -> None:
        self._interrupted.set()

    def _tell(self, health: SourceHealth) -> None:
        self._health = health
        if self.on_change is not None:
            self.on_change(health)


def test_a_source_that_waits_for_ever_is_told_to_sinks_and_ends_at_once_with_the_pipeline() -> None:
    watcher = Watcher()
    with Pipeline({"gate": Tells("synthetic://?frames=9")}, BlobModel(), sinks=[watcher]) as pipeline:
        results = iter(pipeline)
        for _ in range(4):
            next(results)
        deadline = time.monotonic() + DEADLINE_S
        while not watcher.events and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [event.kind for event in watcher.events] == ["source.stale"]
        assert watcher.events[0].data == {"code": "stale", "error": "Nothing came.", "hint": "Wait."}
        assert watcher.status is not None
        assert watcher.status().sources[0].health.state == "stale"
        start = time.monotonic()
    assert time.monotonic() - start < DEADLINE_S / 2


def test_the_status_says_what_each_source_did() -> None:
    class CountsDetections:
        def __init__(self, _: str) -> None:
            self.total = 0

        def __call__(self, result: Result) -> Result:
            self.total += len(result.detections or Detections.empty())
            return result

        def counts(self) -> dict[str, int]:
            return {"blobs": self.total}

    watcher = Watcher()
    sources = {"a": clip(8), "b": clip(5)}
    pipeline = Pipeline(sources, BlobModel(), sinks=[watcher], steps=[PerSource(CountsDetections)])
    assert watcher.status is not None
    before = watcher.status()
    assert (before.running, before.frames, [s.health.state for s in before.sources]) == (False, 0, ["connecting"] * 2)
    pipeline.run()
    status = watcher.status()
    assert (status.running, status.frames, status.model) == (False, 13, "blob/numpy")
    assert [(s.source_id, s.frames, s.size_wh, dict(s.counts)) for s in status.sources] == [
        ("a", 8, (64, 48), {"blobs": 8}),
        ("b", 5, (64, 48), {"blobs": 5}),
    ]
    assert status.age_p99_ms >= status.age_p50_ms > 0
    assert status.sinks[0].emitted == 13


def test_the_status_may_be_asked_for_while_it_runs() -> None:
    with Pipeline({"a": camera(500), "b": camera(500)}, BlobModel()) as pipeline:
        done = threading.Event()
        asked = [0]

        def ask() -> None:
            while not done.is_set():
                pipeline.status().as_dict()
                asked[0] += 1

        thread = threading.Thread(target=ask)
        thread.start()
        for number, _ in enumerate(pipeline):
            if number == 200:
                break
        done.set()
        thread.join(DEADLINE_S)
    assert asked[0] > 1
    assert 0 < pipeline.status().sources[0].fps < 2000


def test_no_sources_file_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "b.mp4").write_bytes(b"x")
    with pytest.raises(ConfigError, match="in use"):
        Pipeline([clip(), str(tmp_path / "b.mp4")], BlobModel(), sinks=[f"jsonl:{tmp_path / 'b.mp4'}?overwrite=1"])


def test_frames_of_a_named_source_carry_the_name() -> None:
    stamper = FrameStamper("synthetic://")
    assert stamper.stamp(clip().read().image).source_id == "synthetic://"  # type: ignore[union-attr]
    assert {result.frame.source_id for result in Pipeline({"yard": clip(3)}, BlobModel())} == {"yard"}


class OddFrames(SyntheticSource):
    """The third frame has no colours, as from a camera that switches its format."""

    def read(self) -> Frame | None:
        frame = super().read()
        return replace(frame, image=frame.image[..., 0]) if frame is not None and frame.index == 2 else frame


@pytest.mark.parametrize("policy", ["lossless", "latest"])
def test_a_frame_that_is_none_ends_its_source_and_no_other(policy: str) -> None:
    given = {"odd": OddFrames("synthetic://?frames=9"), "good": camera(200, frames=30)}
    pipeline = Pipeline([SourceConfig(source, name, policy) for name, source in given.items()], BlobModel())  # type: ignore[arg-type]
    counts: Counter[str] = Counter()
    with pytest.raises(SpecMismatch):
        for result in pipeline:
            counts[result.frame.source_id] += 1
    assert counts["good"] >= 10
    assert counts["odd"] <= 2


def test_a_gate_that_fails_ends_its_source_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    def gate(frame: Frame) -> bool:
        if frame.source_id == "bad" and frame.index >= 2:
            raise MemoryError("too much")
        return True

    counts: Counter[str] = Counter()
    pipeline = Pipeline({"bad": camera(), "good": camera(200, frames=30)}, BlobModel(), gates=[gate])
    with pytest.raises(PluginError, match="raised MemoryError"):
        for result in pipeline:
            counts[result.frame.source_id] += 1
    assert counts["good"] >= 10
    assert counts["bad"] <= 2
    states = {source.source_id: source.health.state for source in pipeline.status().sources}
    assert states == {"bad": "failed", "good": "ended"}
    assert "raised MemoryError: too much (" in caplog.text


def test_a_source_added_at_the_last_result_is_read() -> None:
    pipeline = Pipeline({"a": clip(5)}, BlobModel())
    seen = []
    for result in pipeline:
        seen.append((result.frame.source_id, result.frame.index))
        if seen[-1] == ("a", 4):
            pipeline.add_source(clip(5), "b")
    assert seen == [(name, index) for name in "ab" for index in range(5)]


def test_whoever_closes_second_waits_for_the_first() -> None:
    """The sinks are written when ``run`` returns, whoever ended the run."""
    for delay_ms in range(30):
        watcher = Watcher()
        closed = []
        watcher.close = lambda closed=closed: closed.append(True)  # type: ignore[method-assign]
        pipeline = Pipeline({"a": clip(10**6), "b": clip(10**6)}, BlobModel(), sinks=[watcher])
        closer = threading.Timer(delay_ms / 1e3, pipeline.close)
        for number, _ in enumerate(pipeline):
            if number == 0:
                closer.start()
        assert closed == [True]
        closer.join(DEADLINE_S)


def test_a_slow_sink_does_not_slow_a_camera_that_comes_later() -> None:
    class Slow(Watcher):
        def emit(self, result: Result) -> None:
            time.sleep(0.3)

    with Pipeline({"file": clip(3)}, BlobModel(), sinks=[Slow()]) as pipeline:
        pipeline.add_source(camera(100), "camera")
        start = time.monotonic()
        for number, _ in enumerate(pipeline):
            if number == 60:
                break
    assert time.monotonic() - start < 60 * 0.3 / 2
    assert pipeline.summary.sinks[0].dropped > 10


@pytest.mark.parametrize("step", ["track", Track, 3], ids=str)
def test_what_is_no_step_is_refused(step: object) -> None:
    with pytest.raises(ConfigError, match="is no step"):
        Pipeline(clip(), BlobModel(), steps=[step])  # type: ignore[list-item]


def test_a_wrong_option_of_the_last_sink_leaves_the_first_ones_file_alone(tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    kept.write_text("precious")
    sinks = [f"jsonl:{kept}?overwrite=1", f"segments:{tmp_path / 'video'}?keep_g=1"]
    with pytest.raises(ConfigError, match="keep_g"):
        Pipeline(clip(), BlobModel(), sinks=sinks)
    assert kept.read_text() == "precious"


def test_a_sink_that_cannot_open_leaves_no_empty_file_of_another(tmp_path: Path) -> None:
    with pytest.raises(SinkError):
        Pipeline(clip(), BlobModel(), sinks=[f"jsonl:{tmp_path / 'a.jsonl'}", f"jsonl:{tmp_path / 'no' / 'b.jsonl'}"])
    assert list(tmp_path.iterdir()) == []


def test_servers_may_stand_twice(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    Pipeline(clip(3), BlobModel(), sinks=["metrics:0", "metrics:0"]).run()


def test_events_reach_the_app() -> None:
    told: list[str] = []
    pipeline = Pipeline(
        {"bad": BreakingSource("synthetic://?frames=9")}, BlobModel(), on_event=lambda event: told.append(event.kind)
    )
    with pytest.raises(SourceError):
        pipeline.run()
    assert told == ["source.failed"]


def test_what_is_no_source_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"3\.5 \(float\) is no source"):
        Pipeline([clip(), 3.5], BlobModel())  # type: ignore[list-item]


def test_the_description_of_a_source_shows_no_password() -> None:
    assert "secret" not in repr(SourceConfig("rtsp://me:secret@door/1", max_age_ms=5))


def test_events_of_a_frame_that_a_later_step_drops_are_told_without_it() -> None:
    def count(result: Result) -> Result:
        return replace(result, events=(Event(kind="line.crossed", time_ns=result.frame.index),))

    def thin_out(result: Result) -> Result | None:
        return result if result.frame.index % 5 == 0 else None

    watcher, heard = Watcher(), list[Event]()
    results = list(Pipeline(clip(20), BlobModel(), steps=[count, thin_out], sinks=[watcher], on_event=heard.append))
    told = [event.time_ns for result in results for event in result.events]
    assert told == [0, 5, 10, 15]
    left = [index for index in range(20) if index % 5]
    assert [event.time_ns for event in heard] == left
    assert [event.time_ns for event in watcher.events] == left


def test_a_failed_source_is_an_alarm_and_no_other_news_is() -> None:
    heard: list[Event] = []
    with pytest.raises(SourceError):
        Pipeline({"bad": BreakingSource("synthetic://?frames=9")}, BlobModel(), on_event=heard.append).run()
    with Pipeline({"gate": Tells("synthetic://?frames=9")}, BlobModel(), on_event=heard.append) as pipeline:
        results = iter(pipeline)
        for _ in range(4):
            next(results)
        deadline = time.monotonic() + DEADLINE_S
        while len(heard) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert {event.kind: event.priority for event in heard} == {"source.failed": "alarm", "source.stale": "event"}
