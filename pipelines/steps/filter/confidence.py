"""Keep what the model is sure of, with a limit of its own for some classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from edgecv.pipelines.steps.options import Options, checked
from edgecv.results import BoolArray, Classification, Detections, Result
from edgecv.vision.class_names import class_id_of

_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Confidence(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``type = "confidence"``: keep detections and classes from a confidence on.

    Attributes:
        least: Lowest confidence kept, 0 to 1.
        classes: Other limits, by name or number of the class.
    """

    gives_kinds: ClassVar[tuple[str, ...] | None] = ()

    least: _Share
    classes: dict[str, _Share] = {}  # noqa: RUF012 - msgspec copies it

    def build(self, labels: tuple[str, ...] = ()) -> ConfidenceFilter:
        """The step for a model with these labels.

        Raises ``ConfigError``: the model has no such class, or a limit is not from 0 to 1.
        """
        options = checked(self)
        limits = {class_id_of(name, labels): limit for name, limit in options.classes.items()}
        return ConfidenceFilter(least=options.least, limits=limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceFilter:
    """Step that keeps what is at least as sure as ``least``, or as the limit of its class."""

    least: float
    limits: Mapping[int, float] = field(default_factory=dict)

    def __call__(self, result: Result) -> Result:
        """The result without what is less sure."""
        found, classes = result.detections, result.classification
        if found is not None:
            found = found[self._kept(found)]
        if classes is not None:
            kept = self._kept(classes)
            classes = Classification(class_id=classes.class_id[kept], confidence=classes.confidence[kept])
        return replace(result, detections=found, classification=classes)

    def _kept(self, answer: Detections | Classification) -> BoolArray:
        # As float32, like the scores: 0.3 must not drop a score that was written as 0.3.
        least = np.full(len(answer), self.least, np.float32)
        for class_id, limit in self.limits.items():
            least[answer.class_id == class_id] = limit
        return np.asarray(answer.confidence >= least)
