"""What the rules of ``app.toml`` cost a frame, all seven together.

``python -m edgecv.benchmarks.lab rules_overhead [--tracks 50] [--frames 300] [--rounds 15] [--json]``

Objects walk over a frame of 1280 x 720, ten times a second: most are persons, some cars, some bags that lie still. Their ids are
given, so no tracker runs. Each rule looks at the same zone. Every frame goes through the rules one after the other, in a pipeline's
order but without one, and the time of each is taken. A round begins with new rules and the same frames.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np

from edgecv.benchmarks.lab.figures import print_figures
from edgecv.pipelines.loop.step_chain import build_steps
from edgecv.pipelines.steps.count.zone import Zone
from edgecv.pipelines.steps.exchange import BuiltStep
from edgecv.pipelines.steps.options import Options
from edgecv.pipelines.steps.rules.absence import Absence
from edgecv.pipelines.steps.rules.crowd import Crowd
from edgecv.pipelines.steps.rules.left_behind import LeftBehind
from edgecv.pipelines.steps.rules.speed import Speed
from edgecv.pipelines.steps.rules.stays import Appear, Dwell, Leave
from edgecv.results import Detections, Frame, Result

OVERHEAD_LIMIT_MS = 0.5
LABELS = ("person", "car", "suitcase")
_SIZE_WH = (1280, 720)
_FPS = 10
_SEED = 18
_HALL = ((200.0, 100.0), (1000.0, 100.0), (1000.0, 650.0), (200.0, 650.0))
_ROAD = (((300.0, 0.0), (300.0, 720.0)), ((900.0, 0.0), (900.0, 720.0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesOverhead:
    """What was measured.

    Attributes:
        tracks: Objects in each frame.
        median_ms: All rules together: the median over the frames of each round, and of these the median over the rounds.
        undisturbed_ms: All rules together: of each frame the least of all rounds, which no other program disturbed; the median of
            these.
        p99_ms: The 99th percentile over all frames.
        each_ms: Each rule alone, as ``median_ms``.
        events: Events in one round.
    """

    tracks: int
    median_ms: float
    undisturbed_ms: float
    p99_ms: float
    each_ms: dict[str, float]
    events: int


def rules() -> list[Options]:
    """All of them, on one zone."""
    return [
        Zone(name="hall", points=_HALL),
        Crowd(name="crowd", zone="hall", least=10, for_s=3, classes=("person",)),
        Dwell(name="dwell", zone="hall", for_s=8, classes=("person",)),
        Absence(name="absence", zone="hall", for_s=10, classes=("car",)),
        LeftBehind(name="left_behind", zone="hall", for_s=3, near=0.2, classes=("suitcase",)),
        Speed(name="speed", lines=_ROAD, distance_m=12),
        Appear(name="appear", zone="hall", classes=("person",)),
        Leave(name="leave", zone="hall", classes=("person",)),
    ]


def scene(tracks: int, frames: int) -> list[Result]:
    """What a tracker says of objects that walk to and fro."""
    rng = np.random.default_rng(_SEED)
    class_id = np.arange(tracks) % 8
    class_id = np.select([class_id == 6, class_id == 7], [1, 2], 0)
    start, pace = rng.uniform(0, _SIZE_WH, (tracks, 2)), rng.uniform(-60, 60, (tracks, 2))
    pace[class_id == 2] = 0
    image = np.broadcast_to(np.zeros(1, np.uint8), (_SIZE_WH[1], _SIZE_WH[0], 3))
    results = []
    for at in range(frames):
        place = np.abs((start + pace * (at / _FPS)) % (2 * np.array(_SIZE_WH)) - _SIZE_WH)
        found = Detections(
            xyxy=np.concatenate([place - (15, 60), np.add(place, (15, 0))], axis=1).astype(np.float32),
            confidence=np.full(tracks, 0.9, np.float32),
            class_id=class_id,
            tracker_id=np.arange(1, tracks + 1),
        )
        at_ns = round(at / _FPS * 1e9)
        frame = Frame(image=image, index=at, source_id="cam", captured_ns=10**18 + at_ns, monotonic_ns=at_ns)
        results.append(Result(frame=frame, labels=LABELS, detections=found))
    return results


def rules_overhead(tracks: int = 50, frames: int = 300, rounds: int = 15) -> RulesOverhead:
    """Time the rules in this process."""
    results = scene(tracks, frames)
    timed = [_round(build_steps(rules(), LABELS), results) for _ in range(rounds)]
    times = np.array([ms for ms, _ in timed])  # rounds, frames, rules
    together = np.median(times.sum(axis=2), axis=1)
    names = [rule.name for rule in rules() if not isinstance(rule, Zone)]  # type: ignore[attr-defined]
    each = np.median(np.median(times, axis=1), axis=0)
    return RulesOverhead(
        tracks=tracks,
        median_ms=round(median(together), 3),
        undisturbed_ms=round(float(np.median(times.min(axis=0).sum(axis=1))), 3),
        p99_ms=round(float(np.percentile(times.sum(axis=2), 99)), 3),
        each_ms={name: round(float(ms), 3) for name, ms in zip(names, each, strict=True)},
        events=timed[0][1],
    )


def _round(steps: Sequence[BuiltStep], results: Sequence[Result]) -> tuple[list[list[float]], int]:
    """Milliseconds of each rule at each frame, without the zone, and how many events there were."""
    times: list[list[float]] = []
    events = 0
    for result in results:
        current: Result | None = result
        row: list[float] = []
        for built in steps:
            assert current is not None
            start_ns = time.perf_counter_ns()
            current = built.step(current)
            row.append((time.perf_counter_ns() - start_ns) / 1e6)
        assert current is not None
        times.append(row[1:])
        events += len(current.events)
    return times, events


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m edgecv.benchmarks.lab rules_overhead", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--tracks", type=int, default=50)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    given = parser.parse_args()
    found = rules_overhead(given.tracks, given.frames, given.rounds)
    print_figures(asdict(found), given.json)
