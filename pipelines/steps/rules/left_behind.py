"""Say that an object was left behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from edgecv.events import Event
from edgecv.pipelines.steps.options import checked
from edgecv.pipelines.steps.per_source import PerSource
from edgecv.pipelines.steps.regions import PLACE_KINDS
from edgecv.pipelines.steps.rules.latch import Latch, Turn
from edgecv.pipelines.steps.rules.options import AreaRule
from edgecv.pipelines.steps.rules.rule import AreaWatch
from edgecv.pipelines.steps.rules.seen import Seen, Wanted
from edgecv.results import BoolArray, Frame, Result
from edgecv.vision.class_names import class_ids

_Boxes = npt.NDArray[np.float64]
_SAME_PLACE = (
    0.5  # overlap from which on a box is that of an object that rests: a detector's boxes of one object differ less
)
_MOST_SPOTS = 256  # of one source
_REST_NS = 1_000_000_000  # what was at a place for a shorter time passed by


class LeftBehind(AreaRule, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``type = "left_behind"``: say when an object has rested for so long with no person near it, and when that is over.

    Its events are ``left_behind.began`` and ``left_behind.ended``, its counts ``NAME.inside`` (now left behind) and ``NAME.began``.
    An object is known by its place, not by its id, which is often lost behind people who pass.

    Attributes:
        classes: Names or numbers of the classes of such objects, as ``["backpack", "suitcase"]``.
        for_s: How long it must have been alone, seconds.
        clear_s: It is over when the object was not seen, or somebody was near it, for this long, seconds.
        near: A person is near when the gap between both boxes is at most this many times the height of the person's box.
        near_classes: Names or numbers of the classes that count as persons.
    """

    gives_kinds: ClassVar[tuple[str, ...] | None] = ("left_behind.began", "left_behind.ended", *PLACE_KINDS)

    classes: Annotated[tuple[str | int, ...], msgspec.Meta(min_length=1)]
    for_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 60.0
    clear_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 5.0
    near: Annotated[float, msgspec.Meta(ge=0, le=100)] = 1.0
    near_classes: Annotated[tuple[str | int, ...], msgspec.Meta(min_length=1)] = ("person",)

    def build(self, labels: tuple[str, ...] = ()) -> PerSource:
        """The step for a model with these labels: a rule for each source.

        Raises ``ConfigError``: the area is none, or the model has no such class.
        """
        options = checked(self)
        LeftBehindWatch(options, labels)  # what is wrong is said now, not at the first frame
        return PerSource(lambda _: LeftBehindWatch(options, labels), only=options.sources)


@dataclass(slots=True, kw_only=True, eq=False)
class _Spot:
    """A place where an object rests."""

    box: _Boxes  # when it came to rest
    at: int  # its row in the last frame in which it was there
    first_ns: int  # when it was seen there first and last, on the clock of the scene
    last_ns: int
    latch: Latch = field(default_factory=Latch)
    row: dict[str, Any] | None = None  # the object as it was seen there last; ``None`` while it is there
    is_alone: bool = True


@dataclass(slots=True, eq=False)
class _Known:
    spots: list[_Spot] = field(default_factory=list)
    before: Seen | None = None  # the last frame
    size_hw: tuple[int, ...] = ()


