"""Percentiles of measured times, and what a number of times can prove about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil, exp, lgamma, log

import msgspec

from edgecv.errors import ConfigError

# With fewer times nothing can be proven of a percentile (MLPerf's early stopping at 99 % confidence, mlcommons/inference #1629).
FEWEST_FOR_P90 = 64
FEWEST_FOR_P99 = 662
_RISK = 0.01


class StageStatistics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Milliseconds of one stage.

    Attributes:
        p50_ms: Half of the times do not exceed it.
        p90_ms: 90 % of the times do not exceed it.
        p99_ms: 99 % of the times do not exceed it; ``None`` below 662 times, where it would be chance.
        p90_bound_ms: The 90th percentile lies below it with 99 % confidence; ``None`` below 64 times.
        p99_bound_ms: The same of the 99th; ``None`` below 662 times.
        max_ms: The longest.
    """

    p50_ms: float
    p90_ms: float
    p99_ms: float | None = None
    p90_bound_ms: float | None = None
    p99_bound_ms: float | None = None
    max_ms: float


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` % of all do not exceed: nearest rank, so always one that was measured.

    Raises:
        ConfigError: there are no values, or ``percent`` is not above 0 and at most 100.
    """
    if not values or not 0 < percent <= 100:
        raise ConfigError(f"There is no {percent}th percentile of {len(values)} values.", "Measure at least one run.")
    return sorted(values)[ceil(len(values) * percent / 100) - 1]


def tail_rank(queries: int, percent: float) -> int:
    """How many of the slowest times may exceed a percentile and still prove it: the ``t`` of MLPerf's early stopping.

    It is the largest ``t`` with ``P(Binomial(queries, 1 - percent / 100) <= t) <= 0.01``; 0 where the times are too few.
    """
    slow = 1 - percent / 100
    chance, rank = 0.0, -1
    while rank < queries and (chance := chance + _binomial(queries, rank + 1, slow)) <= _RISK:
        rank += 1
    return max(rank, 0)


def upper_bound(values: Sequence[float], percent: float) -> float | None:
    """What the percentile does not exceed, with 99 % confidence; ``None`` where the values are too few to say so."""
    rank = tail_rank(len(values), percent)
    return sorted(values)[-rank] if rank else None


def describe(values: Sequence[float]) -> StageStatistics:
    """Percentiles of times in milliseconds and their bounds, rounded to a microsecond.

    Raises:
        ConfigError: there are no values.
    """
    enough = len(values) >= FEWEST_FOR_P99
    return StageStatistics(
        p50_ms=round(percentile(values, 50), 3),
        p90_ms=round(percentile(values, 90), 3),
        p99_ms=round(percentile(values, 99), 3) if enough else None,
        p90_bound_ms=_rounded(upper_bound(values, 90)),
        p99_bound_ms=_rounded(upper_bound(values, 99)),
        max_ms=round(max(values), 3),
    )


def describe_stages(runs: Iterable[Mapping[str, float]]) -> dict[str, StageStatistics]:
    """Statistics per stage of runs that each say ``{stage: ms}``.

    Raises:
        ConfigError: there are no runs.
    """
    times: dict[str, list[float]] = {}
    for run in runs:
        for stage, ms in run.items():
            times.setdefault(stage, []).append(ms)
    if not times:
        raise ConfigError("Nothing was measured.", "Measure at least one run.")
    return {stage: describe(values) for stage, values in times.items()}


def _binomial(count: int, hits: int, chance: float) -> float:
    """The probability of exactly ``hits`` in ``count`` tries."""
    ways = lgamma(count + 1) - lgamma(hits + 1) - lgamma(count - hits + 1)
    return exp(ways + hits * log(chance) + (count - hits) * log(1 - chance))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
