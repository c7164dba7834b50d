"""Say how fast objects go from one line to another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np

from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.overlays import Overlay
from edgecv.pipelines.steps.count.line import Line
from edgecv.pipelines.steps.options import Options, checked
from edgecv.pipelines.steps.per_source import PerSource
from edgecv.pipelines.steps.regions import PLACE_KINDS, Placement, Point, Points, Shape, turn
from edgecv.pipelines.steps.rules.options import RuleOptions, named
from edgecv.pipelines.steps.rules.rule import Rule, with_ids
from edgecv.pipelines.steps.rules.seen import Seen
from edgecv.pipelines.steps.rules.timeline import Moment
from edgecv.results import Frame, Result

_PER_S = {"km/h": 3.6, "mph": 3600 / 1609.344, "m/s": 1.0}
_LONGEST_STEP_NS = 2_000_000_000  # out of sight for longer, nobody knows when an object crossed a line
_NOWHERE = [np.nan, np.nan]
_Segment = Annotated[tuple[Point, ...], msgspec.Meta(min_length=2, max_length=2)]
_Positive = Annotated[float, msgspec.Meta(gt=0, le=100_000)]


class Speed(RuleOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``type = "speed"``: measure how fast objects go from one line to another; needs ``track`` before it.

    Each passage, in either direction, is measured once: ``speed.measured``, or, where there are limits, ``speed.over`` and
    ``speed.under`` for what is beyond them. Its counts are ``NAME.measured``, ``NAME.over`` and ``NAME.under``. When an object
    crossed a line is found between two frames, by its way from the one to the other. What comes within ``cooldown_s`` of the last
    event is not said, only counted, as ``skipped`` of the next one.

    Attributes:
        lines: Two lines of two points each, or the names of two steps ``line``, which are followed when they are moved.
        distance_m: From one line to the other, along the way of the objects, metres.
        unit: Of the speeds: ``km/h``, ``mph`` or ``m/s``.
        over: Say so when an object is faster than this.
        under: Say so when an object is slower than this.
    """

    gives_kinds: ClassVar[tuple[str, ...] | None] = ("speed.measured", "speed.over", "speed.under", *PLACE_KINDS)

    lines: Annotated[tuple[str | _Segment, ...], msgspec.Meta(min_length=2, max_length=2)]
    distance_m: _Positive
    unit: Literal["km/h", "mph", "m/s"] = "km/h"
    over: _Positive | None = None
    under: _Positive | None = None

    @property
    def needs_ids(self) -> bool:
        """Whether the step needs tracker ids: yes."""
        return True

    def linked(self, steps: Sequence[object]) -> Options:
        """The rule with the points of the lines that it names.

        Raises ``ConfigError``: there is no such line, it is for other sources, or one line is named and the other is not.
        """
        own = checked(self)
        own.hours()
        names = [line for line in own.lines if isinstance(line, str)]
        if not names:
            return own
        if len(set(names)) != 2:
            raise ConfigError(
                f"'{own.name}' needs the names of two different lines, or the points of both.",
                'lines = ["first", "second"]',
            )
        first, second = (named(steps, name, Line, own.name) for name in names)
        narrowed = msgspec.structs.replace(own, sources=own.shared_sources(first))
        if first.units != second.units:
            raise ConfigError(f"The lines of '{own.name}' have different units.", "Write both in one of them.")
        return msgspec.structs.replace(
            own,
            lines=(first.points, second.points),
            units=first.units,
            anchor=own.anchor or first.anchor,
            sources=narrowed.shared_sources(second),
        )

    def shapes(self) -> tuple[Shape, ...]:
        """Both lines. Raises ``ConfigError``: one is none, or is not known here."""
        if any(isinstance(line, str) for line in self.lines):
            raise ConfigError(
                f"The rule '{self.name}' names lines, which it does not know here.",
                "Give them to the same pipeline, in its steps.",
            )
        return tuple(
            Shape.line(line, self.units, f"line {at} of '{self.name}'")
            for at, line in enumerate(self.lines, start=1)
            if not isinstance(line, str)
        )

    def build(self, labels: tuple[str, ...] = ()) -> PerSource:
        """The step for a model with these labels: a rule for each source.

        Raises ``ConfigError``: a line is none, the limits contradict each other, or the model has no such class.
        """
        options = checked(self)
        if options.over is not None and options.under is not None and options.under >= options.over:
            raise ConfigError(f"The limits of '{options.name}' contradict each other.", "under is lower than over.")
        SpeedWatch(options, labels)  # what is wrong is said now, not at the first frame
        return PerSource(lambda _: SpeedWatch(options, labels), only=options.sources)


