"""How fast this machine counts at the moment: a clock that nobody can lie about."""

from __future__ import annotations

import time

_STEPS = 20_000
_SLICES = 10


def spin_speed(seconds: float) -> float:
    """Millions of loop steps per second in the best tenth of so many seconds."""
    return max(_slice_speed(seconds / _SLICES) for _ in range(_SLICES))


def _slice_speed(seconds: float) -> float:
    start = time.perf_counter()
    steps = 0
    while (elapsed := time.perf_counter() - start) < seconds or not steps:
        steps += _count()
    return steps / elapsed / 1e6


def _count() -> int:
    total = 0
    for number in range(_STEPS):
        total += number & 1
    return _STEPS if total else 0
