"""Scenes written down by time: what stands where at a second, sampled at any frame rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgecv.events import Event
from edgecv.pipelines.loop.step_chain import StepLike, build_steps
from edgecv.results import Detections, Result
from tests.unit.pipelines.recorded import LABELS, at_s

Way = Callable[[float], tuple[float, float] | None]
"""Where an object stands at a second; ``None`` while it is not there."""


@dataclass(frozen=True, kw_only=True)
class Actor:
    """One object: its way, class and size."""

    way: Way
    class_id: int = 0
    size_wh: tuple[float, float] = (20.0, 40.0)


def walk(*stops: tuple[float, tuple[float, float]]) -> Way:
    """Straight from one place to the next, ``(second, (x, y))`` each; it is not there before the first and after the last."""
    times = [second for second, _ in stops]

    def where(second: float) -> tuple[float, float] | None:
        if not times[0] <= second < times[-1]:
            return None
        x, y = (float(np.interp(second, times, [place[axis] for _, place in stops])) for axis in (0, 1))
        return x, y

    return where


def stand(begin: float, end: float, place: tuple[float, float]) -> Way:
    """There from one second until another."""
    return walk((begin, place), (end, place))


def seen_at(actors: Sequence[Actor], second: float, ids: bool = True) -> Detections:
    """What a detector that never errs sees at a second; ids are the places in the list, from 1 on."""
    there = [(number, actor, place) for number, actor in enumerate(actors, 1) if (place := actor.way(second))]
    rows = [(x - actor.size_wh[0] / 2, y - actor.size_wh[1], x + actor.size_wh[0] / 2, y) for _, actor, (x, y) in there]
    return Detections(
        xyxy=np.array(rows, np.float32).reshape(-1, 4),
        confidence=np.full(len(there), 0.9, np.float32),
        class_id=np.array([actor.class_id for _, actor, _ in there], np.int64),
        tracker_id=np.array([number for number, _, _ in there], np.int64) if ids else None,
    )


def frames(
    actors: Sequence[Actor], seconds: float, fps: float, *, phase: float = 0.0, ids: bool = True
) -> Iterator[Result]:
    """The scene at a frame rate; the first frame comes ``phase`` of an interval after the begin."""
    for index in range(round(seconds * fps)):
        second = (index + phase) / fps
        frame = at_s(second, index)
        yield Result(frame=frame, labels=LABELS, detections=seen_at(actors, second, ids))


def told(steps: Sequence[StepLike], results: Iterator[Result] | Sequence[Result]) -> list[Event]:
    """The events of some steps, in the order of their times."""
    built = build_steps(steps, LABELS)
    events: list[Event] = []
    for result in results:
        current = replace(result, events=())
        for one in built:
            given = one.step(current)
            assert given is not None
            current = given
        events += current.events
    return sorted(events, key=lambda event: (event.time_ns, event.kind))


def named(events: Sequence[Event]) -> list[tuple[str, Mapping[str, object]]]:
    """Kinds and data, for a look."""
    return [(event.kind, event.data) for event in events]
