"""What a pipeline costs over ``session.run`` alone, with one frame in the model at a time.

``python -m edgecv.benchmarks.lab pipeline_overhead BUNDLE VIDEO [--runtime auto] [--threads 2]
[--frames 60] [--rounds 5] [--json]``

Three things are timed in turns, in one process, on the same frames with the same session:

- ``session``: ``session.run`` on feeds that were prepared before. Nothing else runs.
- ``overlapped``: ``edgecv.Pipeline`` on the video, kept to one frame in the model at a time. The time from one result to the next.
  Reading the file and preparing the next frame go on beside the model, as they do in ``edgecv run``; decoding, steps and delivery
  come on top. ``overhead`` is this over ``session``.
- ``alone``: the same with one frame in the whole pipeline, as from a slow camera: a frame is handed out, already decoded, when the
  result before it was taken. The time from capture until the loop has the result: two hand-overs between threads,
  preparing, the model, decoding. Nothing overlaps, so ``alone_overhead`` holds the whole of preparing, too.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

import msgspec

from edgecv.benchmarks.lab.figures import print_figures
from edgecv.benchmarks.lab.replayed import first_images
from edgecv.benchmarks.process import call_module
from edgecv.model import Model, load
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.sources.frames import FrameStamper
from edgecv.protocols import Tensors
from edgecv.results import Frame, Image

OVERHEAD_LIMIT = 0.10
_WARMUP = 5
_PATIENCE_S = 30.0  # for a result; only a pipeline that hangs takes longer


class OverheadTask(msgspec.Struct, frozen=True, kw_only=True):
    """What to time; ``frames`` per round and side."""

    bundle: str
    video: str
    runtime: str = "auto"
    threads: int = 2
    frames: int = 60
    rounds: int = 5


class PipelineOverhead(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over the rounds of each round's p50 in milliseconds; the overheads are medians of the rounds' own ratios, less 1.

    Attributes:
        model: Bundle and variant.
        session_ms: ``session.run`` alone.
        overlapped_ms: From result to result.
        alone_ms: From capture to result.
        overhead: ``overlapped / session - 1``.
        alone_overhead: ``alone / session - 1``.
        rounds_ms: The three of each round.
    """

    model: str
    session_ms: float
    overlapped_ms: float
    alone_ms: float
    overhead: float
    alone_overhead: float
    rounds_ms: tuple[tuple[float, ...], ...]


class OneAtATime:
    """Images from memory, each handed out when the result before it was taken.

    Attributes:
        source_id: ``memory``.
        live: ``True``: the pipeline takes the path of a camera.
        fps: 0.0.
    """

    source_id = "memory"
    live = True
    fps = 0.0

    def __init__(self, images: Sequence[Image]) -> None:
        self._left = list(reversed(images))
        self._stamper = FrameStamper(self.source_id)
        self._wanted = threading.Semaphore(1)
        self._closed = False

    def read(self) -> Frame | None:
        """The next image, once ``want`` was called for it; ``None`` at the end."""
        if not self._wanted.acquire(timeout=_PATIENCE_S) or self._closed or not self._left:
            return None
        return self._stamper.stamp(self._left.pop())

    def want(self) -> None:
        """Let one more out."""
        self._wanted.release()

    def close(self) -> None:
        """End; a second call does nothing."""
        self._closed = True
        self._wanted.release()


def pipeline_overhead(task: OverheadTask) -> PipelineOverhead:
    """Time the three sides in turns in this process.

    Raises:
        SourceError: the video has too few frames.
        EdgeCVError: the bundle cannot be run.
    """
    with load(task.bundle, runtime=task.runtime, precision="int8", threads=task.threads) as model:
        images = first_images(task.video, task.frames + _WARMUP)
        feeds = [model.prepare(image)[0] for image in images]
        rounds = [
            (_session_ms(model, feeds), _overlapped_ms(model, task), _alone_ms(model, images))
            for _ in range(task.rounds)
        ]
        return summed_up(model.name, rounds)


def summed_up(model: str, rounds: Sequence[tuple[float, float, float]]) -> PipelineOverhead:
    """The figures of rounds of (session, overlapped, alone) milliseconds."""
    session_ms, overlapped_ms, alone_ms = (round(median(column), 3) for column in zip(*rounds, strict=True))
    return PipelineOverhead(
        model=model,
        session_ms=session_ms,
        overlapped_ms=overlapped_ms,
        alone_ms=alone_ms,
        overhead=round(median(row[1] / row[0] for row in rounds) - 1, 4),
        alone_overhead=round(median(row[2] / row[0] for row in rounds) - 1, 4),
        rounds_ms=tuple(tuple(round(ms, 3) for ms in row) for row in rounds),
    )


def overhead_in_child(task: OverheadTask) -> PipelineOverhead:
    """The same in a process of its own."""
    answer = call_module("edgecv.benchmarks.lab", "pipeline_overhead", "--child=" + msgspec.json.encode(task).decode())
    return msgspec.json.decode(answer, type=PipelineOverhead)


def _session_ms(model: Model, feeds: Sequence[Tensors]) -> float:
    times: list[float] = []
    for feed in feeds:
        start_ns = time.perf_counter_ns()
        model.session.run(feed)
        times.append((time.perf_counter_ns() - start_ns) / 1e6)
    return median(times[_WARMUP:])


def _overlapped_ms(model: Model, task: OverheadTask) -> float:
    pipeline = Pipeline(task.video, model, max_frames=task.frames + _WARMUP)
    # A file has two frames in flight otherwise, which is another question.
    pipeline._loop._in_flight.count = 1
    with pipeline:
        marks_ns = [time.perf_counter_ns() for _ in pipeline]
    return median((end - start) / 1e6 for start, end in pairwise(marks_ns[_WARMUP:]))


def _alone_ms(model: Model, images: Sequence[Image]) -> float:
    source = OneAtATime(images)
    times: list[float] = []
    with Pipeline(source, model) as pipeline:
        for result in pipeline:
            times.append((time.monotonic_ns() - result.frame.monotonic_ns) / 1e6)
            source.want()
    return median(times[_WARMUP:])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m edgecv.benchmarks.lab pipeline_overhead", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("video", type=Path, nargs="?")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        found = pipeline_overhead(msgspec.json.decode(given.child, type=OverheadTask))
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        return
    if given.bundle is None or given.video is None:
        parser.error("BUNDLE and VIDEO are needed")
    task = OverheadTask(
        bundle=str(given.bundle),
        video=str(given.video),
        runtime=given.runtime,
        threads=given.threads,
        frames=given.frames,
        rounds=given.rounds,
    )
    print_figures(msgspec.to_builtins(overhead_in_child(task)), given.json)
