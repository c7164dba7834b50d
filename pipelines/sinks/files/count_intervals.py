"""Sorts what counters say into intervals of one source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from edgecv.events import Event
from edgecv.overlays import Overlay
from edgecv.results import Frame, Result

MOST_FILLED = 1440  # intervals in which nothing happened, in a row: more are a jump of the clock

_NAMES = {"zone.entered": "entered", "zone.left": "left", "zone.dwell": "dwelled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalCount:
    """One counter in one interval.

    Attributes:
        number: Of the interval, whose start is ``number * every_s`` on its clock.
        counter: Such as ``door.in``.
        count: How often it counted; ``None`` for a level.
        total: Its total at the end; ``None`` for a level.
        peak: Highest value of a level, such as ``yard.inside``; ``None`` for what only grows.
        last: Value of a level at the end.
        frames: Results of the source in the interval; with 0 nobody looked.
    """

    number: int
    counter: str
    count: int | None = None
    total: int | None = None
    peak: int | None = None
    last: int | None = None
    frames: int = 0


@dataclass(slots=True)
class _Level:
    """A value that goes up and down; of several at one time only the last ever was seen."""

    peak: int
    last: int
    time_ns: int = -1

    def become(self, value: int, time_ns: int) -> None:
        if time_ns != self.time_ns:
            self.peak = max(self.peak, self.last)
        self.last, self.time_ns = value, time_ns

    def final(self) -> _Level:
        return _Level(peak=max(self.peak, self.last), last=self.last)


@dataclass(slots=True)
class _Interval:
    frames: int = 0
    counted: Counter[str] = field(default_factory=Counter)
    totals: dict[str, int] = field(default_factory=dict)
    levels: dict[str, _Level] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)  # counters that a result showed

    def still_has(self, name: str) -> bool:
        """Whether a counter is not known to have left the pipeline: results show all that are there."""
        return not self.seen or name in self.counted or name.partition(".")[0] in self.seen


class SourceIntervals:
    """The intervals of one source that are not complete yet.

    Each event counts once, in the interval of its own time, whichever result brings it. What a total has beyond these, such
    as that of a rule whose events were held back, counts when a result shows it. What comes for an interval that was given
    already is given later as a further count of the same interval: nothing is lost and nothing counts twice.

    Attributes:
        is_file: Whether the intervals are those of the file's own time; else they are those of the wall clock.
        first_totals: By counter: its total before anything was counted here.
    """

    def __init__(self, every_s: float, *, is_file: bool) -> None:
        self.is_file = is_file
        self.first_totals: dict[str, int] = {}
        self._every_ns = round(every_s * 1e9)
        self._open: dict[int, _Interval] = {}
        self._given: int | None = None  # the newest interval that was given
        self._newest: int | None = None  # that of the newest result
        self._levels: dict[str, int] = {}  # now
        self._counted: dict[str, tuple[int, int]] = {}  # by counter: the total up to which all is counted, and its time
        self._given_totals: dict[str, int] = {}  # at the end of the newest interval that was given
        self._given_levels: dict[str, int] = {}

    def begin(self, frame: Frame) -> Iterator[IntervalCount]:
        """Call it before the events of a frame; gives what is open when the file begins anew or the clock was set back."""
        number = self._time_of(frame) // self._every_ns
        if self._newest is not None and number < self._newest:
            yield from self.rest()
            self._given = None if self.is_file else self._given
            self._counted = {name: (total, 0) for name, (total, _) in self._counted.items()}

    def count(self, event: Event) -> None:
        """Take one event, if a counter said it."""
        counter, total = event.data.get("counter"), event.data.get("total")
        name = event.data.get("direction") or _NAMES.get(event.kind)
        if not (isinstance(counter, str) and isinstance(name, str) and isinstance(total, int)):
            return
        time_ns = self._time_of_event(event)
        interval = self._at(time_ns // self._every_ns)
        self._add(interval, f"{counter}.{name}", total, time_ns, happened=True)
        if isinstance(of_class := event.data.get("class_total"), int):
            self._add(interval, f"{counter}.{name}.{event.data.get('label')}", of_class, time_ns, happened=True)
        if isinstance(inside := event.data.get("inside"), int):
            self._become(interval, f"{counter}.inside", inside, time_ns)

    def add(self, result: Result) -> Iterator[IntervalCount]:
        """Take a result, after its events; gives the intervals that are complete now."""
        now_ns = self._time_of(result.frame)
        self._newest = now_ns // self._every_ns
        interval = self._at(self._newest)
        interval.frames += 1
        for overlay in result.overlays:
            self._look(overlay, interval, now_ns)
        yield from self._complete(self._newest)

    def is_silent(self, now_ns: int) -> bool:
        """Whether an interval of the wall clock has ended in which nothing came."""
        number = now_ns // self._every_ns
        waits = self._given is not None and number > self._given + 1
        return waits and not self.is_file and not any(one < number for one in self._open)

    def until(self, now_ns: int) -> Iterator[IntervalCount]:
        """The intervals that ended before that time."""
        yield from self._complete(now_ns // self._every_ns)

    def rest(self) -> Iterator[IntervalCount]:
        """All that was not given, of an interval that has not ended, too."""
        if self._open:
            yield from self._complete(max(self._open) + 1)

    def _complete(self, before: int) -> Iterator[IntervalCount]:
        for number in self._ended(before):
            interval = self._open.pop(number, None) or _Interval(levels=_carried(self._given_levels))
            is_late = self._given is not None and number <= self._given
            yield from self._rows(number, interval, is_late)
            if not is_late:
                self._given = number

    def _ended(self, before: int) -> list[int]:
        """Those that are to be given, also where nothing came."""
        there = {number for number in self._open if number < before}
        first = min(there, default=before) if self._given is None else self._given + 1
        empty = range(first, before) if before - first <= MOST_FILLED else range(0)
        return sorted(there | set(empty))

    def _time_of(self, frame: Frame) -> int:
        return frame.position_ns if self.is_file and frame.position_ns is not None else frame.captured_ns

    def _time_of_event(self, event: Event) -> int:
        position_s = event.data.get("position_s") if self.is_file else None
        return round(position_s * 1e9) if isinstance(position_s, int | float) else event.time_ns

    def _at(self, number: int) -> _Interval:
        if number not in self._open:
            is_late = self._given is not None and number <= self._given
            self._open[number] = _Interval(levels={} if is_late else _carried(self._levels))
        return self._open[number]

    def _add(self, interval: _Interval, name: str, total: int, time_ns: int, *, happened: bool) -> None:
        """Count up to a total; ``happened`` where an event says that it grew by one at that time."""
        self.first_totals.setdefault(name, total - happened)
        up_to, counted_ns = self._counted.get(name, (self.first_totals[name], time_ns))
        if time_ns < counted_ns:  # a later event came before it, and counted for both
            return
        began_anew = total <= up_to if happened else total < up_to
        interval.counted[name] += int(happened) if began_anew else total - up_to
        interval.totals[name] = total
        self._counted[name] = total, time_ns

    def _become(self, interval: _Interval, name: str, value: int, time_ns: int) -> None:
        interval.levels.setdefault(name, _Level(peak=0, last=0)).become(value, time_ns)
        self._levels[name] = value

    def _look(self, overlay: Overlay, interval: _Interval, now_ns: int) -> None:
        interval.seen.add(overlay.name)
        for what, value in overlay.counts.items():
            name = f"{overlay.name}.{what}"
            if what in overlay.levels:
                self._become(interval, name, value, now_ns)
            else:
                self._add(interval, name, value, now_ns, happened=False)

    def _rows(self, number: int, interval: _Interval, is_late: bool) -> Iterator[IntervalCount]:
        shown = interval.totals if is_late else {**self._given_totals, **interval.totals}
        totals = {name: total for name, total in shown.items() if interval.still_has(name)}
        levels = {name: level.final() for name, level in interval.levels.items() if interval.still_has(name)}
        for name, total in totals.items():
            count = interval.counted[name]
            yield IntervalCount(number=number, counter=name, count=count, total=total, frames=interval.frames)
        for name, level in levels.items():
            yield IntervalCount(number=number, counter=name, peak=level.peak, last=level.last, frames=interval.frames)
        if not is_late:
            self._given_totals = totals
            self._given_levels = {name: level.last for name, level in levels.items()}


def _carried(levels: Mapping[str, int]) -> dict[str, _Level]:
    return {name: _Level(peak=value, last=value) for name, value in levels.items()}
