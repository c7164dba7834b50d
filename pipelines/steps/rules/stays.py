"""Say who stays long, who appears and who leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import msgspec

from edgecv.events import Event
from edgecv.pipelines.steps.count.counting import Seconds
from edgecv.pipelines.steps.count.memory import MOST_OBJECTS
from edgecv.pipelines.steps.options import checked
from edgecv.pipelines.steps.per_source import PerSource
from edgecv.pipelines.steps.regions import PLACE_KINDS
from edgecv.pipelines.steps.rules.latch import Latch, Limits, Turn
from edgecv.pipelines.steps.rules.options import AreaRule
from edgecv.pipelines.steps.rules.rule import AreaWatch, with_ids
from edgecv.pipelines.steps.rules.seen import Seen
from edgecv.results import Frame, Result


class StayRule(AreaRule, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the rules about the stays of single objects have in common: they need the step ``track`` before them."""

    total: ClassVar[str]
    began: ClassVar[str] = ""
    ended: ClassVar[str] = ""
    is_state: ClassVar[bool] = False

    @property
    def needs_ids(self) -> bool:
        """Whether the step needs tracker ids: yes."""
        return True

    def build(self, labels: tuple[str, ...] = ()) -> PerSource:
        """The step for a model with these labels: a rule for each source.

        Raises ``ConfigError``: the area is none, or the model has no such class.
        """
        options = checked(self)
        StayWatch(options, labels)  # what is wrong is said now, not at the first frame
        return PerSource(lambda _: StayWatch(options, labels), only=options.sources)


class Dwell(StayRule, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``type = "dwell"``: say when an object has stayed for so long, and when it is gone; needs ``track`` before it.

    Its events are ``dwell.began`` and ``dwell.ended``, one of each for each stay; its counts ``NAME.inside`` (now) and
    ``NAME.began``.

    Attributes:
        for_s: How long an object must stay, seconds.
    """

    gives_kinds: ClassVar[tuple[str, ...] | None] = ("dwell.began", "dwell.ended", *PLACE_KINDS)

    total: ClassVar[str] = "began"
    began: ClassVar[str] = "dwell.began"
    ended: ClassVar[str] = "dwell.ended"
    is_state: ClassVar[bool] = True

    for_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)]


class Appear(StayRule, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``type = "appear"``: say when an object has come; needs ``track`` before it.

    Its event is ``object.appeared``, its counts are ``NAME.inside`` (now) and ``NAME.appeared``. What comes within ``cooldown_s``
    of the last event is not said, only counted, as ``skipped`` of the next one.

    Attributes:
        for_s: How long an object must be there before it is said, seconds.
        clear_s: An object that was away for this long appears anew, seconds.
    """

    gives_kinds: ClassVar[tuple[str, ...] | None] = ("object.appeared", *PLACE_KINDS)

    total: ClassVar[str] = "appeared"
    began: ClassVar[str] = "object.appeared"

    for_s: Seconds = 0.5

    @property
    def limits(self) -> Limits:
        """The times of the rule; its cooldown is not one of a state."""
        return Limits(for_ns=round(self.for_s * 1e9), clear_ns=round(self.clear_s * 1e9))


class Leave(StayRule, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``type = "leave"``: say when an object that was there has gone; needs ``track`` before it.

    Its event is ``object.left``, its counts are ``NAME.inside`` (now) and ``NAME.left``. ``cooldown_s`` as of ``appear``.

    Attributes:
        for_s: How long an object must be away before it is said, seconds.
        clear_s: It must have been there for this long, seconds, lest what is seen for a moment leaves.
    """

    gives_kinds: ClassVar[tuple[str, ...] | None] = ("object.left", *PLACE_KINDS)

    total: ClassVar[str] = "left"
    ended: ClassVar[str] = "object.left"

    for_s: Seconds = 2.0
    clear_s: Seconds = 0.5

    @property
    def limits(self) -> Limits:
        """The times of the rule, seen from the stay that ends."""
        return Limits(for_ns=round(self.clear_s * 1e9), clear_ns=round(self.for_s * 1e9))


@dataclass(slots=True, eq=False)
class _Stay:
    latch: Latch = field(default_factory=Latch)
    row: dict[str, Any] | None = None  # the object as it was seen there last; ``None`` while it is there
    is_outside: bool = False  # whether it was seen outside since


@dataclass(slots=True, eq=False)
class _Known:
    stays: dict[int, _Stay] = field(default_factory=dict)
    before: Seen | None = None  # the last frame
    here: dict[int, int] = field(default_factory=dict)  # who was there then: rows by id


class StayWatch(AreaWatch[StayRule, _Known]):
    """Step that follows each object in the area of one source, by its id."""

    def __init__(self, options: StayRule, labels: tuple[str, ...]) -> None:
        super().__init__(options, labels, _Known(), (options.total,))

    def _judge(self, result: Result) -> Iterator[Event]:
        kept, frame = self._kept, result.frame
        known, line, limits = kept.known, kept.line, self._limits
        seen = with_ids(self._look(result), result, self._options.name)
        here = {seen.ids[at]: at for at in self._area.places(seen)}
        kept.totals["inside"] = len(here)
        for tracker_id, at in here.items():
            stay = known.stays.get(tracker_id) or self._entered(tracker_id)
            if not stay.latch.rests(True, line, limits):
                yield from self._follow(stay, True, seen.row(at), frame)
                stay.row, stay.is_outside = None, False
        if len(here) < len(known.stays):
            yield from self._follow_gone(here, seen, frame)
        known.before, known.here = seen, here

    def _entered(self, tracker_id: int) -> _Stay:
        stays = self._kept.known.stays
        if len(stays) >= MOST_OBJECTS:
            del stays[next(iter(stays))]
        stay = stays[tracker_id] = _Stay()
        return stay

    def _follow_gone(self, here: Mapping[int, int], seen: Seen, frame: Frame) -> Iterator[Event]:
        """Those who are not in the area at this frame."""
        known = self._kept.known
        visible = set(seen.ids)
        for tracker_id in [one for one in known.stays if one not in here]:
            stay = known.stays[tracker_id]
            stay.is_outside = stay.is_outside or tracker_id in visible
            if stay.row is None:
                stay.row = known.before.row(known.here[tracker_id]) if known.before is not None else {}
            if not stay.latch.rests(False, self._kept.line, self._limits):
                yield from self._follow(stay, False, stay.row, frame)
                if stay.latch.is_idle:
                    del known.stays[tracker_id]

    def _follow(self, stay: _Stay, is_in: bool, row: Mapping[str, Any], frame: Frame) -> Iterator[Event]:
        kept, options = self._kept, self._options
        for turn in stay.latch.see(is_in, kept.line, self._limits, kept.cooldown):
            kind = options.began if turn.until is None else options.ended
            if not kind:
                continue
            if not options.is_state and (turn.how == "schedule" or not self._is_due(turn.at)):
                continue
            if turn.until is None or not options.is_state:
                kept.totals[options.total] += 1
            last = row if turn.until is None else stay.row or row
            yield self._told(kind, turn, frame, {**_how(turn, stay), **self._skipped(), **last})

    def _is_active(self) -> bool:
        began = self._options.began
        return bool(began) and any(stay.latch.is_on for stay in self._kept.known.stays.values())


def _how(turn: Turn, stay: _Stay) -> dict[str, str]:
    """What ended it, for the data of an event."""
    if turn.until is None:
        return {}
    return {"how": turn.how if turn.how == "schedule" else "crossed" if stay.is_outside else "vanished"}
