"""A long run, minute by minute, and what it says about the device."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from edgecv.benchmarks.machine.readings import read_device
from edgecv.benchmarks.memory import read_memory
from edgecv.benchmarks.report import Minute, Sustained

_MINUTE_S = 60.0
_FEWEST_PARTS = 5
_HOLDS = 0.97  # of the first minute's speed


class Minutes:
    """Collects the times of a long run in parts: of a minute, or of a fifth of a run that is shorter than five minutes."""

    def __init__(self, seconds: float) -> None:
        self._part_s = min(_MINUTE_S, max(seconds / _FEWEST_PARTS, 0.05))
        self._start_s = 0.0
        self._times: list[float] = []
        self._minutes: list[Minute] = []
        self._throttled_before = read_device(0.0).throttle_events
        self._first_throttle_s: float | None = None

    def add(self, elapsed_s: float, ms: float) -> None:
        """Take the time of one image, ``elapsed_s`` seconds after the start."""
        self._times.append(ms)
        if elapsed_s - self._start_s >= self._part_s:
            self._close_part(elapsed_s)

    def end(self, elapsed_s: float) -> Sustained:
        """What all parts together say."""
        if self._times and (not self._minutes or elapsed_s - self._start_s >= self._part_s / 2):
            self._close_part(elapsed_s)
        return conclude(self._minutes, self._first_throttle_s)

    def _close_part(self, elapsed_s: float) -> None:
        reading = read_device(elapsed_s)
        if self._first_throttle_s is None and _moved(self._throttled_before, reading.throttle_events):
            self._first_throttle_s = round(elapsed_s, 1)
        self._minutes.append(
            Minute(
                start_s=round(self._start_s, 2),
                fps=round(len(self._times) / max(elapsed_s - self._start_s, 1e-9), 3),
                p50_ms=round(median(self._times), 3),
                rss_bytes=read_memory().rss_bytes,
                reading=reading,
            )
        )
        self._start_s, self._times = elapsed_s, []


def conclude(minutes: Sequence[Minute], first_throttle_s: float | None = None) -> Sustained:
    """The verdict over the parts of a long run."""
    ratio = minutes[-1].fps / minutes[0].fps
    knows = any(one.reading.throttle_events is not None or one.reading.temperature_c is not None for one in minutes)
    return Sustained(
        minutes=tuple(minutes),
        ratio=round(ratio, 4),
        first_throttle_s=first_throttle_s,
        rss_bytes_per_minute=round(_slope([one.start_s for one in minutes], [one.rss_bytes for one in minutes]) * 60),
        verdict=_speed(minutes) + _heat(minutes, first_throttle_s) + ("" if knows else "; thermal state unknown"),
    )


def _speed(minutes: Sequence[Minute]) -> str:
    first = minutes[0].fps
    if min(one.fps for one in minutes) >= _HOLDS * first:
        return "holds its speed"
    fallen = next(one for one in minutes if one.fps < _HOLDS * first)
    lowest = min(one.fps for one in minutes)
    return f"falls to {lowest / first:.0%} of its first speed, below {_HOLDS:.0%} after {_span(fallen.start_s)}"


def _heat(minutes: Sequence[Minute], first_throttle_s: float | None) -> str:
    hottest = max((one.reading.temperature_c or 0.0 for one in minutes), default=0.0)
    slowed = f"; the device slowed itself after {_span(first_throttle_s)}" if first_throttle_s is not None else ""
    return slowed + (f"; at most {hottest:.0f} °C" if hottest else "")


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _moved(before: int | None, now: int | None) -> bool:
    return before is not None and now is not None and now > before


def _slope(at: Sequence[float], values: Sequence[float]) -> float:
    """Change per unit of ``at``, by least squares; 0 for a single point."""
    middle, mean = sum(at) / len(at), sum(values) / len(values)
    spread = sum((one - middle) ** 2 for one in at)
    moved = sum((one - middle) * (value - mean) for one, value in zip(at, values, strict=True))
    return moved / spread if spread else 0.0
