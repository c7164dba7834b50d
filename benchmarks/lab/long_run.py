"""Whether memory grows over a long run with everything on: tracker, zone, line, JSON lines, and a preview that somebody watches.

``python -m edgecv.benchmarks.lab long_run --bundle B.ecv [--video vtest.avi] [--frames 20000] [--json]``

The video is read over and over, every frame decoded anew; a thread reads the preview's MJPEG stream as a browser does. Resident
memory of the process and its children is noted every so many frames; the slope is that of least squares after the warm-up.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np

from edgecv.benchmarks.lab.figures import print_figures
from edgecv.benchmarks.lab.process_tree import tree_rss_bytes
from edgecv.benchmarks.lab.replayed import EndlessVideo
from edgecv.errors import ConfigError, EdgeCVError
from edgecv.model import Model, load
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.sinks import open_sink
from edgecv.pipelines.steps.options import step_type
from edgecv.protocols import Step
from edgecv.results import Result

SLOPE_LIMIT_MB = 1.0  # per 10,000 frames
_LOOKS = 400  # at the memory, over the whole run
_WARMUP_PART = 0.2
_LOWEST_CONFIDENCE = 0.1  # what the tracker makes use of
_STEPS: Sequence[tuple[str, dict[str, Any]]] = (
    ("track", {}),
    ("zone", {"name": "middle", "points": ((0.2, 0.2), (0.8, 0.2), (0.8, 0.9), (0.2, 0.9)), "units": "relative"}),
    ("line", {"name": "across", "points": ((0.0, 0.6), (1.0, 0.6)), "units": "relative"}),
)
_SHARED = Path(__file__).resolve().parents[2] / "../shared"
_TIMEOUT_S = 10.0


class LongRun(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a run.

    Attributes:
        frames: Frames that went through.
        seconds: How long they took.
        fps: ``frames / seconds``.
        slope_mb_per_10k: Least-squares slope of the resident memory in MB of 10^6 bytes per 10,000 frames, after the warm-up.
        rss_mb: Resident memory when the warm-up ended, and at the end.
        peak_rss_mb: The most that was noted.
        tracks: Ids that the tracker gave.
        events: Events of the zone and the line.
        images: Images that the watcher of the preview got.
        samples: Frame number and resident memory in MB, one in ten of those noted.
    """

    frames: int
    seconds: float
    fps: float
    slope_mb_per_10k: float
    rss_mb: tuple[float, float]
    peak_rss_mb: float
    tracks: int
    events: int
    images: int
    samples: tuple[tuple[int, float], ...]


class StreamWatcher:
    """Reads the MJPEG stream of a preview page in a thread, and counts its images."""

    def __init__(self, url: str) -> None:
        """Begin; ``url`` is that of the page."""
        address = urlsplit(url)
        self._host, self._port = address.hostname or "127.0.0.1", address.port
        self._stopping = threading.Event()
        self.images = 0
        self._thread = threading.Thread(target=self._run, name="stream-watcher", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._stopping.set()
        self._thread.join(_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stopping.wait(0.2):
            # The page is there before the first image; it may close before this thread does.
            with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
                self._watch()

    def _watch(self) -> None:
        sources = json.loads(self._get("/api/status").read())["sources"]
        if not sources:
            return
        stream = self._get(f"/stream/{sources[0]['key']}")
        while not self._stopping.is_set() and (line := stream.readline(65536)):
            self.images += line.lower().startswith(b"content-type: image/jpeg")

    def _get(self, path: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        connection.request("GET", path)
        return connection.getresponse()


def long_run(model: Model, video: Path, frames: int, folder: Path) -> LongRun:
    """Run ``frames`` frames of the video through a pipeline that has everything; files go to ``folder``.

    Raises:
        EdgeCVError: a part of the pipeline failed or had nothing to do: the figure would mean nothing.
    """
    preview: Any = open_sink("preview:0")
    sinks = [preview, f"jsonl:{folder / 'results.jsonl'}"]
    every = max(1, frames // _LOOKS)
    watcher = StreamWatcher(preview.url)
    rss: list[tuple[int, int]] = []
    seen = _Seen()
    start_s = time.monotonic()
    try:
        pipeline = Pipeline(
            EndlessVideo(video),
            model,
            steps=steps(model.labels),
            sinks=sinks,
            confidence=_LOWEST_CONFIDENCE,
            max_frames=frames,
        )
        with pipeline:
            for number, result in enumerate(pipeline, start=1):
                seen.add(result)
                if number % every == 0:
                    rss.append((number, tree_rss_bytes(os.getpid())))
        seconds = time.monotonic() - start_s
    finally:
        watcher.close()
    if not (watcher.images and seen.newest_id and seen.events):
        raise EdgeCVError(
            f"Not everything was at work: {watcher.images} images, {seen.newest_id} tracks, {seen.events} events.",
            "Run for longer, or take a video in which something moves.",
        )
    return summed_up(rss, frames, seconds, tracks=seen.newest_id, events=seen.events, images=watcher.images)


def steps(labels: tuple[str, ...]) -> list[Step]:
    """Tracker, zone and line, made as ``edgecv run --config`` makes them.

    Raises:
        UnknownPlugin: a step is missing.
    """
    return [step_type(name)(**options).build(labels) for name, options in _STEPS]


def summed_up(
    rss: Sequence[tuple[int, int]], frames: int, seconds: float, *, tracks: int, events: int, images: int
) -> LongRun:
    """The figures of noted (frame, bytes).

    Raises:
        ConfigError: too few were noted.
    """
    counted = [(number, size / 1e6) for number, size in rss if number > frames * _WARMUP_PART]
    if len(counted) < 3:
        raise ConfigError(f"Memory was noted {len(counted)} times: too few for a slope.", "Ask for more --frames.")
    slope = float(np.polyfit([number for number, _ in counted], [mb for _, mb in counted], 1)[0])
    return LongRun(
        frames=frames,
        seconds=round(seconds, 1),
        fps=round(frames / seconds, 2),
        slope_mb_per_10k=round(slope * 1e4, 3),
        rss_mb=(round(counted[0][1], 1), round(counted[-1][1], 1)),
        peak_rss_mb=round(max(size for _, size in rss) / 1e6, 1),
        tracks=tracks,
        events=events,
        images=images,
        samples=tuple((number, round(size / 1e6, 2)) for number, size in rss[::10]),
    )


class _Seen:
    """What the steps gave, counted in no memory."""

    def __init__(self) -> None:
        self.newest_id = self.events = 0

    def add(self, result: Result) -> None:
        ids = result.detections.tracker_id if result.detections is not None else None
        if ids is not None and len(ids):
            self.newest_id = max(self.newest_id, int(ids.max()))
        self.events += len(result.events)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m edgecv.benchmarks.lab long_run", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--video", type=Path, default=_SHARED / "data/vtest.avi")
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        load(given.bundle, runtime=given.runtime, precision=given.precision, threads=given.threads) as model,
    ):
        found = long_run(model, given.video, given.frames, Path(folder))
    met = found.slope_mb_per_10k <= SLOPE_LIMIT_MB
    print_figures({"model": model.name, **msgspec.to_builtins(found), "slope_met": met}, given.json)
