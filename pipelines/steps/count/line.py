"""Count what crosses a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import msgspec

from edgecv.events import Event
from edgecv.pipelines.steps.count.counting import COUNTER_KINDS, CounterOptions, Name, Seconds, Sighting, sightings
from edgecv.pipelines.steps.count.drawn import Drawn
from edgecv.pipelines.steps.count.memory import Memory
from edgecv.pipelines.steps.count.totals import CounterFile, Totals
from edgecv.pipelines.steps.options import checked
from edgecv.pipelines.steps.per_source import PerSource
from edgecv.pipelines.steps.regions import Placement, Point, Points, Shape, turn
from edgecv.results import Result


class Line(CounterOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``type = "line"``: count tracked objects that cross a line; needs the step ``track`` before it.

    Its counts are ``NAME.in`` and ``NAME.out``.

    Attributes:
        points: Start and end of the line. Who walks from its start to its end has on the right the side that ``in`` leads
            to.
        directions: Names of the ways across: to the right side, to the left side.
        settle_s: An object counts when it has stayed on the other side for so long, seconds; before it must have stayed on
            the first side for so long.
    """

    gives_kinds: ClassVar[tuple[str, ...] | None] = ("line.crossed", *COUNTER_KINDS)

    points: Annotated[tuple[Point, ...], msgspec.Meta(min_length=2, max_length=2)]
    directions: tuple[Name, Name] = ("in", "out")
    settle_s: Seconds = 0.3

    def build(self, labels: tuple[str, ...] = (), file: CounterFile | None = None) -> PerSource:
        """The step for a model with these labels: a counter for each source.

        Raises ``ConfigError``: the line is no line, the model has no such class, or the state file cannot be had.
        """
        options = checked(self)
        shape = Shape.line(options.points, options.units, f"line '{options.name}'")
        wanted, file = options.wanted(labels), file or options.file()

        def make(source_id: str) -> LineCounter:
            totals = Totals(options.name, source_id, file, options.directions)
            return LineCounter(options, shape, totals, wanted)

        return PerSource(make, only=options.sources, orphans=None if file is None else file.orphans, share=file)


@dataclass(slots=True, kw_only=True)
class _Walk:
    """What is known of one object: +1 is the right side of the line, -1 the left."""

    side: int
    since_ns: int  # monotonic, when it came to this side
    last: Point
    settled: int = 0  # the side where it last stayed long enough; 0 while there was none
    through: int = 0  # ways through the line since then: to the right less to the left
    crossed: Sighting | None = None  # the latest of these
    counted: int = 0  # the side to which it last counted
    barred: int = 0  # the side to which it may not count: it did so already, and then the line was moved ahead of it

    def turned(self, back: bool) -> _Walk:
        """The same as a line sees it that is drawn in the other direction, or in the same."""
        by = -1 if back else 1
        sides = (by * side for side in (self.side, self.settled, self.through, self.counted, self.barred))
        side, settled, through, counted, barred = sides
        return replace(self, side=side, settled=settled, through=through, counted=counted, barred=barred)

    def moved_over(self) -> None:
        """The line was moved over the object: that is no crossing, and one that was under way is none any more."""
        self.barred = self.side if self.counted == self.side else 0 if self.barred == -self.side else self.barred
        self.side = -self.side
        self.settled = self.side if self.settled else 0
        self.through, self.crossed = 0, None


