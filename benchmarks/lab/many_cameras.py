"""Many cameras in one pipeline that cannot look at every frame: how old results are, whether they grow older, who gets fewer.

``python -m edgecv.benchmarks.lab many_cameras --bundle B.ecv [--cameras 4] [--fps 25]
[--seconds 300] [--video vtest.avi] [--json]``

The cameras are synthetic ones, or replay the first images of ``--video`` from memory: then there is something to find. Rates are
judged only when the model is too slow for all frames; ``saturated`` says whether it was.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec
import numpy as np

from edgecv.benchmarks.lab.figures import print_figures
from edgecv.benchmarks.lab.replayed import ReplayedCamera, first_images
from edgecv.benchmarks.statistics import percentile
from edgecv.errors import ConfigError
from edgecv.model import Model, load
from edgecv.pipelines.pipeline import Pipeline
from edgecv.pipelines.source_config import SourceConfig
from edgecv.protocols import Source

AGE_LIMIT = 8.0  # times the inference time
FAIRNESS_LIMIT = 0.9
_SIZE_WH = (768, 576)
_IMAGES = 40  # of a replayed video; they stay in memory
_SETTLE_S = 3.0  # before results count
_ALONE_RUNS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One result: which camera, when it was taken from the pipeline (seconds from the start), its age and inference time."""

    camera: str
    at_s: float
    age_ms: float
    inference_ms: float


