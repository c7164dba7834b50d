"""One frame through the model and the steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgecv.model import Model
from edgecv.pipelines.capture import Captured, Prepared
from edgecv.protocols import Clock, Step
from edgecv.results import Classification, Detections, Frame, Result
from edgecv.timing import StageTimer


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """What is done with every frame.

    Attributes:
        model: The model.
        steps: Applied in this order; one that returns ``None`` ends the frame.
        confidence: Lowest confidence kept; ``None`` for the model's own.
        iou: Overlap above which boxes are one object; ``None`` for the model's own.
        clock: Monotonic nanoseconds.
    """

    model: Model
    steps: Sequence[Step] = ()
    confidence: float | None = None
    iou: float | None = None
    clock: Clock = time.monotonic_ns

    def prepare(self, frame: Frame) -> Prepared:
        """The frame as the model wants it."""
        start = self.clock()
        feeds, transform = self.model.prepare(frame.image)
        return Prepared(feeds=feeds, transform=transform, elapsed_ms=(self.clock() - start) / 1e6)

    def compute(self, captured: Captured, timer: StageTimer) -> Result:
        """The result of a frame before the steps; ``timer`` already holds the wait. May run in several threads."""
        prepared = captured.prepared or self.prepare(captured.frame)
        timer.add("preprocess", prepared.elapsed_ms)
        with timer.stage("inference"):
            outputs = self.model.infer(prepared.feeds)
        with timer.stage("postprocess"):
            found = self.model.decode(outputs, prepared.transform, confidence=self.confidence, iou=self.iou)
        return self._result(captured.frame, found, timer)

    def finish(self, result: Result) -> Result | None:
        """The result after the steps, or ``None`` when one dropped it; call it in the order of the frames."""
        current: Result | None = result
        for step in self.steps:
            current = step(current) if current is not None else None
        if current is None or not self.steps:
            return current
        return replace(current, age_ms=self._age_ms(current.frame))

    def _result(self, frame: Frame, found: Detections | Classification, timer: StageTimer) -> Result:
        return Result(
            frame=frame,
            labels=self.model.labels,
            detections=found if isinstance(found, Detections) else None,
            classification=found if isinstance(found, Classification) else None,
            timings_ms=timer.as_ms(),
            age_ms=self._age_ms(frame),
            model=self.model.name,
        )

    def _age_ms(self, frame: Frame) -> float:
        return (self.clock() - frame.monotonic_ns) / 1e6
