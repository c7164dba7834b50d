"""Results as a pipeline gives them, without one."""

from __future__ import annotations

import numpy as np

from edgecv.events import Event
from edgecv.results import Classification, Detections, Frame, Result

LABELS = ("person", "car")
START_NS = 1_795_275_858_123_000_000  # 2026-11-21 15:44:18.123 UTC


def made_frame(
    at_s: float, *, source_id: str = "cam", size_wh: tuple[int, int] = (64, 48), index: int | None = None
) -> Frame:
    """A frame of coloured squares, captured ``at_s`` seconds after the start; sides are multiples of 8."""
    at_ns = round(at_s * 1e9)
    number = round(at_s * 10) if index is None else index
    squares = np.random.default_rng(number).integers(0, 255, (size_wh[1] // 8, size_wh[0] // 8, 3), np.uint8)
    image = squares.repeat(8, axis=0).repeat(8, axis=1)
    return Frame(
        image=image, index=number, source_id=source_id, captured_ns=START_NS + at_ns, monotonic_ns=10**12 + at_ns
    )


def made_result(
    at_s: float,
    *,
    class_ids: tuple[int, ...] = (0,),
    events: tuple[Event, ...] = (),
    labels: tuple[str, ...] = LABELS,
    source_id: str = "cam",
    size_wh: tuple[int, int] = (64, 48),
) -> Result:
    """A result with a box per class."""
    count = len(class_ids)
    found = Detections(
        xyxy=np.tile(np.array([1, 2, 30.5, 40], np.float32), (count, 1)),
        confidence=np.full(count, 0.75, np.float32),
        class_id=np.array(class_ids, np.int64),
    )
    return Result(
        frame=made_frame(at_s, source_id=source_id, size_wh=size_wh), labels=labels, detections=found, events=events
    )


def classified(at_s: float, class_id: int = 1) -> Result:
    """A result of a classifier."""
    found = Classification(class_id=np.array([class_id, 0]), confidence=np.array([0.9, 0.1], np.float32))
    return Result(frame=made_frame(at_s), labels=LABELS, classification=found)


def made_event(kind: str = "line.crossed") -> Event:
    """Something a step said."""
    return Event(kind=kind, time_ns=START_NS, source_id="cam", data={"line": "door"})
