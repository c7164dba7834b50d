"""``single_stream``: the latency of a call, and ``sustained``: what remains of it after minutes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

from edgecv.benchmarks.machine.watch import Watch
from edgecv.benchmarks.options import SUSTAINED_S, BenchOptions, StopRule
from edgecv.benchmarks.report import Report
from edgecv.benchmarks.scenarios.measured import Measured, now, report_of
from edgecv.benchmarks.scenarios.subject import Subject, opened
from edgecv.benchmarks.scenarios.sustained import Minutes
from edgecv.benchmarks.scenarios.warm_up import WarmUp
from edgecv.benchmarks.statistics import FEWEST_FOR_P90


def single_stream(bundle: str | Path, options: BenchOptions) -> Report:
    """One image after the other through ``model(image)``, nothing beside it: the latency of a call.

    The images are in memory before the first run.

    Raises:
        EdgeCVError: the bundle cannot be loaded or run, or the source gives no images.
    """
    started = now()
    with opened(bundle, options) as subject:
        watch = Watch(options.longest_idle_wait_s)
        images = cycle(subject.images)
        warm = WarmUp(options).run(lambda _number: subject.time_call(next(images))["total"])
        rule = StopRule.of(options, FEWEST_FOR_P90)
        times, elapsed_s = time_calls(subject, rule, watch)
        measured = Measured(stages_ms=times, elapsed_s=elapsed_s, headline="total", source=subject.source)
        return report_of("single_stream", subject, options, measured, watch, warm, started)


def sustained(bundle: str | Path, options: BenchOptions) -> Report:
    """``single_stream`` for ten minutes, told minute by minute: what heat leaves of the speed.

    Raises:
        EdgeCVError: as ``single_stream``.
    """
    started = now()
    with opened(bundle, options) as subject:
        watch = Watch(options.longest_idle_wait_s)
        images = cycle(subject.images)
        warm = WarmUp(options).run(lambda _number: subject.time_call(next(images))["total"])
        rule = StopRule.of(options, FEWEST_FOR_P90, SUSTAINED_S)
        minutes = Minutes(rule.seconds)
        times, elapsed_s = time_calls(subject, rule, watch, minutes.add)
        measured = Measured(
            stages_ms=times,
            elapsed_s=elapsed_s,
            headline="total",
            source=subject.source,
            sustained=minutes.end(elapsed_s),
        )
        return report_of("sustained", subject, options, measured, watch, warm, started)


def time_calls(
    subject: Subject, rule: StopRule, watch: Watch, seen: Callable[[float, float], None] | None = None
) -> tuple[list[dict[str, float]], float]:
    """Stage times of one call after the other until the rule is met, and how long they took.

    ``seen`` is told the seconds since the start and the milliseconds of every call.
    """
    watch.begin()
    times: list[dict[str, float]] = []
    start = time.perf_counter()
    elapsed_s = 0.0
    for one in _calls(subject):
        elapsed_s = time.perf_counter() - start
        times.append(one)
        watch.tick()
        if seen is not None:
            seen(elapsed_s, one["total"])
        if rule.enough(len(times), elapsed_s):
            break
    return times, elapsed_s


def _calls(subject: Subject) -> Iterator[dict[str, float]]:
    for image in cycle(subject.images):
        yield subject.time_call(image)
