"""The times of the frames of one source, as a rule sees them."""

from __future__ import annotations

from dataclasses import dataclass

from edgecv.pipelines.steps.rules.schedule import OpenHours
from edgecv.results import Frame

_LONG_AGO_NS = -(1 << 62)
_MINUTE_NS = 60_000_000_000


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment on two clocks: that of the scene, by which durations are measured, and UTC, both in nanoseconds."""

    scene_ns: int
    time_ns: int


class Timeline:
    """Where the newest frame of a source stands in time.

    What a frame shows holds until the next one comes: frames that were skipped, by a gate or for want of time, change nothing. It
    is different when the source itself gave no frame for long: then nobody knows what happened.

    Attributes:
        now: The moment of the newest frame.
        is_after_gap: Whether the source gave no frame for long before the newest one, or its times went back.
        is_open: Whether the rule is on, by its schedule.
        turned_ns: When it last went on or off, on the clock of the scene; long ago if that was not seen.
    """

    def __init__(self) -> None:
        self.now = Moment(0, 0)
        self.is_after_gap = False
        self.is_open = True
        self.turned_ns = _LONG_AGO_NS
        self._before: Moment | None = None
        self._index, self._has_begun = 0, False
        self._minute: int | None = None

    def follow(self, frame: Frame, hours: OpenHours | None, gap_ns: int) -> None:
        """Take note of the next frame; ``gap_ns`` is the longest time from one frame that the source gave to the next."""
        now = Moment(frame.scene_ns, frame.captured_ns)
        self._before = self.now if self._has_begun else None
        elapsed_ns = now.scene_ns - self.now.scene_ns if self._has_begun else 0
        frames = max(1, frame.index - self._index)  # frames that were skipped have numbers, too
        self.is_after_gap = elapsed_ns < 0 or elapsed_ns > gap_ns * frames
        self.now, self._index, self._has_begun = now, frame.index, True
        if hours is not None:
            self._look_up(hours, frame.captured_ns // _MINUTE_NS)

    def at(self, scene_ns: int) -> Moment:
        """A moment on the clock of the scene, between the newest frame and the one before it, as in ``Moment``."""
        now, before = self.now, self._before
        if before is None or scene_ns >= now.scene_ns or not before.scene_ns < scene_ns:
            return Moment(scene_ns, now.time_ns - (now.scene_ns - scene_ns))
        share = (scene_ns - before.scene_ns) / (now.scene_ns - before.scene_ns)
        return Moment(scene_ns, before.time_ns + round(share * (now.time_ns - before.time_ns)))

    def _look_up(self, hours: OpenHours, minute: int) -> None:
        """Whether the rule is on, and since when; what changed between two frames is placed between them."""
        last, self._minute = self._minute, minute
        if minute == last:
            return
        was_open, self.is_open = self.is_open, hours.is_open(self.now.time_ns)
        before, is_same = self._before, self.is_open == was_open
        if before is None or (is_same and minute - (last or 0) == 1):
            return
        changed_ns = hours.changed_ns(self.now.time_ns)
        if changed_ns is not None and before.time_ns < changed_ns <= self.now.time_ns:
            share = (changed_ns - before.time_ns) / (self.now.time_ns - before.time_ns)
            self.turned_ns = before.scene_ns + round(share * (self.now.scene_ns - before.scene_ns))
        elif not is_same:  # the clock of the machine was set
            self.turned_ns = self.now.scene_ns