class LeftBehindWatch(AreaWatch[LeftBehind, _Known]):
    """Step that adds ``left_behind.began`` and ``left_behind.ended`` events of one source."""

    def __init__(self, options: LeftBehind, labels: tuple[str, ...]) -> None:
        super().__init__(options, labels, _Known(), ("began",))
        self._persons = Wanted(class_ids(options.near_classes, labels))

    def _judge(self, result: Result) -> Iterator[Event]:
        kept, frame, known = self._kept, result.frame, self._kept.known
        self._rescale(frame)
        seen = self._look(result)
        places = self._area.places(seen)
        if places or known.spots:
            boxes = seen.xyxy[places].astype(np.float64)
            attended = _attended(boxes, self._people(result), self._options.near).tolist()
            self._place(boxes, places)
            for spot, box in self._matched(boxes):
                if box is not None:
                    spot.at, spot.is_alone, spot.last_ns = places[box], not attended[box], frame.scene_ns
                yield from self._follow(spot, box is not None, seen, frame)
            known.spots = [spot for spot in known.spots if not self._is_over(spot, frame)]
            kept.totals["inside"] = sum([spot.latch.is_on for spot in known.spots])
        known.before = seen

    def _people(self, result: Result) -> _Boxes:
        found = result.detections
        assert found is not None  # as `_look` made sure
        return found.xyxy[self._persons.among(found)].astype(np.float64)

    def _place(self, boxes: _Boxes, places: list[int]) -> None:
        """Begin a spot for each box that lies at none."""
        spots, now_ns = self._kept.known.spots, self._kept.line.now.scene_ns
        free = range(len(boxes))
        if spots and len(boxes):
            free = (~_same_place(self._spot_boxes(), boxes).any(axis=0)).nonzero()[0].tolist()
        for box in free:
            if len(spots) < _MOST_SPOTS:
                spots.append(_Spot(box=boxes[box], at=places[box], first_ns=now_ns, last_ns=now_ns))

    def _matched(self, boxes: _Boxes) -> list[tuple[_Spot, int | None]]:
        """Each spot with the row of the box that lies there, if one does; spots that are older choose first."""
        spots = self._kept.known.spots
        owners: dict[int, int] = {}
        if len(boxes):
            for spot, box in np.argwhere(_same_place(self._spot_boxes(), boxes)).tolist():
                if spot not in owners and box not in owners.values():
                    owners[spot] = box
        return [(spot, owners.get(at)) for at, spot in enumerate(spots)]

    def _spot_boxes(self) -> _Boxes:
        return np.array([spot.box for spot in self._kept.known.spots]).reshape(-1, 4)

    def _follow(self, spot: _Spot, is_there: bool, seen: Seen, frame: Frame) -> Iterator[Event]:
        kept, is_left = self._kept, is_there and spot.is_alone
        if is_there:
            spot.row = None
        elif spot.row is None:
            spot.row = kept.known.before.row(spot.at) if kept.known.before is not None else {}
        if spot.latch.rests(is_left, kept.line, self._limits):
            return
        for turn in spot.latch.see(is_left, kept.line, self._limits, kept.cooldown):
            kept.totals["began"] += turn.until is None
            kind = "left_behind.began" if turn.until is None else "left_behind.ended"
            row = spot.row or seen.row(spot.at)
            yield self._told(kind, turn, frame, {**_how(turn, spot), **row})

    def _is_over(self, spot: _Spot, frame: Frame) -> bool:
        """Whether nothing rests there any more; what was there for less than a moment only passed by."""
        if spot.last_ns == frame.scene_ns or spot.latch.is_on:
            return False
        return spot.latch.is_idle or spot.last_ns - spot.first_ns < _REST_NS

    def _rescale(self, frame: Frame) -> None:
        """Where the image has another size, the same places have other pixels."""
        known, size_hw = self._kept.known, frame.image.shape[:2]
        if known.size_hw and size_hw != known.size_hw:
            across, down = size_hw[1] / known.size_hw[1], size_hw[0] / known.size_hw[0]
            for spot in known.spots:
                spot.box = spot.box * (across, down, across, down)
        known.size_hw = size_hw

    def _is_active(self) -> bool:
        return any(spot.latch.is_on for spot in self._kept.known.spots)


def _how(turn: Turn, spot: _Spot) -> dict[str, str]:
    """What ended it, for the data of an event."""
    if turn.until is None:
        return {}
    return {"how": turn.how if turn.how == "schedule" else "gone" if spot.is_alone else "attended"}


def _same_place(spots: _Boxes, boxes: _Boxes) -> BoolArray:
    """Whether ``(S, 4)`` spots and ``(N, 4)`` boxes overlap so much that one object lies there: ``(S, N)``."""
    spots, boxes = spots[:, None], boxes[None]
    sides = np.minimum(spots[..., 2:], boxes[..., 2:]) - np.maximum(spots[..., :2], boxes[..., :2])
    common = np.maximum(sides[..., 0], 0) * np.maximum(sides[..., 1], 0)
    area_of_spots, area_of_boxes = (
        (each[..., 2] - each[..., 0]) * (each[..., 3] - each[..., 1]) for each in (spots, boxes)
    )
    return np.asarray(common * (1 + _SAME_PLACE) > _SAME_PLACE * (area_of_spots + area_of_boxes))


def _attended(boxes: _Boxes, persons: _Boxes, near: float) -> BoolArray:
    """Which of ``(N, 4)`` boxes have one of ``(P, 4)`` persons near them: ``(N,)``."""
    boxes = boxes[:, None]
    gaps = np.maximum(np.maximum(persons[:, :2] - boxes[..., 2:], boxes[..., :2] - persons[:, 2:]), 0)
    limits = near * (persons[:, 3] - persons[:, 1])
    gaps *= gaps
    return np.asarray((gaps[..., 0] + gaps[..., 1] <= limits * limits).any(axis=1))
