"""What is done with one frame: through a model, or remembered from a recording."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from edgecv._internal.timing import StageTimer
from edgecv.model import Model
from edgecv.pipelines.loop.source_reader import Captured, Prepared
from edgecv.protocols import Clock
from edgecv.results import Classification, Detections, Frame, Result


@runtime_checkable
class Recall(Protocol):
    """In place of a model: what was found in these frames when they were recorded."""

    name: str
    labels: tuple[str, ...]
    task: str

    def recall(self, frame: Frame) -> Detections | Classification:
        """What was found in this frame.

        Raises:
            SourceError: nothing is known about it.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """One frame through the model.

    Attributes:
        model: The model, or a memory.
        confidence: Lowest confidence kept; ``None`` for the model's own.
        iou: Overlap above which boxes are one object; ``None`` for the model's own.
        clock: Monotonic nanoseconds.
    """

    model: Model | Recall
    confidence: float | None = None
    iou: float | None = None
    clock: Clock = time.monotonic_ns

    def prepare(self, frame: Frame) -> Prepared:
        """The frame as the model wants it."""
        if isinstance(self.model, Recall):
            return Prepared(feeds={}, transform=None, elapsed_ms=0.0)
        start = self.clock()
        feeds, transform = self.model.prepare(frame.image)
        return Prepared(feeds=feeds, transform=transform, elapsed_ms=(self.clock() - start) / 1e6)

    def compute(self, captured: Captured, timer: StageTimer) -> Result:
        """The result of a frame before the steps; ``timer`` already holds the wait. May run in several threads."""
        frame, model = captured.frame, self.model
        found = model.recall(frame) if isinstance(model, Recall) else self._infer(model, captured, timer)
        return Result(
            frame=frame,
            labels=self.model.labels,
            detections=found if isinstance(found, Detections) else None,
            classification=found if isinstance(found, Classification) else None,
            timings_ms=timer.as_ms(),
            age_ms=self.age_ms(frame),
            model=self.model.name,
        )

    def age_ms(self, frame: Frame) -> float:
        """Time since a frame was captured; 0.0 where nothing is computed: that time is long ago."""
        if isinstance(self.model, Recall):
            return 0.0
        return (self.clock() - frame.monotonic_ns) / 1e6

    def _infer(self, model: Model, captured: Captured, timer: StageTimer) -> Detections | Classification:
        prepared = captured.prepared or self.prepare(captured.frame)
        assert prepared.transform is not None
        timer.add("preprocess", prepared.elapsed_ms)
        with timer.stage("inference"):
            outputs = model.infer(prepared.feeds)
        with timer.stage("postprocess"):
            return model.decode(outputs, prepared.transform, confidence=self.confidence, iou=self.iou)