class ManyCameras(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a run.

    Attributes:
        results: How many counted.
        seconds: From the first that counted to the last.
        fps: Results per second, all cameras together.
        saturated: Whether the cameras gave more than the pipeline took.
        session_p50_ms: ``session.run`` alone, before the run.
        inference_p50_ms: The stage ``inference`` in the run, where two frames share the cores.
        age_p50_ms: Age of a result when it was ready.
        age_p99_ms: The age that 99 % stay below.
        age_over_session: ``age_p99_ms / session_p50_ms``: the stricter reading of the target.
        age_over_inference: ``age_p99_ms / inference_p50_ms``.
        first_age_ms: p50 and p99 of the first minute (of the first fifth, in a shorter run).
        last_age_ms: The same of the last.
        growth: By how much the p50 of the last is above that of the first; negative when results grew younger.
        slope_ms_per_minute: Least-squares slope of the ages.
        rates: Results per second of each camera.
        fairness: The slowest camera's rate over the mean rate.
        dropped: Frames that gave no result, by reason, all cameras together.
    """

    results: int
    seconds: float
    fps: float
    saturated: bool
    session_p50_ms: float
    inference_p50_ms: float
    age_p50_ms: float
    age_p99_ms: float
    age_over_session: float
    age_over_inference: float
    first_age_ms: tuple[float, float]
    last_age_ms: tuple[float, float]
    growth: float
    slope_ms_per_minute: float
    rates: dict[str, float]
    fairness: float
    dropped: dict[str, int]


def cameras(count: int, fps: float, video: Path | None) -> dict[str, str | Source]:
    """The sources by name.

    Raises:
        SourceError: the video cannot be read, or is too short.
    """
    names = [f"camera-{number}" for number in range(1, count + 1)]
    if video is None:
        width, height = _SIZE_WH
        return dict.fromkeys(names, f"synthetic://?frames=0&live=1&fps={fps:g}&width={width}&height={height}")
    images = first_images(video, _IMAGES)
    return {name: ReplayedCamera(name, images[at:] + images[:at], fps) for at, name in enumerate(names)}


def watch(pipeline: Pipeline, seconds: float, settle_s: float = _SETTLE_S) -> Iterator[Seen]:
    """Results for so long, after those of the first ``settle_s`` seconds, which do not count."""
    start_s = time.monotonic()
    with pipeline:
        for result in pipeline:
            at_s = time.monotonic() - start_s - settle_s
            if at_s >= seconds:
                return
            if at_s >= 0:
                yield Seen(
                    camera=result.frame.source_id,
                    at_s=at_s,
                    age_ms=result.age_ms,
                    inference_ms=result.timings_ms["inference"],
                )


def summed_up(
    seen: Sequence[Seen], names: Sequence[str], session_p50_ms: float, offered_fps: float, dropped: Mapping[str, int]
) -> ManyCameras:
    """The figures of a run.

    Raises:
        ConfigError: there are too few results.
    """
    if len(seen) < 2:
        raise ConfigError(f"There were {len(seen)} results: too few.", "Run for longer.")
    ages = [one.age_ms for one in seen]
    inference_p50_ms = median(one.inference_ms for one in seen)
    seconds = seen[-1].at_s - seen[0].at_s
    first, last = _ends(seen, seconds)
    counts = Counter(one.camera for one in seen)
    rates = {name: counts[name] / seconds for name in names}
    fps = len(seen) / seconds
    p99_ms = percentile(ages, 99)
    slope = np.polyfit([one.at_s / 60 for one in seen], ages, 1)[0]
    return ManyCameras(
        results=len(seen),
        seconds=round(seconds, 1),
        fps=round(fps, 2),
        saturated=fps < 0.95 * offered_fps,
        session_p50_ms=round(session_p50_ms, 2),
        inference_p50_ms=round(inference_p50_ms, 2),
        age_p50_ms=round(median(ages), 2),
        age_p99_ms=round(p99_ms, 2),
        age_over_session=round(p99_ms / session_p50_ms, 2),
        age_over_inference=round(p99_ms / inference_p50_ms, 2),
        first_age_ms=_p50_p99(first),
        last_age_ms=_p50_p99(last),
        growth=round(median(last) / median(first) - 1, 4),
        slope_ms_per_minute=round(float(slope), 3),
        rates={name: round(rate, 3) for name, rate in rates.items()},
        fairness=round(min(rates.values()) / (sum(rates.values()) / len(rates)), 4),
        dropped=dict(dropped),
    )


def many_cameras(model: Model, sources: Mapping[str, str | Source], fps: float, seconds: float) -> ManyCameras:
    """Run the cameras through one pipeline for so long.

    Raises:
        EdgeCVError: the pipeline failed, or gave too few results.
    """
    session_p50_ms = _session_ms(model)
    pipeline = Pipeline([SourceConfig(source, name, "latest") for name, source in sources.items()], model)
    seen = list(watch(pipeline, seconds))
    dropped: Counter[str] = Counter()
    for source in pipeline.status().sources:
        dropped.update(source.dropped)
    return summed_up(seen, list(sources), session_p50_ms, fps * len(sources), dropped)


def _session_ms(model: Model) -> float:
    width, height = _SIZE_WH
    feeds, _ = model.prepare(np.full((height, width, 3), 114, np.uint8))
    times: list[float] = []
    for _ in range(_ALONE_RUNS):
        start_ns = time.perf_counter_ns()
        model.session.run(feeds)
        times.append((time.perf_counter_ns() - start_ns) / 1e6)
    return median(times)


def _ends(seen: Sequence[Seen], seconds: float) -> tuple[list[float], list[float]]:
    """Ages of the first and of the last minute; of the first and last fifth in a shorter run."""
    part_s = min(60.0, seconds / 5)
    begin_s, end_s = seen[0].at_s + part_s, seen[-1].at_s - part_s
    return [one.age_ms for one in seen if one.at_s <= begin_s], [one.age_ms for one in seen if one.at_s >= end_s]


def _p50_p99(ages: Sequence[float]) -> tuple[float, float]:
    return round(median(ages), 2), round(percentile(ages, 99), 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m edgecv.benchmarks.lab many_cameras", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--fps", type=float, default=25.0, help="of each camera")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--video", type=Path, help="replay its first images instead of synthetic ones")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    given = parser.parse_args()
    if given.cameras < 1 or given.seconds <= 0:
        parser.error("at least one camera and a time above 0 are needed")
    with load(given.bundle, runtime=given.runtime, precision=given.precision, threads=given.threads) as model:
        found = many_cameras(model, cameras(given.cameras, given.fps, given.video), given.fps, given.seconds)
    targets = {
        "age_met": found.age_over_session <= AGE_LIMIT,
        "fairness_met": found.fairness >= FAIRNESS_LIMIT,
    }
    print_figures({"model": model.name, **msgspec.to_builtins(found), **targets}, given.json)
