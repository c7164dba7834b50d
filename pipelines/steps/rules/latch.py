"""Whether something has held for long enough, and whether it is over: by times, however many frames there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgecv.pipelines.steps.rules.timeline import Moment, Timeline

How = Literal["over", "schedule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The times of a rule, nanoseconds.

    Attributes:
        for_ns: It begins when it has held for so long.
        clear_ns: It is over when it has not held for so long; shorter interruptions count as if it held.
        cooldown_ns: It does not begin again before so long after it began.
        fills: Whether it also begins by what holds *until* the newest frame, which itself shows that it does not hold any more.
    """

    for_ns: int
    clear_ns: int
    cooldown_ns: int = 0
    fills: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """It begins or is over.

    Attributes:
        at: When that is certain: ``for_s`` after it first held, or ``clear_s`` after it first did not.
        since: When it first held.
        until: When it first did not hold any more; ``None`` where it begins.
        how: What ended it.
    """

    at: Moment
    since: Moment
    until: Moment | None = None
    how: How = "over"


class Cooldown:
    """The time before which a rule does not begin again, on the clock of the scene."""

    __slots__ = ("ready_ns",)

    def __init__(self) -> None:
        self.ready_ns = -(1 << 62)


class Latch:
    """A condition with hysteresis in time: *on* from when it has held for ``for_ns`` until it has not held for ``clear_ns``."""

    __slots__ = ("_began", "_off", "_run_ns", "_since")

    def __init__(self) -> None:
        self._since: Moment | None = None  # when it first held
        self._run_ns = 0  # since when it has held without a break
        self._off: Moment | None = None  # when it first did not hold any more, if it may be over
        self._began: Turn | None = None

    @property
    def is_on(self) -> bool:
        """Whether it has begun and is not over."""
        return self._began is not None

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to remember."""
        return self._since is None and self._began is None

    def rests(self, holds: bool, line: Timeline, limits: Limits) -> bool:
        """Whether the newest frame changes nothing: a quick answer, ``False`` where one must look."""
        if line.is_after_gap or not line.is_open:
            return False
        if not holds:
            return self._off is not None and line.now.scene_ns - self._off.scene_ns < limits.clear_ns
        if self._off is not None or self._since is None:
            return False
        return self._began is not None or line.now.scene_ns - self._since.scene_ns < limits.for_ns

    def see(self, holds: bool, line: Timeline, limits: Limits, cooldown: Cooldown) -> list[Turn]:
        """What begins and what is over with the newest frame, in this order or the other."""
        if line.is_after_gap:
            self._off = None
            if self._began is None:
                self._since = None
        turns = self._shut(line)
        if self._off is not None and line.now.scene_ns - self._off.scene_ns >= limits.clear_ns:
            turns += self._end(line, limits)
        if holds:
            self._hold(line)
            return turns + self._begin(line, limits, cooldown)
        if self._since is None:
            return turns
        if self._off is None:
            if limits.fills:
                turns += self._begin(line, limits, cooldown)
            self._off = line.now
            if limits.clear_ns == 0:
                turns += self._end(line, limits)
        return turns

    def _hold(self, line: Timeline) -> None:
        if self._since is None:
            self._since, self._run_ns = line.now, line.now.scene_ns
        elif self._off is not None:
            self._off, self._run_ns = None, line.now.scene_ns

    def _begin(self, line: Timeline, limits: Limits, cooldown: Cooldown) -> list[Turn]:
        if self._began is not None or self._since is None or not line.is_open:
            return []
        start_ns = max(self._since.scene_ns, line.turned_ns)
        due_ns = max(start_ns + limits.for_ns, self._run_ns)
        if limits.cooldown_ns:
            due_ns = max(due_ns, cooldown.ready_ns)
        if due_ns > line.now.scene_ns:
            return []
        since = self._since if start_ns == self._since.scene_ns else line.at(start_ns)
        self._began = Turn(at=line.at(due_ns), since=since)
        if limits.cooldown_ns:
            cooldown.ready_ns = due_ns + limits.cooldown_ns
        return [self._began]

    def _end(self, line: Timeline, limits: Limits) -> list[Turn]:
        began, off = self._began, self._off
        self._began = self._since = self._off = None
        if began is None or off is None:
            return []
        return [Turn(at=line.at(off.scene_ns + limits.clear_ns), since=began.since, until=off)]

    def _shut(self, line: Timeline) -> list[Turn]:
        """The end by the schedule: what holds goes on holding, and may begin again when the rule is on again."""
        began = self._began
        if began is None or (line.is_open and began.at.scene_ns >= line.turned_ns):
            return []
        self._began = None
        until = line.at(line.turned_ns)
        return [Turn(at=until, since=began.since, until=until, how="schedule")]
