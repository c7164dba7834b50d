"""What is measured: functions ``(bundle path, options) -> Report``, named by the registry kind ``scenarios``.

They measure the process they run in, memory included: call them through ``edgecv.benchmarks.run``, which gives each its own.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from edgecv import registry
from edgecv._internal.timing import StageTimer
from edgecv.benchmarks.images import read_images, rendered_images
from edgecv.benchmarks.memory import read_memory
from edgecv.benchmarks.report import Report
from edgecv.benchmarks.statistics import describe_stages
from edgecv.choosing import float_precision
from edgecv.devices.detect import detect
from edgecv.errors import ConfigError
from edgecv.model import Model, load
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.uris import parse_source
from edgecv.results import Image
from edgecv.version import __version__

RENDERED = "rendered"  # what a report calls the images of `rendered_images`


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """How a scenario is measured."""

    runtime: str = "auto"  # `auto` or a registered runtime
    precision: str = "auto"  # `auto`, `fp32`, `fp16` or `int8`
    threads: int = 0  # threads of the session; 0 lets the runtime choose
    runs: int = 100  # runs or frames that count, from 1 on
    warmup: int = 10  # runs or frames before the first that counts
    source: str | None = None  # URI of the images, as in `edgecv run --source`; `None` for the scenario's own

    def __post_init__(self) -> None:
        if self.runs < 1 or self.warmup < 0:
            raise ConfigError(f"runs start at 1 and warmup at 0, not {self.runs} and {self.warmup}.")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Measured:
    """Stage times of every frame that counts, and how long they took together."""

    stages_ms: Sequence[Mapping[str, float]]
    elapsed_s: float
    source: str


def single_stream(bundle: str | Path, options: BenchOptions) -> Report:
    """One image after the other through ``model(image)``, nothing beside it: the latency of a call.

    The images, rendered shapes at 1280×720 by default, are in memory before the first run.

    Raises:
        EdgeCVError: the bundle cannot be loaded or run, or the source gives no images.
    """
    started = _now()
    with _load(bundle, options) as model:
        images = read_images(options.source) if options.source else rendered_images()
        for image in islice(cycle(images), options.warmup):
            _time_call(model, image)
        start = time.perf_counter()
        times = [_time_call(model, image) for image in islice(cycle(images), options.runs)]
        elapsed_s = time.perf_counter() - start
        source = parse_source(options.source).name if options.source else RENDERED
        measured = _Measured(stages_ms=times, elapsed_s=elapsed_s, source=source)
        return _report("single_stream", model, options, measured, started)


def pipeline(bundle: str | Path, options: BenchOptions) -> Report:
    """A source through ``edgecv.Pipeline``: what an app sees, reading, waiting and the age of results included.

    Raises:
        EdgeCVError: the bundle or the source cannot be opened, or the source ends during warm-up.
    """
    started = _now()
    frames = options.warmup + options.runs
    source = options.source or f"synthetic://?frames={frames}&width=1280&height=720"
    with _load(bundle, options) as model:
        times: list[Mapping[str, float]] = []
        marks = [time.perf_counter()]
        with Pipeline(source, model, max_frames=frames) as loop:
            for result in loop:
                times.append({**result.timings_ms, "age": result.age_ms})
                marks.append(time.perf_counter())
        if len(times) <= options.warmup:
            raise ConfigError(
                f"The source ended after {len(times)} frames, {options.warmup} of them for warm-up.",
                "Give a longer source, or a smaller --warmup.",
            )
        elapsed_s = marks[-1] - marks[options.warmup]
        measured = _Measured(stages_ms=times[options.warmup :], elapsed_s=elapsed_s, source=parse_source(source).name)
        return _report("pipeline", model, options, measured, started)


def runtime_of(model: Model) -> str:
    """Registered name of the runtime that runs a model, without importing the others."""
    session_type = type(model.session)
    target = f"{session_type.__module__}:{session_type.__qualname__}"
    named = (name for name in registry.names("runtimes") if registry.place("runtimes", name) == target)
    return next(named, session_type.__qualname__)


def _load(bundle: str | Path, options: BenchOptions) -> Model:
    model = load(bundle, runtime=options.runtime, precision=options.precision, threads=options.threads)
    if not isinstance(model, Model):
        model.close()
        raise ConfigError(
            f"{model.name} answers prompts; bench measures detectors and classifiers.", "edgecv info shows its latency."
        )
    return model


def _time_call(model: Model, image: Image) -> dict[str, float]:
    """The three parts of ``model(image)``, and ``total``."""
    timer = StageTimer()
    with timer.stage("preprocess"):
        feeds, transform = model.prepare(image)
    with timer.stage("inference"):
        outputs = model.infer(feeds)
    with timer.stage("postprocess"):
        model.decode(outputs, transform)
    times = timer.as_ms()
    return {**times, "total": sum(times.values())}


def _report(scenario: str, model: Model, options: BenchOptions, measured: _Measured, started: str) -> Report:
    memory = read_memory()
    return Report(
        scenario=scenario,
        bundle=model.bundle.name if model.bundle else model.name,
        variant=model.variant.name if model.variant else "",
        runtime=runtime_of(model),
        options={name: value for name, value in asdict(options).items() if name != "source"},  # it may hold a password
        source=measured.source,
        warmup=options.warmup,
        runs=len(measured.stages_ms),
        stages=describe_stages(measured.stages_ms),
        fps=round(len(measured.stages_ms) / measured.elapsed_s, 3),
        rss_bytes=memory.rss_bytes,
        pss_bytes=memory.pss_bytes,
        peak_rss_bytes=memory.peak_rss_bytes,
        device=detect().as_dict(),
        versions={"edgecv": __version__, "python": platform.python_version(), "numpy": np.__version__},
        started=started,
        float_precision=float_precision(model.session),
    )


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
