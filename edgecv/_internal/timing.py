"""Milliseconds per stage, of one frame and over a whole run; how long to wait before a next try; clocks that do not jump."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import exp, floor, log
from time import perf_counter_ns

from edgecv.protocols import Clock

_STEP = log(1.01)  # neighbouring bins of a Distribution lie 1 % apart
_SMALLEST_MS = 1e-3
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 512  # struct timex is 208 bytes on 64-bit Linux; zeroed, its `modes` say «only read»


class StageTimer:
    """Times the stages of one piece of work: ``with timer.stage("inference"): ...``."""

    def __init__(self, clock: Clock = perf_counter_ns) -> None:
        """Start with no stages; ``clock`` gives nanoseconds."""
        self._clock = clock
        self._ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to ``name``, also when it raises."""
        start = self._clock()
        try:
            yield
        finally:
            self.add(name, (self._clock() - start) / 1e6)

    def add(self, name: str, ms: float) -> None:
        """Add a time that was measured elsewhere, in another thread for example."""
        self._ms[name] = self._ms.get(name, 0.0) + ms

    def as_ms(self) -> dict[str, float]:
        """``{stage: ms}``, in the order in which the stages first ended."""
        return dict(self._ms)


class Distribution:
    """Percentiles of any number of durations in little, bounded memory: counts in bins 1 % apart."""

    def __init__(self) -> None:
        self._bins: Counter[int] = Counter()

    def add(self, ms: float) -> None:
        """Count one duration in milliseconds."""
        self._bins[floor(log(max(ms, _SMALLEST_MS)) / _STEP)] += 1

    def percentile(self, percent: float) -> float:
        """The duration in ms, to 1 %, that ``percent`` of all stay below; 0.0 when there are none."""
        wanted = self._bins.total() * percent / 100
        seen = 0
        for index in sorted(self._bins):
            seen += self._bins[index]
            if seen >= wanted:
                return exp((index + 0.5) * _STEP)
        return 0.0


class StageStats:
    """Percentiles per stage over a run."""

    def __init__(self) -> None:
        self._stages: dict[str, Distribution] = {}

    def add(self, timings_ms: Mapping[str, float]) -> None:
        """Count the stage times of one frame."""
        for name, ms in timings_ms.items():
            self._stages.setdefault(name, Distribution()).add(ms)

    def percentile(self, percent: float) -> dict[str, float]:
        """``{stage: ms}`` at one percentile."""
        return {name: round(stage.percentile(percent), 3) for name, stage in self._stages.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Waits between tries: they double up to a cap, and a part is left to chance, so that devices do not come back together."""

    initial_s: float = 0.5  # the longest wait before the first try
    cap_s: float = 30.0  # the longest wait of all

    def longest_s(self, attempt: int) -> float:
        """The longest wait before attempt ``attempt``, counted from 0."""
        return min(self.cap_s, self.initial_s * 2.0 ** min(attempt, 30))

    def delay_s(self, attempt: int, share: float | None = None) -> float:
        """Seconds before attempt ``attempt``: half of the longest wait, and ``share`` (0 to 1, random) of its other half."""
        return self.longest_s(attempt) * (0.5 + (random.random() if share is None else share) / 2)


def clock_is_synced() -> bool:
    """Whether this machine's clock follows a time server, as the kernel says; ``False`` where it cannot be asked."""
    import ctypes

    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except (OSError, AttributeError):
        return False
    state = int(adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))
    return 0 <= state < _TIME_ERROR


def steady_ns() -> int:
    """Nanoseconds since the start of the system, sleep included; nobody can set this clock."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def clock_from_now() -> Clock:
    """UTC nanoseconds as of now, which go on steadily: later jumps of the system's clock do not reach them."""
    ahead_ns = time.time_ns() - steady_ns()
    return lambda: ahead_ns + steady_ns()
