"""Results and events as a camera makes them, each with a name that is found again in the store."""

from __future__ import annotations

import hashlib

import numpy as np

from edgecv.events import Event, Priority
from edgecv.results import Detections, Frame, Result

KIND = "fault.test"
TYPE = f"edgecv.event.{KIND}"
_LANES: tuple[Priority, ...] = ("alarm", "event", "event", "telemetry")
_IMAGE = np.zeros((720, 1280, 3), np.uint8)
_FRAME_NS = 33_000_000


def made_event(run: str, number: int, bulk: int = 0) -> Event:
    """An event named ``run:number``; its text follows from its name, so that a changed one is found."""
    name = f"{run}:{number}"
    return Event(
        kind=KIND,
        time_ns=1_700_000_000_000_000_000 + number,
        data={"name": name, "text": text_of(name, bulk)},
        priority=_LANES[number % len(_LANES)],
    )


def text_of(name: str, bulk: int = 0) -> str:
    """What the event of this name carries."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:24]
    return digest + "x" * bulk


class Camera:
    """Frames of 1280 x 720 with ``objects`` boxes that wander, as a tracker of a street sees them."""

    def __init__(self, objects: int = 5, seed: int = 1) -> None:
        self._rng = np.random.default_rng(seed)
        self._corner = self._rng.uniform(100, 500, (objects, 2))
        self._size = self._rng.uniform(40, 200, (objects, 2))
        self._classes = self._rng.integers(0, 3, objects)
        self._index = 0

    def next_result(self) -> Result:
        """The next frame's result."""
        rng, count = self._rng, len(self._corner)
        self._index += 1
        self._corner = np.clip(self._corner + rng.normal(0, 3, (count, 2)), 0, 1000)
        opposite = self._corner + self._size + rng.normal(0, 1, (count, 2))
        found = Detections(
            xyxy=np.concatenate([self._corner, opposite], 1).astype(np.float32),
            confidence=rng.uniform(0.3, 0.99, count).astype(np.float32),
            class_id=self._classes,
        )
        frame = Frame(
            image=_IMAGE,
            index=self._index,
            source_id="cam",
            captured_ns=1_700_000_000_000_000_000 + self._index * _FRAME_NS,
            monotonic_ns=self._index * _FRAME_NS,
        )
        return Result(frame=frame, labels=("person", "car", "dog"), detections=found, model="demo/onnx-int8")
