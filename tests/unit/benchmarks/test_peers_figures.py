"""The figures of a pipeline: overhead, many cameras, memory over a long run."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from edgecv import registry
from edgecv.benchmarks.lab import long_run, many_cameras, pipeline_overhead
from edgecv.benchmarks.lab.many_cameras import Seen
from edgecv.benchmarks.lab.pipeline_overhead import OneAtATime, OverheadTask
from edgecv.benchmarks.lab.replayed import EndlessVideo, ReplayedCamera, first_images
from edgecv.errors import ConfigError, SourceError
from edgecv.media.video_writer import VideoWriter
from edgecv.model import load
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.source_config import SourceConfig
from tests.unit.benchmarks.tiny_bundle import write_bundle

_FRAMES = 12


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "tiny.ecv")


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    writer = VideoWriter(path, 25.0)
    for number in range(_FRAMES):
        writer.write(np.full((48, 64, 3), number * 20, np.uint8), number / 25)
    writer.close()
    return path


def test_an_endless_video_begins_again_and_numbers_on(video: Path):
    source = EndlessVideo(video)
    frames = [source.read() for _ in range(2 * _FRAMES + 1)]
    source.close()
    assert [frame.index for frame in frames if frame] == list(range(2 * _FRAMES + 1))
    assert np.array_equal(frames[0].image, frames[_FRAMES].image)


def test_a_replayed_camera_keeps_its_rate_and_has_no_backlog():
    camera = ReplayedCamera("a", [np.zeros((16, 16, 3), np.uint8)], fps=50)
    start_s = time.monotonic()
    for _ in range(11):
        assert camera.read() is not None
    assert time.monotonic() - start_s >= 10 / 50 - 0.01
    time.sleep(0.5)  # 25 images are missed
    late_s = time.monotonic()
    for _ in range(11):
        camera.read()
    assert time.monotonic() - late_s >= 8 / 50
    camera.close()
    assert camera.read() is None


def test_a_video_that_is_too_short_says_so(video: Path):
    with pytest.raises(SourceError, match=f"has {_FRAMES} frames of 50"):
        first_images(video, 50)


def test_one_at_a_time_has_never_two_frames_in_the_pipeline(bundle: Path):
    source = OneAtATime([np.full((48, 64, 3), grey, np.uint8) for grey in range(0, 100, 10)])
    captured_ns, asked_ns = [], []
    with load(bundle, precision="int8", threads=1) as model, Pipeline(source, model) as pipeline:
        for result in pipeline:
            captured_ns.append(result.frame.monotonic_ns)
            time.sleep(0.02)  # a frame that were let out before `want` would be captured now
            asked_ns.append(time.monotonic_ns())
            source.want()
    assert len(captured_ns) == 10
    assert all(captured >= asked for captured, asked in zip(captured_ns[1:], asked_ns[:-1], strict=True))


def test_overheads_are_medians_of_the_rounds_own_ratios():
    found = pipeline_overhead.summed_up("m", [(10, 11, 12), (20, 21, 40), (10, 30, 13)])
    assert (found.session_ms, found.overlapped_ms, found.alone_ms) == (10, 21, 13)
    assert (found.overhead, found.alone_overhead) == (0.1, 0.3)


def test_the_overhead_of_a_real_pipeline_is_timed_in_a_process_of_its_own(bundle: Path, video: Path):
    found = pipeline_overhead.overhead_in_child(
        OverheadTask(bundle=str(bundle), video=str(video), threads=1, frames=6, rounds=2)
    )
    assert len(found.rounds_ms) == 2
    assert min(found.session_ms, found.overlapped_ms, found.alone_ms) > 0


def _seen(age_of, seconds: float = 100.0, cameras=("a", "b"), every_s: float = 0.1) -> list[Seen]:
    times = np.arange(0, seconds, every_s)
    return [
        Seen(camera=cameras[number % len(cameras)], at_s=float(at_s), age_ms=age_of(at_s), inference_ms=20.0)
        for number, at_s in enumerate(times)
    ]


def test_results_that_grow_older_are_seen():
    found = many_cameras.summed_up(_seen(lambda at_s: 50 + at_s), ["a", "b"], 10.0, 100.0, {})
    assert found.slope_ms_per_minute == pytest.approx(60, rel=0.01)
    assert found.growth == pytest.approx(139.95 / 60.0 - 1, rel=0.02)
    assert found.age_over_session == pytest.approx(found.age_p99_ms / 10, rel=0.01)
    assert found.age_over_inference == pytest.approx(found.age_p99_ms / 20, rel=0.01)


def test_results_that_stay_young_do_not_grow():
    found = many_cameras.summed_up(_seen(lambda _: 50.0), ["a", "b"], 10.0, 100.0, {"latest": 3})
    assert (found.growth, found.slope_ms_per_minute, found.age_over_session) == (0, pytest.approx(0, abs=1e-3), 5.0)
    assert (found.saturated, found.fps, found.dropped) == (True, pytest.approx(10, rel=0.01), {"latest": 3})


@pytest.mark.parametrize(
    ("turns", "names", "fairness"),
    [(("a", "b"), ("a", "b"), 1.0), (("a", "a", "b"), ("a", "b"), 2 / 3), (("a", "b"), ("a", "b", "c"), 0.0)],
)
def test_fairness_is_the_slowest_rate_over_the_mean(turns, names, fairness):
    seen = _seen(lambda _: 50.0, cameras=turns)
    assert many_cameras.summed_up(seen, names, 10.0, 100.0, {}).fairness == pytest.approx(fairness, abs=0.01)


def test_one_result_is_no_run():
    with pytest.raises(ConfigError, match="too few"):
        many_cameras.summed_up(_seen(lambda _: 1.0)[:1], ["a"], 1.0, 1.0, {})


@pytest.mark.parametrize("replay", [False, True])
def test_every_camera_of_a_real_pipeline_is_counted(bundle: Path, video: Path, replay: bool):
    sources = many_cameras.cameras(3, 40.0, None)
    if replay:
        images = first_images(video, _FRAMES)
        sources = {name: ReplayedCamera(name, images, 40.0) for name in sources}
    with load(bundle, precision="int8", threads=1) as model:
        pipeline = Pipeline([SourceConfig(source, name, "latest") for name, source in sources.items()], model)
        seen = list(many_cameras.watch(pipeline, seconds=1.0, settle_s=0.1))
    assert {one.camera for one in seen} == {"camera-1", "camera-2", "camera-3"}
    assert many_cameras.summed_up(seen, list(sources), 1.0, 120.0, {}).fairness > 0.3


def test_the_slope_of_memory_leaves_the_warm_up_out():
    rss = [
        (number, 300_000_000 if number <= 4000 else 100_000_000 + number * 500) for number in range(100, 20_001, 100)
    ]
    found = long_run.summed_up(rss, 20_000, 400.0, tracks=1, events=1, images=1)
    assert found.slope_mb_per_10k == pytest.approx(5.0)
    assert found.rss_mb == pytest.approx((102.05, 110.0), abs=0.06)
    assert found.peak_rss_mb == 300.0


def test_a_slope_needs_three_looks():
    with pytest.raises(ConfigError, match="too few"):
        long_run.summed_up([(1, 1), (2, 2)], 2, 1.0, tracks=1, events=1, images=1)


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        if self.path == "/api/status":
            self.wfile.write(b'{"sources": [{"key": "k1"}]}')
        elif self.path == "/stream/k1":
            for _ in range(5):
                self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8\xff\xd9\r\n")

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_the_watcher_counts_the_images_of_a_stream():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    watcher = long_run.StreamWatcher(f"http://127.0.0.1:{server.server_port}/")
    deadline_s = time.monotonic() + 20
    while watcher.images < 5 and time.monotonic() < deadline_s:
        time.sleep(0.02)
    watcher.close()
    server.shutdown()
    server.server_close()
    thread.join(10)
    assert watcher.images >= 5


@pytest.mark.skipif(
    "track" not in registry.names("steps") or "preview" not in registry.names("sinks"),
    reason="the tracker or the preview page is not in this checkout",
)
def test_a_long_run_has_everything_at_work(bundle: Path, video: Path, tmp_path: Path):
    with load(bundle, precision="int8", threads=1) as model:
        found = long_run.long_run(model, video, 500, tmp_path)
    assert (found.frames, found.tracks > 0, found.events > 0, found.images > 0) == (500, True, True, True)
