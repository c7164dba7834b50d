"""Percentiles of measured times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil

import msgspec

from edgecv.errors import ConfigError


class StageStatistics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Milliseconds that half, 90 % and 99 % of the times do not exceed."""

    p50_ms: float
    p90_ms: float
    p99_ms: float


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` % of all do not exceed: nearest rank, so always one that was measured.

    Raises:
        ConfigError: there are no values, or ``percent`` is not above 0 and at most 100.
    """
    if not values or not 0 < percent <= 100:
        raise ConfigError(f"There is no {percent}th percentile of {len(values)} values.", "Measure at least one run.")
    return sorted(values)[ceil(len(values) * percent / 100) - 1]


def describe(values: Sequence[float]) -> StageStatistics:
    """p50, p90 and p99 of times in milliseconds, rounded to a microsecond.

    Raises:
        ConfigError: there are no values.
    """
    p50, p90, p99 = (round(percentile(values, percent), 3) for percent in (50, 90, 99))
    return StageStatistics(p50_ms=p50, p90_ms=p90, p99_ms=p99)


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
