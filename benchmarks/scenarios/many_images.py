"""``multi_stream`` and ``offline``: several images at once, two of them in the model at a time, as in ``edgecv run``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

from edgecv.benchmarks.machine.watch import Watch
from edgecv.benchmarks.options import BenchOptions, StopRule
from edgecv.benchmarks.report import Report
from edgecv.benchmarks.scenarios.measured import Measured, now, report_of
from edgecv.benchmarks.scenarios.subject import Subject, opened
from edgecv.benchmarks.scenarios.warm_up import WarmUp
from edgecv.benchmarks.statistics import FEWEST_FOR_P99
from edgecv.results import Image

LANES = 2
_MLPERF_IMAGES = 24_576
_WAITING = 2 * LANES  # images that are handed over before the oldest is done


def multi_stream(bundle: str | Path, options: BenchOptions) -> Report:
    """Queries of several images, such as one of each camera, the next when the last is answered.

    MLPerf takes 8 images; ours are ``options.streams``, 4 by default.

    Raises:
        EdgeCVError: the bundle cannot be loaded or run, or the source gives no images.
    """
    started = now()
    with opened(bundle, options, LANES) as subject, ThreadPoolExecutor(LANES) as lanes:
        watch = Watch(options.longest_idle_wait_s)
        images = cycle(subject.images)

        def query() -> dict[str, float]:
            return _query(subject, lanes, list(islice(images, options.streams)))

        warm = WarmUp(options).run(lambda _number: query()["query"])
        rule = StopRule.of(options, FEWEST_FOR_P99)
        watch.begin()
        times: list[dict[str, float]] = []
        start, elapsed_s = time.perf_counter(), 0.0
        while not times or not rule.enough(len(times), elapsed_s):
            times.append(query())
            elapsed_s = time.perf_counter() - start
            watch.tick()
        measured = Measured(
            stages_ms=times,
            elapsed_s=elapsed_s,
            headline="query",
            source=subject.source,
            images_per_run=options.streams,
            note=f"A query is {options.streams} images, {LANES} of them in the model at a time; MLPerf takes 8.",
        )
        return report_of("multi_stream", subject, options, measured, watch, warm, started)


def offline(bundle: str | Path, options: BenchOptions) -> Report:
    """All images at once, in any order: how many the device computes in a second.

    Raises:
        EdgeCVError: as ``multi_stream``.
    """
    started = now()
    with opened(bundle, options, LANES) as subject, ThreadPoolExecutor(LANES) as lanes:
        watch = Watch(options.longest_idle_wait_s)
        images = cycle(subject.images)
        warm = WarmUp(options).run(lambda _number: subject.time_call(next(images))["total"])
        rule = StopRule.of(options, _MLPERF_IMAGES)
        watch.begin()
        times: list[dict[str, float]] = []
        start, elapsed_s = time.perf_counter(), 0.0
        for one in _all_at_once(subject, lanes, images):
            times.append(one)
            elapsed_s = time.perf_counter() - start
            watch.tick()
            if rule.enough(len(times), elapsed_s):
                break
        measured = Measured(
            stages_ms=times,
            elapsed_s=elapsed_s,
            headline="",
            plotted="total",
            source=subject.source,
            note=f"Frames per second are the figure: {LANES} images share the processors, so that each takes longer.",
        )
        return report_of("offline", subject, options, measured, watch, warm, started)


def _query(subject: Subject, lanes: ThreadPoolExecutor, images: list[Image]) -> dict[str, float]:
    start = time.perf_counter()
    list(lanes.map(subject.time_call, images))
    return {"query": (time.perf_counter() - start) * 1e3}


def _all_at_once(subject: Subject, lanes: ThreadPoolExecutor, images: Iterator[Image]) -> Iterator[dict[str, float]]:
    """Stage times of one image after the other; the lanes never wait for the one who asks."""
    waiting: list[Future[dict[str, float]]] = []
    for image in images:
        waiting.append(lanes.submit(subject.time_call, image))
        if len(waiting) > _WAITING:
            yield waiting.pop(0).result()
