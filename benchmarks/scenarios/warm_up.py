"""Runs that do not count, until the times are stable."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from statistics import median

from edgecv.benchmarks.options import BenchOptions

_WINDOWS = 3  # so many in a row have medians
_AGREE = 0.05  # that lie so near to each other,
_FALLING = 0.02  # and do not fall from one to the next by so much in all: a clock that still rises
_FEWEST_RUNS, _SHORTEST_S = 5, 0.3  # of one window,
_LONGEST_WINDOW_S = 3.0  # unless a run takes longer
_LONGEST_S = 30.0  # of it all; some boards raise their clock for seconds


class WarmUp:
    """Takes one time after the other, and says when they are stable.

    Attributes:
        runs: How many it took.
        first_ms: The first of them.
        settled: Whether they became stable.
        done: Whether it is over, stable or not.
    """

    def __init__(self, options: BenchOptions, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin; ``clock`` gives seconds. With a fixed warm-up so many runs are all."""
        self._fixed = options.fixed_warmup
        self._clock = clock
        self._start_s = self._window_s = clock()
        self._window: list[float] = []
        self._medians: list[float] = []
        self.runs = 0
        self.first_ms = 0.0
        self.settled = True
        self.done = self._fixed == 0

    def add(self, ms: float) -> bool:
        """Take the time of one run; whether the warm-up is over."""
        self.first_ms = self.first_ms or ms
        self.runs += 1
        self._window.append(ms)
        if self._fixed is not None:
            self.done = self.runs >= self._fixed
        elif self._is_full():
            self._close_window()
        return self.done

    def run(self, once: Callable[[int], float]) -> WarmUp:
        """Run ``once``, given the number of the run, until it is over."""
        for number in count():
            if self.done:
                break
            self.add(once(number))
        return self

    def _is_full(self) -> bool:
        elapsed_s = self._clock() - self._window_s
        return elapsed_s >= _LONGEST_WINDOW_S or (len(self._window) >= _FEWEST_RUNS and elapsed_s >= _SHORTEST_S)

    def _close_window(self) -> None:
        self._medians.append(median(self._window))
        self._window, self._window_s = [], self._clock()
        last = self._medians[-_WINDOWS:]
        self.settled = len(last) == _WINDOWS and _agree(last)
        late = self._window_s - self._start_s >= _LONGEST_S and len(last) == _WINDOWS
        self.done = self.settled or late


def _agree(medians: list[float]) -> bool:
    falls = medians == sorted(medians, reverse=True) and medians[0] > (1 + _FALLING) * medians[-1]
    return not falls and max(medians) <= (1 + _AGREE) * min(medians)
