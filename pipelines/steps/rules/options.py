"""The options that rules share, and how a rule finds the zone or line that it names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, TypeVar

import msgspec

from edgecv._internal.printable import nearest
from edgecv.errors import ConfigError
from edgecv.pipelines.steps.count.counting import CounterOptions, Name, Seconds
from edgecv.pipelines.steps.count.zone import Zone
from edgecv.pipelines.steps.options import Options, checked
from edgecv.pipelines.steps.regions import Anchor, Polygon, Shape, Units
from edgecv.pipelines.steps.rules.latch import Limits
from edgecv.pipelines.steps.rules.schedule import OpenHours, Schedule
from edgecv.vision.class_names import class_ids

_Counter = TypeVar("_Counter", bound=CounterOptions)


class RuleOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every rule is asked.

    Attributes:
        name: Of the rule; it stands before its counts and, as ``rule``, in its events.
        classes: Names or numbers of the classes that it looks at; all by default.
        sources: Names of the sources that it is for; by default those of the zone or line that it names, else all.
        units: ``px`` of the frame, or ``relative``: 0 to 1 of its width and height.
        anchor: The point that stands for a box; by default that of the zone it names, else ``bottom_center``.
        cooldown_s: After it said that something began, it says so again at the earliest after so long, seconds.
        gap_s: When the source itself gives no frame for longer than this, what was waited for begins anew, seconds.
        schedule: Days and hours at which the rule is on; always by default.
        priority: Of its events: ``event``, or ``alarm``, which an outbox sends first.
    """

    name: Name
    classes: tuple[str | int, ...] = ()
    sources: tuple[str, ...] = ()
    units: Units = "px"
    anchor: Anchor | None = None
    cooldown_s: Seconds = 0.0
    gap_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 10.0
    schedule: Schedule | None = None
    priority: Literal["event", "alarm"] = "event"

    @property
    def only_sources(self) -> tuple[str, ...]:
        """Names of the sources that the step is for; empty: for all."""
        return self.sources

    @property
    def gap_ns(self) -> int:
        """How long the source may give no frame, nanoseconds."""
        return round(self.gap_s * 1e9)

    @property
    def place(self) -> Anchor:
        """The point that stands for a box."""
        return self.anchor or "bottom_center"

    def wanted(self, labels: tuple[str, ...]) -> frozenset[int] | None:
        """The classes that it looks at, of a model with these labels; ``None`` for all."""
        return class_ids(self.classes, labels) if self.classes else None

    def hours(self) -> OpenHours | None:
        """The schedule, checked; ``None``: always. Raises ``ConfigError`` as ``OpenHours``."""
        return None if self.schedule is None else OpenHours(self.schedule, self.name)

    def linked(self, steps: Sequence[object]) -> Options:  # noqa: ARG002 - rules with a zone need them
        """The same rule, checked as far as that is possible before a model is loaded. Raises ``ConfigError`` as ``build``."""
        own = checked(self)
        own.hours()
        return own

    def shared_sources(self, counter: CounterOptions) -> tuple[str, ...]:
        """The sources of the rule, which must be among those of a zone or line that it names."""
        if not counter.sources:
            return self.sources
        if foreign := [name for name in self.sources if name not in counter.sources]:
            raise ConfigError(
                f"The rule '{self.name}' is for the source '{foreign[0]}', and '{counter.name}', which it names, is not.",
                f"'{counter.name}' is for: {', '.join(counter.sources)}.",
            )
        return self.sources or counter.sources


class AreaRule(RuleOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every rule that looks at an area is asked.

    Attributes:
        zone: Name of a step ``zone``: the rule looks at that area, and follows when it is moved.
        points: Corners of an area of its own, in order round it. Without either it looks at the whole image.
        for_s: How long it must last, seconds.
        clear_s: It is over when it was not so for this long, seconds; shorter interruptions do not count.
    """

    zone: str = ""
    points: Polygon = ()
    for_s: Seconds = 0.0
    clear_s: Seconds = 2.0

    def linked(self, steps: Sequence[object]) -> Options:
        """The rule with the points of the zone that it names.

        Raises ``ConfigError``: there is no such zone, or it is for other sources; or the rule has points of its own, too.
        """
        own = checked(self)
        own.hours()
        if not own.zone:
            return own
        zone = named(steps, own.zone, Zone, own.name)
        if own.points and own.points != zone.points:
            raise ConfigError(
                f"The rule '{own.name}' has points and names the zone '{own.zone}'.", "Leave one of them out."
            )
        return msgspec.structs.replace(
            own,
            points=zone.points,
            units=zone.units,
            anchor=own.anchor or zone.anchor,
            sources=own.shared_sources(zone),
        )

    def shape(self) -> Shape | None:
        """The area; ``None``: the whole image. Raises ``ConfigError``: it is none."""
        if self.zone and not self.points:
            raise ConfigError(
                f"The rule '{self.name}' names the zone '{self.zone}', which it does not know here.",
                "Give both to one pipeline, in its steps.",
            )
        what = f"zone '{self.zone}'" if self.zone else f"rule '{self.name}'"
        return Shape.polygon(self.points, self.units, what) if self.points else None

    @property
    def limits(self) -> Limits:
        """The times of the rule."""
        return Limits(
            for_ns=round(self.for_s * 1e9),
            clear_ns=round(self.clear_s * 1e9),
            cooldown_ns=round(self.cooldown_s * 1e9),
        )


def named(steps: Sequence[object], name: str, kind: type[_Counter], rule: str) -> _Counter:
    """The step of a kind that a rule names.

    Raises ``ConfigError``: there is none; the hint says the nearest and lists those there are.
    """
    known = {step.name: step for step in steps if isinstance(step, kind)}
    if name in known:
        return checked(known[name])
    what = kind.__name__.lower()
    other = next((step for step in steps if isinstance(step, CounterOptions) and step.name == name), None)
    if other is not None:
        raise ConfigError(
            f"The rule '{rule}' names '{name}' as a {what}, and it is a {type(other).__name__.lower()}.", _listed(known)
        )
    raise ConfigError(
        f"The rule '{rule}' names the {what} '{name}', and no step is called so.",
        f"{nearest(name, known)}{_listed(known)}"
        or f'Add a step of type "{what}" with this name, or give the rule points of its own.',
    )


def _listed(names: Iterable[str]) -> str:
    known = ", ".join(names)
    return f"Known: {known}." if known else ""