@dataclass(slots=True, eq=False)
class _Known:
    """Where objects were last, and which line each crossed last, and when."""

    ids: list[int] = field(default_factory=list)  # of the last frame
    points: Points = field(default_factory=lambda: np.zeros((0, 2)))
    at: Moment = field(default_factory=lambda: Moment(0, 0))
    lost: dict[int, tuple[list[float], Moment]] = field(default_factory=dict)  # who was seen before, and not then
    crossed: dict[int, tuple[int, Moment]] = field(default_factory=dict)

    def before(self, ids: list[int]) -> Points:
        """The last place of each object ``(N, 2)``; NaN where it was never seen."""
        if ids == self.ids:
            return self.points
        rows = {tracker_id: at for at, tracker_id in enumerate(self.ids)}
        places = [
            self.points[rows[one]] if one in rows else self.lost[one][0] if one in self.lost else _NOWHERE
            for one in ids
        ]
        return np.array(places, np.float64).reshape(-1, 2)

    def seen(self, tracker_id: int) -> Moment:
        """When an object was seen last."""
        return self.lost[tracker_id][1] if tracker_id in self.lost else self.at

    def see(self, ids: list[int], points: Points, now: Moment) -> None:
        """Take note of a frame, and drop who was not seen for too long to be measured."""
        if ids != self.ids or self.lost:
            here = set(ids)
            gone = [(one, at) for at, one in enumerate(self.ids) if one not in here]
            self.lost |= {one: (self.points[at].tolist(), self.at) for one, at in gone}
            for one in [one for one, (_, at) in self.lost.items() if one in here or _is_long(at, now)]:
                del self.lost[one]
            for one in [one for one in self.crossed if one not in here and one not in self.lost]:
                del self.crossed[one]
        self.ids, self.points, self.at = ids, points, now

    def scale(self, across: float, down: float) -> None:
        """The image has another size: the same places have other pixels."""
        self.points = self.points * (across, down)
        self.lost = {one: ([x * across, y * down], at) for one, ((x, y), at) in self.lost.items()}


def _is_long(before: Moment, now: Moment) -> bool:
    return not 0 <= now.scene_ns - before.scene_ns <= _LONGEST_STEP_NS


