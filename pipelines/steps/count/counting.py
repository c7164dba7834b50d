"""What line and zone counters share: whom they look at, and what they write down of each count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from edgecv.errors import ConfigError
from edgecv.pipelines.steps.count.state_file import COUNTER_NAME
from edgecv.pipelines.steps.count.totals import CounterFile
from edgecv.pipelines.steps.options import Options
from edgecv.pipelines.steps.per_source import PerSource
from edgecv.pipelines.steps.regions import PLACE_KINDS, Anchor, Point, Units, anchor_points
from edgecv.protocols import Step
from edgecv.results import Detections, Result
from edgecv.vision.class_names import class_ids

Name = Annotated[str, msgspec.Meta(pattern=f"^{COUNTER_NAME}$")]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]


_FORGET_S = 10.0
COUNTER_KINDS: tuple[str, ...] = ("counter.damaged", "counter.orphaned", "counter.unsaved", *PLACE_KINDS)
"""Kinds of events that every counter gives."""


class CounterOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every counter of tracked objects is asked.

    Attributes:
        name: Of the counter; it stands before its counts.
        units: ``px`` of the frame, or ``relative``: 0 to 1 of its width and height.
        anchor: The point that stands for a box.
        forget_s: An id that was not seen for so long is forgotten, seconds; 10 by default, of a zone ``lost_s`` of ``track``.
        classes: Names or numbers of the classes that count; all by default.
        per_class: Count each class apart as well, such as ``NAME.in.person``.
        state: File in which the counts survive a restart; they start from 0 without one.
        sources: Names of the sources that it is for; all by default.
    """

    name: Name
    units: Units = "px"
    anchor: Anchor = "bottom_center"
    forget_s: Seconds | None = None
    classes: tuple[str | int, ...] = ()
    per_class: bool = False
    state: str = ""
    sources: tuple[str, ...] = ()

    @property
    def forget_ns(self) -> int:
        """After how long an id that is not seen is forgotten, nanoseconds."""
        return round((_FORGET_S if self.forget_s is None else self.forget_s) * 1e9)

    @property
    def only_sources(self) -> tuple[str, ...]:
        """Names of the sources that the step is for; empty: for all."""
        return self.sources

    @property
    def needs_ids(self) -> bool:
        """Whether the step needs tracker ids: yes, objects without one cannot be counted."""
        return True

    def wanted(self, labels: tuple[str, ...]) -> frozenset[int] | None:
        """The classes that count, of a model with these labels; ``None`` for all."""
        return class_ids(self.classes, labels) if self.classes else None

    def file(self) -> CounterFile | None:
        """Where the counts survive; ``ConfigError`` when it cannot be had."""
        return CounterFile(self.state, self.name, type(self).__name__.lower()) if self.state else None

    def build(self, labels: tuple[str, ...] = (), file: CounterFile | None = None) -> Step:  # noqa: ARG002 - who inherits it needs it
        """As ``Options.build``; ``file`` is where the counts survive, if it is open already."""
        return super().build(labels)

    def build_after(self, labels: tuple[str, ...], before: Step) -> Step:
        """As ``Options.build_after``: the file of the counts stays with the counter, and nobody can take it meanwhile."""
        held = before.share if isinstance(before, PerSource) else None
        if isinstance(held, CounterFile) and self.state and held.serves(self.state, self.name):
            return self.build(labels, held)
        return self.build(labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One confirmed object in one frame: its box in frame pixels, the point that stands for it, and when, UTC nanoseconds."""

    tracker_id: int
    class_id: int
    label: str
    confidence: float
    xyxy: tuple[float, ...]
    point: Point
    time_ns: int

    def as_data(self) -> dict[str, Any]:
        """For an event: what to look for in a recording when a count is doubted."""
        return {
            "tracker_id": self.tracker_id,
            "class_id": self.class_id,
            "label": self.label,
            "confidence": round(self.confidence, 6),
            "xyxy": [round(edge, 3) for edge in self.xyxy],
            "point": [round(at, 3) for at in self.point],
            "seen_ns": self.time_ns,
        }


def sightings(result: Result, anchor: Anchor, wanted: frozenset[int] | None, counter: str) -> Iterator[Sighting]:
    """The objects of a frame that may be counted: confirmed ids, of a wanted class (``None``: of any).

    Raises ``ConfigError``: no tracker ran before.
    """
    found = tracked(result, counter)
    points = anchor_points(found.xyxy, anchor, result.frame)
    for at, (tracker_id, class_id) in enumerate(zip(_ids(found), found.class_id.tolist(), strict=True)):
        if tracker_id < 0 or (wanted is not None and class_id not in wanted):
            continue
        yield Sighting(
            tracker_id=tracker_id,
            class_id=class_id,
            label=result.label(class_id),
            confidence=float(found.confidence[at]),
            xyxy=tuple(found.xyxy[at].tolist()),
            point=(float(points[at, 0]), float(points[at, 1])),
            time_ns=result.frame.captured_ns,
        )


def tracked(result: Result, counter: str) -> Detections:
    """The detections of a result; ``ConfigError`` when there are none, or no tracker gave them ids."""
    found = result.detections
    if found is None:
        raise ConfigError(f"'{counter}' counts detections, and this model gives none.", "Use a detector.")
    if found.tracker_id is None:
        raise ConfigError(
            f"'{counter}' counts tracked objects, and nothing tracks them.", "Add the step 'track' before it."
        )
    return found


def _ids(found: Detections) -> list[int]:
    return [] if found.tracker_id is None else found.tracker_id.tolist()
