"""What every rule does: follow the times of its source, judge what it sees, and say what began and what is over."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.pipelines.steps.rules.area import Area
from edgecv.pipelines.steps.rules.latch import Cooldown, Turn
from edgecv.pipelines.steps.rules.options import AreaRule, RuleOptions
from edgecv.pipelines.steps.rules.seen import Seen, Wanted, look
from edgecv.pipelines.steps.rules.timeline import Moment, Timeline
from edgecv.results import Frame, Result

_Known = TypeVar("_Known")
_Asked = TypeVar("_Asked", bound=RuleOptions)


@dataclass(slots=True, kw_only=True, eq=False)
class Kept(Generic[_Known]):
    """All that a rule remembers of a source: it goes on with it when its shape is moved. Images are no part of it."""

    known: _Known
    line: Timeline = field(default_factory=Timeline)
    cooldown: Cooldown = field(default_factory=Cooldown)
    totals: dict[str, int] = field(default_factory=dict)
    skipped: int = 0  # what happened within the cooldown, since the last event


class Rule(ABC, Generic[_Asked, _Known]):
    """A rule at one source. Who inherits it says what it judges, in ``_judge``."""

    def __init__(self, options: _Asked, labels: tuple[str, ...], known: _Known, totals: tuple[str, ...]) -> None:
        """Raises ``ConfigError``: the model has no such class, or the schedule is none."""
        self._options = options
        self._wanted = Wanted(options.wanted(labels))
        self._hours = options.hours()
        self._gap_ns, self._anchor = options.gap_ns, options.place
        self._kept = Kept(known=known, totals=dict.fromkeys(totals, 0))

    def __call__(self, result: Result) -> Result:
        """The result with the events of the rule. Raises ``ConfigError``: it cannot be judged by what the model gives."""
        self._kept.line.follow(result.frame, self._hours, self._gap_ns)
        events = [*self._judge(result)]
        return replace(result, events=(*result.events, *events)) if events else result

    def counts(self) -> Mapping[str, int]:
        """What it counted so far, by ``NAME.COUNT``."""
        return {f"{self._options.name}.{name}": count for name, count in tuple(self._kept.totals.items())}

    def adopt(self, before: object) -> bool:
        """Go on with what another one of the same kind remembers: what was waited for is not waited for anew."""
        if not isinstance(before, Rule) or type(before._options) is not type(self._options):
            return False
        totals = {name: before._kept.totals.get(name, count) for name, count in self._kept.totals.items()}
        self._kept = replace(
            before._kept, totals=totals
        )  # other limits have other totals; the one before stays as it is
        self._replaced(before)
        return True

    def _replaced(self, before: Rule[Any, Any]) -> None:
        """Take over where the shapes of the same kind of rule lie in the image."""

    @abstractmethod
    def _judge(self, result: Result) -> Iterator[Event]:
        """What the rule has to say about a frame."""

    def _look(self, result: Result) -> Seen:
        """The objects of a frame, and which of them are of its classes. Raises ``ConfigError``: there are no detections."""
        return look(result, self._wanted, self._anchor, self._options.name)

    def _told(self, kind: str, turn: Turn, frame: Frame, data: Mapping[str, Any]) -> Event:
        """The event of something that began or is over."""
        times: dict[str, Any] = {"since_ns": turn.since.time_ns}
        if turn.until is not None:
            lasted_s = round((turn.until.scene_ns - turn.since.scene_ns) / 1e9, 3)
            times |= {"until_ns": turn.until.time_ns, "lasted_s": lasted_s, "how": turn.how}
        return self._event(kind, turn.at, frame, {**times, **data})

    def _event(self, kind: str, at: Moment, frame: Frame, data: Mapping[str, Any]) -> Event:
        position = {} if frame.position_ns is None else {"position_s": round(at.scene_ns / 1e9, 6)}
        return Event(
            kind=kind,
            time_ns=at.time_ns,
            source_id=frame.source_id,
            data={"rule": self._options.name, **position, **data},
            priority=self._options.priority,
        )

    def _is_on(self, at: Moment) -> bool:
        """Whether the schedule lets something count that lasts for no time."""
        line = self._kept.line
        return line.is_open and at.scene_ns >= line.turned_ns

    def _is_due(self, at: Moment) -> bool:
        """Whether it may be said, by the cooldown; else it is counted as skipped."""
        kept = self._kept
        if at.scene_ns < kept.cooldown.ready_ns:
            kept.skipped += 1
            return False
        kept.cooldown.ready_ns = at.scene_ns + round(self._options.cooldown_s * 1e9)
        return True

    def _skipped(self) -> dict[str, int]:
        """For the data of an event: how many were not said since the last one."""
        skipped, self._kept.skipped = self._kept.skipped, 0
        return {"skipped": skipped} if skipped else {}


_Where = TypeVar("_Where", bound=AreaRule)


class AreaWatch(Rule[_Where, _Known], Generic[_Where, _Known]):
    """A rule that looks at an area of one source, or at its whole image."""

    def __init__(self, options: _Where, labels: tuple[str, ...], known: _Known, totals: tuple[str, ...]) -> None:
        """Raises ``ConfigError`` as ``Rule``, and for an area that is none."""
        super().__init__(options, labels, known, ("inside", *totals))
        self._area = Area(options)
        self._limits = options.limits

    def __call__(self, result: Result) -> Result:
        """The result with the events of the rule, and its area. Raises ``ConfigError`` as ``Rule``."""
        said, kept = self._area.follow(result.frame), self._kept
        kept.line.follow(result.frame, self._hours, self._gap_ns)
        events = [*said, *self._judge(result)]
        overlays = self._area.drawn(result.overlays, kept.totals, self._is_active())
        if not events and overlays is result.overlays:
            return result
        return replace(result, events=(*result.events, *events), overlays=overlays)

    def _replaced(self, before: Rule[Any, Any]) -> None:
        if isinstance(before, AreaWatch):
            self._area.adopt(before._area)

    def _is_active(self) -> bool:
        """Whether the rule holds at this moment."""
        return False

    def _told(self, kind: str, turn: Turn, frame: Frame, data: Mapping[str, Any]) -> Event:
        zone = {"zone": self._options.zone} if self._options.zone else {}
        return super()._told(kind, turn, frame, {**zone, "for_s": self._options.for_s, **data})

    def _only_label(self, labels: tuple[str, ...]) -> dict[str, str]:
        """For the data of an event about no single object: the class, where the rule looks at one."""
        classes = self._options.wanted(labels) or ()
        return {"label": labels[next(iter(classes))]} if labels and len(classes) == 1 else {}


def with_ids(seen: Seen, result: Result, rule: str) -> Seen:
    """The same. Raises ``ConfigError``: nothing tracks the objects."""
    if result.detections is not None and result.detections.tracker_id is None:
        raise ConfigError(f"'{rule}' follows objects, and nothing tracks them.", "Add the step 'track' before it.")
    return seen