class LineCounter:
    """Step that counts the crossings of one source and adds ``line.crossed`` events.

    A crossing is a change of the side on which an object stays for ``settle_s``, through the segment and not round its end.
    Jitter on the line, shorter than that, counts at most once.
    """

    def __init__(self, options: Line, shape: Shape, totals: Totals, wanted: frozenset[int] | None) -> None:
        self._options, self._totals, self._wanted = options, totals, wanted
        self._placement = Placement(shape, f"line '{options.name}'")
        self._drawn = Drawn(options.name, "line")
        self._settle_ns = round(options.settle_s * 1e9)
        self._walks: Memory[_Walk] = Memory(options.forget_ns)

    def __call__(self, result: Result) -> Result:
        """The result with the line and the events of its crossings. Raises ``ConfigError``: no tracker ran before."""
        frame = result.frame
        grown, said = self._placement.follow(frame)
        line, now_ns = self._placement.points, frame.scene_ns
        self._walks.forget(now_ns)
        if grown is not None:  # where objects were last lies elsewhere in the new image
            for known in self._walks:
                known.last = (known.last[0] * grown[0], known.last[1] * grown[1])
        events: list[Event] = [*said]
        for seen in sightings(result, self._options.anchor, self._wanted, self._options.name):
            walk = self._walks.get(seen.tracker_id)
            if walk is None:
                walk = _Walk(side=_side(seen.point, line), since_ns=now_ns, last=seen.point)
            else:
                _step(walk, seen, line, now_ns)
            self._walks.see(seen.tracker_id, walk, now_ns)
            if now_ns - walk.since_ns >= self._settle_ns and (crossed := _settle(walk)) is not None:
                events.append(self._count(crossed, walk.side, result))
        events += self._totals.save(frame)
        shown = self._drawn.onto(result, line, self.counts())
        return replace(shown, events=(*result.events, *events)) if events else shown

    def adopt(self, before: object) -> bool:
        """Go on with the totals and objects of a line of the same name, which may have been moved.

        An object over which it was moved is on its other side now, without having crossed it. One that counted before does
        not count in that direction once more.
        """
        if not isinstance(before, LineCounter):
            return False
        self._totals.adopt(before._totals)
        placed, moved = before._placement.points, self._placement.adopt(before._placement)
        line = self._placement.points
        back = moved and float((line[1] - line[0]) @ (placed[1] - placed[0])) < 0
        for tracker_id, seen_ns, known in before._walks.items():
            walk = known.turned(back)
            if moved and _side(walk.last, line) != walk.side:
                walk.moved_over()
                walk.since_ns = seen_ns
            self._walks.see(tracker_id, walk, seen_ns)
        return True

    def counts(self) -> Mapping[str, int]:
        """Crossings so far, by ``NAME.DIRECTION``."""
        return self._totals.counts()

    def close(self) -> None:
        """Write the counts that are not yet in the file."""
        self._totals.close()

    def _count(self, crossed: Sighting, side: int, result: Result) -> Event:
        direction = self._options.directions[0 if side > 0 else 1]
        more = (f"{direction}.{crossed.label}",) if self._options.per_class else ()
        total, *of_class = self._totals.add(direction, *more)
        by_class = {"class_total": of_class[0]} if of_class else {}
        data = {"counter": self._options.name, "direction": direction, "total": total, **by_class, **crossed.as_data()}
        frame = result.frame
        return Event(kind="line.crossed", time_ns=frame.captured_ns, source_id=frame.source_id, data=data)


def _side(point: Point, line: Points) -> int:
    return 1 if turn(line[0], line[1], point) >= 0 else -1


def _step(walk: _Walk, seen: Sighting, line: Points, now_ns: int) -> None:
    side = _side(seen.point, line)
    if side != walk.side:
        walk.side, walk.since_ns = side, now_ns
        if _is_through(walk.last, seen.point, line):
            walk.through += side
            walk.crossed = seen
    walk.last = seen.point


def _is_through(before: Point, after: Point, line: Points) -> bool:
    """Whether the way from one side to the other meets the segment: its ends then lie on different sides of the way."""
    return turn(before, after, line[0]) * turn(before, after, line[1]) <= 0


def _settle(walk: _Walk) -> Sighting | None:
    """Take note that the object stays where it is; its crossing, if that is one."""
    counts = walk.settled not in (0, walk.side) and walk.through * walk.side > 0 and walk.barred != walk.side
    crossed = walk.crossed if counts else None
    walk.settled, walk.through = walk.side, 0
    walk.counted = walk.side if counts else walk.counted
    walk.barred = 0 if walk.barred == walk.side else walk.barred
    return crossed
