"""Count what enters and leaves an area, how much is in it, and for how long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np

from edgecv.events import Event
from edgecv.pipelines.steps.count.counting import COUNTER_KINDS, CounterOptions, Seconds, Sighting, sightings
from edgecv.pipelines.steps.count.drawn import Drawn
from edgecv.pipelines.steps.count.memory import Memory
from edgecv.pipelines.steps.count.totals import CounterFile, Totals
from edgecv.pipelines.steps.options import Options, checked
from edgecv.pipelines.steps.per_source import PerSource
from edgecv.pipelines.steps.regions import Placement, Polygon, Shape, inside
from edgecv.results import Frame, Result


class Zone(CounterOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``type = "zone"``: count tracked objects that enter and leave an area; needs the step ``track`` before it.

    Its counts are ``NAME.inside``, ``NAME.entered`` and ``NAME.left``; an object that is forgotten inside has left. With
    ``per_class`` there are also ``NAME.inside.person`` and the like.

    Attributes:
        points: Corners of the area, in order round it.
        settle_s: An object is in when it has stayed in for so long, and out when it has stayed out for so long, seconds.
        dwell_s: Say so, once per stay, when an object has been in for so long, seconds; 0 for never.
    """

    gives_kinds: ClassVar[tuple[str, ...] | None] = ("zone.entered", "zone.left", "zone.dwell", *COUNTER_KINDS)

    points: Annotated[Polygon, msgspec.Meta(min_length=3)]
    settle_s: Seconds = 0.3
    dwell_s: Seconds = 0.0

    def linked(self, steps: Sequence[object]) -> Options:
        """The same zone, which forgets an object when ``track`` does: one that comes back later has another id by then."""
        kept_s = [step.keeps_ids_s for step in steps if isinstance(step, Options) and step.keeps_ids_s is not None]
        return self if self.forget_s is not None or not kept_s else msgspec.structs.replace(self, forget_s=max(kept_s))

    def build(self, labels: tuple[str, ...] = (), file: CounterFile | None = None) -> PerSource:
        """The step for a model with these labels: a counter for each source.

        Raises ``ConfigError``: the area is none, the model has no such class, or the state file cannot be had.
        """
        options = checked(self)
        shape = Shape.polygon(options.points, options.units, f"zone '{options.name}'")
        wanted, file = options.wanted(labels), file or options.file()
        names = ("entered", "left", "dwelled") if options.dwell_s else ("entered", "left")

        def make(source_id: str) -> ZoneCounter:
            return ZoneCounter(options, shape, Totals(options.name, source_id, file, names), wanted)

        return PerSource(make, only=options.sources, orphans=None if file is None else file.orphans, share=file)


@dataclass(slots=True, kw_only=True)
class _Stay:
    seen: Sighting
    seen_ns: int  # monotonic, as all times here
    is_in: bool  # in this frame
    since_ns: int  # when the object appeared or last crossed the border
    turned: Sighting  # the sighting at that moment
    was_out: bool = False  # whether it was seen to stay out before
    entered_as: str = ""  # its class when it entered, as which it leaves: a later frame may see another
    entered_ns: int | None = None  # since when it counts as in; None while it does not
    has_dwelled: bool = False
    is_silent: bool = False  # it is in, for the area was moved over it, and did not count as entered
    is_back: bool = False  # it counted as entered, then the area was moved off it: its next entry is no other one


