"""From measured times to a report."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from statistics import median

import numpy as np

from edgecv.benchmarks.machine.comparability import comparability, model_hash
from edgecv.benchmarks.machine.watch import Watch
from edgecv.benchmarks.memory import read_memory
from edgecv.benchmarks.options import BenchOptions
from edgecv.benchmarks.report import Report, Sustained
from edgecv.benchmarks.scenarios.subject import Subject
from edgecv.benchmarks.scenarios.warm_up import WarmUp
from edgecv.benchmarks.statistics import describe_stages
from edgecv.choosing import computed_on, float_precision
from edgecv.devices.detect import detect
from edgecv.version import __version__

_MOST_TIMES = 2000
_FEWEST_FOR_DRIFT = 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """What a scenario measured.

    Attributes:
        stages_ms: Stage times of every run that counts.
        elapsed_s: How long they took together.
        headline: The stage by which reports are compared; empty where ``fps`` is the figure.
        plotted: The stage whose times the report keeps; the headline by default.
        source: Where the images came from.
        images_per_run: How many images a run takes.
        note: What a reader of the figures should know.
        sustained: What a long run shows.
    """

    stages_ms: Sequence[Mapping[str, float]]
    elapsed_s: float
    headline: str
    source: str
    plotted: str = ""
    images_per_run: int = 1
    note: str = ""
    sustained: Sustained | None = None


def now() -> str:
    """This moment, UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def report_of(
    scenario: str,
    subject: Subject,
    options: BenchOptions,
    measured: Measured,
    watch: Watch,
    warm: WarmUp,
    started: str,
) -> Report:
    """The report of a scenario; it ends the watch over the machine."""
    plotted = measured.plotted or measured.headline
    times = [run[plotted] for run in measured.stages_ms]
    memory = read_memory()
    quality = watch.end(settled=warm.settled, drift=None if measured.sustained else drift(times))
    device = detect()
    return Report(
        scenario=scenario,
        bundle=subject.bundle.name if subject.bundle else subject.model.name,
        variant=subject.variant,
        runtime=subject.runtime,
        options={name: value for name, value in asdict(options).items() if name != "source"},  # it may hold a password
        source=measured.source,
        warmup=warm.runs,
        runs=len(measured.stages_ms),
        images_per_run=measured.images_per_run,
        stages=describe_stages(measured.stages_ms),
        headline=measured.headline,
        fps=round(len(measured.stages_ms) * measured.images_per_run / measured.elapsed_s, 3),
        init_ms=subject.init_ms,
        first_ms=round(warm.first_ms, 3),
        times_of=plotted,
        times_ms=thinned(times),
        readings=tuple(watch.readings),
        rss_bytes=memory.rss_bytes,
        pss_bytes=memory.pss_bytes,
        peak_rss_bytes=memory.peak_rss_bytes,
        quality=quality,
        comparability=comparability(
            device, subject.runtime, model_hash(subject.path), subject.threads, options.device.lower()
        ),
        device=device.as_dict(),
        versions={"edgecv": __version__, "python": platform.python_version(), "numpy": np.__version__},
        started=started,
        float_precision=float_precision(subject.model.session),
        computed_on="" if options.device == "cpu" else computed_on(subject.model.session),
        sustained=measured.sustained,
        note=measured.note,
    )


def thinned(times: Sequence[float], most: int = _MOST_TIMES) -> tuple[float, ...]:
    """At most so many of the times, evenly spread over their order."""
    if len(times) <= most:
        return tuple(round(ms, 3) for ms in times)
    return tuple(round(times[number * len(times) // most], 3) for number in range(most))


def drift(times: Sequence[float]) -> float | None:
    """By which part the median of the second half is above that of the first; ``None`` where the times are too few."""
    if len(times) < _FEWEST_FOR_DRIFT:
        return None
    half = len(times) // 2
    return median(times[half:]) / median(times[:half]) - 1
