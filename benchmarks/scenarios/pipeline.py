"""``pipeline``: what an app sees, from the source to the result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgecv import registry
from edgecv.benchmarks.bare import BareFile
from edgecv.benchmarks.images import Rotation
from edgecv.benchmarks.machine.watch import Watch
from edgecv.benchmarks.options import BenchOptions, StopRule
from edgecv.benchmarks.report import Report
from edgecv.benchmarks.scenarios.measured import Measured, now, report_of
from edgecv.benchmarks.scenarios.subject import opened
from edgecv.benchmarks.scenarios.warm_up import WarmUp
from edgecv.benchmarks.statistics import FEWEST_FOR_P99
from edgecv.errors import ConfigError
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.uris import parse_source

Times = list[Mapping[str, float]]


def pipeline(bundle: str | Path, options: BenchOptions) -> Report:
    """A source through ``edgecv.Pipeline``: what an app sees, reading, waiting and the age of results included.

    Without a source the images are those of ``single_stream``, handed in from memory.

    Raises:
        EdgeCVError: the bundle or the source cannot be opened, or the source ends during warm-up.
    """
    started = now()
    with opened(bundle, replace(options, source=None), 1 if _is_camera(options.source) else 2) as subject:
        if isinstance(subject.model, BareFile):
            raise ConfigError(
                f"{subject.path.name} says nothing about its labels and input, so a pipeline cannot run it.",
                "Measure its session: --scenario single_stream",
            )
        source = options.source or Rotation(subject.source, subject.images)
        warm = WarmUp(options)
        with Pipeline(source, subject.model) as loop:
            watch = Watch(options.longest_idle_wait_s)
            times, elapsed_s = _times_of(loop, warm, StopRule.of(options, FEWEST_FOR_P99), watch)
        name = parse_source(options.source).name if options.source else subject.source
        measured = Measured(
            stages_ms=times,
            elapsed_s=elapsed_s,
            headline="",
            plotted="age",
            source=name,
            note=overlap(times, len(times) / elapsed_s),
        )
        return report_of("pipeline", subject, options, measured, watch, warm, started)


def overlap(times: Times, fps: float) -> str:
    """Why ``inference`` takes longer than one frame period, where it does."""
    inference = sorted(run["inference"] for run in times if "inference" in run)
    if not inference or (middle := inference[len(inference) // 2]) * fps <= 1050:
        return ""
    return (
        f"Inference takes {middle:.1f} ms although a result comes every {1000 / fps:.1f} ms ({fps:.1f} per second): "
        "two frames are in the model at the same time and share the processors."
    )


def _times_of(loop: Pipeline, warm: WarmUp, rule: StopRule, watch: Watch) -> tuple[Times, float]:
    """Stage times of every frame that counts, and how long they took together."""
    watch.begin()
    times: Times = []
    seen, start, elapsed_s = 0, time.perf_counter(), 0.0
    for result in loop:
        seen += 1
        if not warm.done:
            if warm.add(sum(result.timings_ms.values())):
                watch.begin()
                start = time.perf_counter()
            continue
        times.append({**result.timings_ms, "age": result.age_ms})
        elapsed_s = time.perf_counter() - start
        watch.tick()
        if rule.enough(len(times), elapsed_s):
            break
    if not times:
        raise ConfigError(
            f"The source ended after {seen} frames, all of them for warm-up.",
            "Give a longer source, or a smaller --warmup.",
        )
    return times, elapsed_s


def _is_camera(source: str | None) -> bool:
    """Whether a source is read in a process of its own, as cameras are: there the newest frame counts, one at a time."""
    if source is None:
        return False
    return registry.resolve("sources", parse_source(source).scheme).supervised
