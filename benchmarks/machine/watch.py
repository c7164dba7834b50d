"""Watches the machine while something is measured on it, and says whether the figures are clean."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

from edgecv.benchmarks.machine.processor_time import Shares, read_processor_time, shares_between
from edgecv.benchmarks.machine.quality import Seen, judge_quality
from edgecv.benchmarks.machine.readings import read_device
from edgecv.benchmarks.machine.spin import spin_speed
from edgecv.benchmarks.options import IDLE_WAIT_S
from edgecv.benchmarks.report import Quality, Reading

IDLE_SHARE = 0.05  # of the usable processors; a desktop that nobody touches uses 1 to 2 %
_LOOK_S = 0.5
_SPIN_S = 1.0
_QUICK_SPIN_S = 0.2


class Watch:
    """One measurement's view of the machine: ``begin``, ``tick`` at least once per run, ``end``.

    Attributes:
        readings: What the sensors said, once a second.
    """

    def __init__(self, longest_wait_s: float) -> None:
        """Wait until the machine is idle, so many seconds at most, and time a loop."""
        self.readings: list[Reading] = []
        self._spin_s = _SPIN_S if longest_wait_s >= IDLE_WAIT_S else _QUICK_SPIN_S
        if longest_wait_s > 0:
            wait_until_idle(longest_wait_s)
        self._speed_before = spin_speed(self._spin_s)
        self.begin()

    def begin(self) -> None:
        """Start to count: what was before does not matter."""
        self.readings.clear()
        self._start_s = time.monotonic()
        self._processors = read_processor_time()
        self._switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        self._next_s = 0.0
        self.tick()

    def tick(self) -> None:
        """Read the sensors if a second has passed."""
        elapsed_s = time.monotonic() - self._start_s
        if elapsed_s >= self._next_s:
            self._next_s = elapsed_s + 1.0
            self.readings.append(read_device(elapsed_s))

    def end(self, *, settled: bool = True, drift: float | None = None) -> Quality:
        """Stop to count, and judge.

        Args:
            settled: Whether the times were stable when the warm-up ended.
            drift: By which part the second half of the times was slower than the first.
        """
        elapsed_s = time.monotonic() - self._start_s
        shares = shares_between(self._processors, read_processor_time())
        self.readings.append(read_device(elapsed_s))
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - self._switches
        change = spin_speed(self._spin_s) / self._speed_before - 1
        return judge_quality(
            Seen(
                elapsed_s=elapsed_s,
                shares=shares,
                speed_change=change,
                throttled=_moved(self.readings),
                settled=settled,
                drift=drift,
                switches=switches,
            )
        )


def wait_until_idle(
    longest_s: float = IDLE_WAIT_S, look: Callable[[], Shares | None] | None = None, look_s: float = _LOOK_S
) -> bool | None:
    """Wait until other programs leave the machine alone.

    Args:
        longest_s: Give up after so many seconds.
        look: What others use at the moment; measured over ``look_s`` seconds by default.
        look_s: See ``look``.

    Returns:
        Whether it became idle; ``None`` where that cannot be told.
    """
    deadline = time.monotonic() + longest_s
    while True:
        shares = look() if look is not None else _look(look_s)
        if shares is None:
            return None
        if shares.foreign + shares.stolen <= IDLE_SHARE:
            return True
        if time.monotonic() >= deadline:
            return False


def _look(seconds: float) -> Shares | None:
    before = read_processor_time()
    if before is None:
        return None
    time.sleep(seconds)
    return shares_between(before, read_processor_time())


def _moved(readings: list[Reading]) -> int | None:
    """By how much the counter of throttling moved; ``None`` where there is none."""
    counts = [one.throttle_events for one in readings if one.throttle_events is not None]
    return counts[-1] - counts[0] if counts else None