class SpeedWatch(Rule[Speed, _Known]):
    """Step that measures the objects of one source between two lines."""

    def __init__(self, options: Speed, labels: tuple[str, ...]) -> None:
        limits = tuple(name for name, limit in (("over", options.over), ("under", options.under)) if limit is not None)
        super().__init__(options, labels, _Known(), ("measured", *limits))
        self._placements = tuple(
            Placement(shape, f"line {at} of '{options.name}'") for at, shape in enumerate(options.shapes(), start=1)
        )
        self._placed()

    def __call__(self, result: Result) -> Result:
        """The result with the events of the rule, and its lines. Raises ``ConfigError``: no tracker ran before."""
        placed = [placement.follow(result.frame) for placement in self._placements]
        if any(one.points is not line for one, line in zip(self._placements, self._sides.lines, strict=True)):
            self._placed()
        if (grown := placed[0][0]) is not None:
            self._kept.known.scale(*grown)
        self._kept.line.follow(result.frame, self._hours, self._gap_ns)
        events = [*(event for _, said in placed for event in said), *self._judge(result)]
        return replace(result, events=(*result.events, *events), overlays=self._drawn(result.overlays))

    def _replaced(self, before: Rule[Any, Any]) -> None:
        if isinstance(before, SpeedWatch):
            for new, old in zip(self._placements, before._placements, strict=True):
                new.adopt(old)
            mine, others, known = self._options, before._options, self._kept.known
            if mine.place != others.place:  # another point stands for each object, which jumps there
                self._kept.known = _Known()
            elif (mine.lines, mine.units) != (others.lines, others.units):  # it crossed a line that lies elsewhere now
                self._kept.known = replace(known, crossed={})

    def _judge(self, result: Result) -> Iterator[Event]:
        seen = with_ids(self._look(result), result, self._options.name)
        known, now = self._kept.known, self._kept.line.now
        rows = seen.counts.nonzero()[0]
        ids, points = [seen.ids[at] for at in rows.tolist()], seen.points[rows]
        for at, line, share in self._crossings(ids, points):
            yield from self._crossed(seen, int(rows[at]), line, share, result.frame)
        known.see(ids, points, now)

    def _crossings(self, ids: list[int], points: Points) -> list[tuple[int, int, float]]:
        """Row and line of each crossing since the objects were seen last, and after which share of the way; in this order."""
        before, sides = self._kept.known.before(ids), self._sides
        was, now = sides.of(before), sides.of(points)
        found: list[tuple[int, int, float]] = []
        for at, line in np.argwhere(was * now <= 0).tolist():  # nowhere is NaN, and never on another side
            shape, before_at, now_at = self._placements[line].points, float(was[at, line]), float(now[at, line])
            if (before_at >= 0) != (now_at >= 0) and _is_through(before[at], points[at], shape):
                found.append((at, line, before_at / (before_at - now_at)))
        return sorted(found, key=lambda one: one[2])

    def _crossed(self, seen: Seen, at: int, line: int, share: float, frame: Frame) -> Iterator[Event]:
        """Take note of a crossing; the event of what it measures."""
        known, now, tracker_id = self._kept.known, self._kept.line.now, seen.ids[at]
        before = known.seen(tracker_id)
        elapsed_ns = now.scene_ns - before.scene_ns
        last, since = known.crossed.pop(tracker_id, (line, now))
        if _is_long(before, now):
            return
        time_ns = before.time_ns + round(share * (now.time_ns - before.time_ns))
        crossed = Moment(before.scene_ns + round(share * elapsed_ns), time_ns)
        known.crossed[tracker_id] = line, crossed
        seconds = (crossed.scene_ns - since.scene_ns) / 1e9
        if last == line or seconds <= 0:
            return
        speed = self._options.distance_m / seconds * _PER_S[self._options.unit]
        data = {
            "speed": round(speed, 2),
            "unit": self._options.unit,
            "distance_m": self._options.distance_m,
            "seconds": round(seconds, 3),
            "direction": "forth" if line == 1 else "back",
            "since_ns": since.time_ns,
            **seen.row(at),
        }
        yield from self._measured(speed, crossed, frame, data)

    def _measured(self, speed: float, at: Moment, frame: Frame, data: dict[str, Any]) -> Iterator[Event]:
        options, totals = self._options, self._kept.totals
        if not self._is_on(at):
            return
        totals["measured"] += 1
        kind = "measured"
        if options.over is not None and speed > options.over:
            kind, limit = "over", {"limit": options.over}
        elif options.under is not None and speed < options.under:
            kind, limit = "under", {"limit": options.under}
        elif options.over is not None or options.under is not None:
            return
        else:
            limit = {}
        if kind != "measured":
            totals[kind] += 1
        if self._is_due(at):
            yield self._event(f"speed.{kind}", at, frame, {**data, **limit, **self._skipped()})

    def _drawn(self, others: tuple[Overlay, ...]) -> tuple[Overlay, ...]:
        """The lines, unless steps drew them already."""
        if not others:
            return self._overlays
        drawn = {one.points for one in others}
        return (*others, *(one for one in self._overlays if one.points not in drawn))

    def _placed(self) -> None:
        """The lines lie elsewhere in the image than before."""
        placed = [placement.points for placement in self._placements]
        self._sides = _Sides(placed)
        corners = [tuple((float(x), float(y)) for x, y in points.tolist()) for points in placed]
        self._overlays = tuple(
            Overlay(name=f"{self._options.name} {at}", shape="line", points=points)
            for at, points in enumerate(corners, start=1)
        )


class _Sides:
    """On which side of each of some lines points are."""

    def __init__(self, lines: Sequence[Points]) -> None:
        self.lines = lines
        run, rise = np.array([line[1] - line[0] for line in lines]).T
        x, y = np.array([line[0] for line in lines]).T
        self._weights, self._offset = np.array([-rise, run]), rise * x - run * y

    def of(self, points: Points) -> Points:
        """Twice the area between each of ``(N, 2)`` points and each line: ``(N, 2)``; positive to the right of the line."""
        return np.asarray(points @ self._weights + self._offset)


def _is_through(before: Points, after: Points, line: Points) -> bool:
    return turn(before, after, line[0]) * turn(before, after, line[1]) <= 0
