"""How sure a comparison of two series of times is, when they were measured in turns."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, log

_CONFIDENCE = 0.95


def log_ratios(times_ms: Sequence[float], others_ms: Sequence[float]) -> list[float]:
    """Logarithm of ``other / time`` of each round: above 0 where the other was slower."""
    return [log(other / time) for time, other in zip(times_ms, others_ms, strict=True)]


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """A 95 % interval for the median of what the values are a sample of, whatever its distribution.

    It lies between the ``k``-th smallest and the ``k``-th largest value, where ``k`` comes from the binomial distribution: each
    value lies above the true median as likely as below (Conover, Practical Nonparametric Statistics, section 3.2). Fewer than
    six values cannot say it: the interval is open then.
    """
    outside = _outside(len(values))
    if outside == 0:
        return float("-inf"), float("inf")
    ordered = sorted(values)
    return ordered[outside - 1], ordered[-outside]


def _outside(count: int) -> int:
    """The largest ``k`` for which fewer than 2.5 % lie beyond it on each side."""
    share, below = (1 - _CONFIDENCE) / 2, 0.0
    for k in range(count // 2 + 1):
        below += comb(count, k) * 0.5**count
        if below > share:
            return k
    return count // 2
