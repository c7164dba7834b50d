"""What is done with one frame: through a model, or remembered from a recording."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from edgecv.model import Model
from edgecv.pipelines.fitting_model import FittingModel
from edgecv.pipelines.loop.work import Work
from edgecv.protocols import Clock
from edgecv.results import Classification, Detections, Frame, Result


@runtime_checkable
class Recall(Protocol):
    """In place of a model: what was found in these frames when they were recorded."""

    name: str
    labels: tuple[str, ...]
    task: str

    def recall(self, frame: Frame) -> Detections | Classification:
        """What was found in this frame. Raises ``SourceError``: nothing is known about it."""
        ...


@dataclass(slots=True, kw_only=True)
class Inference:
    """One frame through the model, or a memory; ``None`` for a limit is the model's own, ``clock`` gives monotonic
    nanoseconds.
    """

    model: Model | FittingModel | Recall  # of the next frame; another one may be put here from any thread
    confidence: float | None = None
    iou: float | None = None
    clock: Clock = time.monotonic_ns

    def prepare(self, work: Work) -> None:
        """Make of the frame what the model wants."""
        model = self.model
        if isinstance(model, FittingModel):
            model = model.model_for(work.frame)
        if not isinstance(model, Recall):
            with work.timer.stage("preprocess"):
                work.feeds, work.transform = model.prepare(work.frame.image)
            work.model = model

    def compute(self, work: Work) -> Result:
        """The result of a frame before the steps; its age comes after them. May run in several threads."""
        frame, model = work.frame, self.model
        found = model.recall(frame) if isinstance(model, Recall) else self._infer(work)
        model = work.model or model
        return Result(
            frame=frame,
            labels=model.labels,
            detections=found if isinstance(found, Detections) else None,
            classification=found if isinstance(found, Classification) else None,
            timings_ms=work.timer.as_ms(),
            model=model.name,
        )

    def forget(self, source_id: str) -> None:
        """A source is gone: the next one of its name may have frames of another shape."""
        if isinstance(self.model, FittingModel):
            self.model.forget(source_id)

    def age_ms(self, frame: Frame) -> float:
        """Time since a frame was captured; 0.0 where nothing is computed: that time is long ago."""
        if isinstance(self.model, Recall):
            return 0.0
        return (self.clock() - frame.monotonic_ns) / 1e6

    def _infer(self, work: Work) -> Detections | Classification:
        if work.feeds is None:
            self.prepare(work)
        assert work.feeds is not None
        assert work.transform is not None
        assert work.model is not None
        with work.timer.stage("inference"):
            outputs = work.model.infer(work.feeds)
        with work.timer.stage("postprocess"):
            return work.model.decode(outputs, work.transform, confidence=self.confidence, iou=self.iou)