class ZoneCounter:
    """Step that counts the stays in one area at one source and adds ``zone.entered``, ``zone.left`` and ``zone.dwell`` events.

    What first appears inside has entered (``how`` says ``appeared``), and what vanishes inside has left (``vanished``), so
    that ``inside`` is always what entered less what left since the start; but for objects over which the area was moved while
    it runs: these are in or out at once, and neither enter nor leave.
    """

    def __init__(self, options: Zone, shape: Shape, totals: Totals, wanted: frozenset[int] | None) -> None:
        self._options, self._totals, self._wanted = options, totals, wanted
        self._placement = Placement(shape, f"zone '{options.name}'")
        self._drawn = Drawn(options.name, "zone")
        self._settle_ns, self._dwell_ns = round(options.settle_s * 1e9), round(options.dwell_s * 1e9)
        self._stays: Memory[_Stay] = Memory(options.forget_ns)
        self._inside = 0
        self._inside_by_class: dict[str, int] = {}

    def __call__(self, result: Result) -> Result:
        """The result with the zone and its events. Raises ``ConfigError``: no tracker ran before."""
        frame = result.frame
        _, said = self._placement.follow(frame)
        events = [*said]
        there = list(sightings(result, self._options.anchor, self._wanted, self._options.name))
        for stay in self._gone(frame.scene_ns, {seen.tracker_id for seen in there}):
            events.append(self._left(stay, frame, stay.seen_ns, "vanished"))
        points = np.array([seen.point for seen in there]).reshape(-1, 2)
        for seen, is_in in zip(there, inside(points, self._placement.points).tolist(), strict=True):
            stay = _follow(self._stays.get(seen.tracker_id), seen, is_in, frame.scene_ns)
            self._stays.see(seen.tracker_id, stay, frame.scene_ns)
            events += self._judge(stay, frame)
        events += self._totals.save(frame)
        shown = self._drawn.onto(result, self._placement.points, self.counts())
        return replace(shown, events=(*result.events, *events)) if events else shown

    def adopt(self, before: object) -> bool:
        """Go on with the totals and stays of an area of the same name, which may have been moved."""
        if not isinstance(before, ZoneCounter):
            return False
        self._totals.adopt(before._totals)
        moved = self._placement.adopt(before._placement)
        for tracker_id, seen_ns, known in before._stays.items():
            if self._wanted is not None and known.seen.class_id not in self._wanted:
                continue  # it does not count any more
            stay = replace(known)
            is_in = bool(inside(np.array([stay.seen.point]), self._placement.points)[0]) if moved else stay.is_in
            if is_in != stay.is_in:
                _moved_over(stay)
            self._stays.see(tracker_id, stay, seen_ns)
            if stay.entered_ns is not None:
                self._change_inside(stay, 1)
        return True

    def counts(self) -> Mapping[str, int]:
        """``NAME.inside`` now, and what entered and left so far."""
        name = self._options.name
        by_class = {f"{name}.inside.{label}": count for label, count in tuple(self._inside_by_class.items())}
        return {f"{name}.inside": self._inside, **by_class, **self._totals.counts()}

    def close(self) -> None:
        """Write the counts that are not yet in the file."""
        self._totals.close()

    def _gone(self, now_ns: int, there: Set[int]) -> list[_Stay]:
        """Who was out of sight for too long; an id that is in this frame is not, however long the frame was awaited."""
        for tracker_id in there:
            if (stay := self._stays.get(tracker_id)) is not None:
                self._stays.see(tracker_id, stay, now_ns)
        return [stay for _, stay in self._stays.forget(now_ns) if stay.entered_ns is not None]

    def _judge(self, stay: _Stay, frame: Frame) -> Iterator[Event]:
        """What follows from the object being where it is since it is there."""
        if frame.scene_ns - stay.since_ns >= self._settle_ns:
            if stay.is_in and stay.entered_ns is None and stay.is_back:
                stay.entered_ns, stay.is_back = stay.since_ns, False
                self._change_inside(stay, 1)
            elif stay.is_in and stay.entered_ns is None:
                yield self._entered(stay, frame)
            elif not stay.is_in and stay.entered_ns is not None:
                yield self._left(stay, frame, stay.since_ns, "crossed")
            stay.was_out = stay.was_out or not stay.is_in
        due = self._dwell_ns and not stay.has_dwelled and stay.is_in and stay.entered_ns is not None
        if due and frame.scene_ns - (stay.entered_ns or 0) >= self._dwell_ns:
            stay.has_dwelled = True
            data = {"dwell_s": _seconds(frame.scene_ns - (stay.entered_ns or 0))}
            yield self._event("zone.dwell", "dwelled", stay.seen, frame, data)

    def _entered(self, stay: _Stay, frame: Frame) -> Event:
        stay.entered_ns, stay.has_dwelled, stay.entered_as = stay.since_ns, False, stay.turned.label
        stay.is_silent = False
        self._change_inside(stay, 1)
        how = "crossed" if stay.was_out else "appeared"
        return self._event("zone.entered", "entered", stay.turned, frame, {"how": how})

    def _left(self, stay: _Stay, frame: Frame, until_ns: int, how: str) -> Event:
        dwell_s = _seconds(until_ns - (stay.entered_ns or 0))
        stay.entered_ns = None
        self._change_inside(stay, -1)
        seen = stay.seen if how == "vanished" else stay.turned
        return self._event("zone.left", "left", seen, frame, {"how": how, "dwell_s": dwell_s})

    def _change_inside(self, stay: _Stay, by: int) -> None:
        self._inside += by
        if self._options.per_class:
            self._inside_by_class[stay.entered_as] = self._inside_by_class.get(stay.entered_as, 0) + by

    def _event(self, kind: str, count: str, seen: Sighting, frame: Frame, more: Mapping[str, Any]) -> Event:
        per_class = (f"{count}.{seen.label}",) if self._options.per_class else ()
        total, *of_class = self._totals.add(count, *per_class)
        by_class = {"class_total": of_class[0]} if of_class else {}
        totals = {"total": total, "inside": self._inside, **by_class}
        data = {"counter": self._options.name, **more, **totals, **seen.as_data()}
        return Event(kind=kind, time_ns=frame.captured_ns, source_id=frame.source_id, data=data)


def _follow(stay: _Stay | None, seen: Sighting, is_in: bool, now_ns: int) -> _Stay:
    if stay is None:
        return _Stay(seen=seen, seen_ns=now_ns, is_in=is_in, since_ns=now_ns, turned=seen)
    if is_in != stay.is_in:
        stay.is_in, stay.since_ns, stay.turned = is_in, now_ns, seen
    stay.seen, stay.seen_ns = seen, now_ns
    return stay


def _moved_over(stay: _Stay) -> None:
    """The area was moved over the object, or off it: it is in or out now, and has neither entered nor left."""
    was_counted, stay.is_in = stay.entered_ns is not None, not stay.is_in
    stay.since_ns, stay.turned = stay.seen_ns, stay.seen
    if was_counted and not stay.is_in:
        stay.entered_ns, stay.is_back, stay.is_silent = None, not stay.is_silent, False
    elif stay.is_in and not was_counted:
        stay.entered_ns, stay.entered_as, stay.has_dwelled = stay.seen_ns, stay.seen.label, False
        stay.is_back, stay.is_silent = False, not stay.is_back


def _seconds(elapsed_ns: int) -> float:
    return round(elapsed_ns / 1e9, 3)
