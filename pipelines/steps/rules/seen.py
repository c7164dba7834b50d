"""What a rule sees of one frame: the objects that it looks at, without their image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv.errors import ConfigError
from edgecv.pipelines.steps.regions import Anchor, Points, anchor_points
from edgecv.pipelines.steps.rules.shared import shared
from edgecv.results import BoolArray, Detections, FloatArray, IntArray, Result
from edgecv.vision.class_names import label_of

MOST_ROWS = 50  # in the data of one event


class Wanted:
    """Which classes a rule looks at."""

    def __init__(self, classes: frozenset[int] | None) -> None:
        self._is_wanted: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] | None = None
        if classes is not None:
            self._is_wanted = np.zeros(max(classes) + 2, np.bool_)  # the last stands for all beyond
            self._is_wanted[list(classes)] = True

    def among(self, found: Detections) -> BoolArray:
        """Which objects of a frame count: those of these classes and, where a tracker ran, confirmed."""
        if self._is_wanted is None:
            counts = np.ones(len(found.class_id), np.bool_)
        else:
            counts = self._is_wanted[np.minimum(found.class_id, len(self._is_wanted) - 1)]
        return counts if found.tracker_id is None else counts & (found.tracker_id >= 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """The objects of one frame, a row each, whether the rule looks at them or not. It holds neither image nor outlines.

    Attributes:
        counts: ``(N,)``: which of them the rule looks at.
        points: ``(N, 2)``: what stands for each box.
        ids: Tracker ids; empty where nothing tracks.
        labels: Of the model.
    """

    counts: BoolArray
    points: Points
    ids: list[int]
    class_id: IntArray
    confidence: FloatArray
    xyxy: FloatArray
    labels: tuple[str, ...]
    time_ns: int

    def row(self, at: int) -> dict[str, Any]:
        """One object, for the data of an event."""
        class_id = int(self.class_id[at])
        return {
            **({"tracker_id": self.ids[at]} if self.ids else {}),
            "class_id": class_id,
            "label": label_of(self.labels, class_id),
            "confidence": round(float(self.confidence[at]), 6),
            "xyxy": [round(float(edge), 3) for edge in self.xyxy[at]],
            "point": [round(float(edge), 3) for edge in self.points[at]],
            "seen_ns": self.time_ns,
        }

    def rows(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Some objects, the surest first, at most ``MOST_ROWS``."""
        best = sorted(places, key=lambda at: -float(self.confidence[at]))
        return [self.row(at) for at in best[:MOST_ROWS]]


def look(result: Result, wanted: Wanted, anchor: Anchor, rule: str) -> Seen:
    """The objects of a frame. Raises ``ConfigError``: the model gives no detections."""
    found = result.detections
    if found is None:
        raise ConfigError(f"'{rule}' looks at detections, and this model gives none.", "Use a detector.")
    return Seen(
        counts=wanted.among(found),
        points=shared(
            found.xyxy, (anchor, *result.frame.image.shape[:2]), lambda: anchor_points(found.xyxy, anchor, result.frame)
        ),
        ids=[] if found.tracker_id is None else found.tracker_id.tolist(),
        class_id=found.class_id,
        confidence=found.confidence,
        xyxy=found.xyxy,
        labels=result.labels,
        time_ns=result.frame.captured_ns,
    )
