from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, strategies as st

from edgecv.benchmarks.statistics import (
    FEWEST_FOR_P90,
    FEWEST_FOR_P99,
    StageStatistics,
    describe,
    describe_stages,
    percentile,
    tail_rank,
    upper_bound,
)
from edgecv.errors import ConfigError

_TIMES = st.lists(st.floats(0, 1e4), min_size=1, max_size=200)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([5.0], 50, 5.0),
        ([1.0, 2.0], 50, 1.0),
        ([1.0, 2.0], 51, 2.0),
        ([float(n) for n in range(1, 101)], 90, 90.0),
        ([float(n) for n in range(1, 101)], 99, 99.0),
        ([3.0, 1.0, 2.0], 100, 3.0),
    ],
)
def test_percentile_is_the_nearest_rank(values, percent, expected):
    assert percentile(values, percent) == expected


@given(values=_TIMES, percent=st.floats(0.1, 100))
def test_percentile_is_the_smallest_value_that_enough_do_not_exceed(values, percent):
    found = percentile(values, percent)
    assert sum(value <= found for value in values) >= len(values) * percent / 100 - 1e-9
    assert found in values


@given(values=_TIMES)
def test_percentiles_are_ordered(values):
    found = describe(values)
    assert found.p50_ms <= found.p90_ms <= found.max_ms
    assert found.p90_bound_ms is None or found.p90_ms <= found.p90_bound_ms


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], 0), ([1.0], 101)])
def test_percentile_of_nothing_or_out_of_range_is_refused(values, percent):
    with pytest.raises(ConfigError):
        percentile(values, percent)


def test_stages_are_described_apart_and_keep_their_order():
    found = describe_stages([{"wait": 1.0, "inference": 10.0}, {"wait": 3.0, "inference": 30.0}])
    assert list(found) == ["wait", "inference"]
    assert found["inference"] == StageStatistics(p50_ms=10.0, p90_ms=30.0, max_ms=30.0)


def test_no_runs_are_an_error():
    with pytest.raises(ConfigError, match="Nothing was measured"):
        describe_stages([])


@pytest.mark.parametrize(
    ("queries", "of_p90", "of_p99"),
    [
        (64, 1, 0),
        (100, 3, 0),
        (200, 10, 0),
        (500, 34, 0),
        (662, 48, 1),
        (1000, 78, 2),
        (2000, 168, 9),
        (5000, 450, 33),
        (24_576, 2348, 209),
    ],
)
def test_the_tail_is_mlperfs_early_stopping(queries, of_p90, of_p99):
    assert (tail_rank(queries, 90), tail_rank(queries, 99)) == (of_p90, of_p99)


@pytest.mark.parametrize(("percent", "fewest"), [(90, FEWEST_FOR_P90), (99, FEWEST_FOR_P99)])
def test_fewer_queries_prove_nothing(percent, fewest):
    assert (tail_rank(fewest - 1, percent), tail_rank(fewest, percent)) == (0, 1)
    times = [float(n) for n in range(fewest)]
    assert upper_bound(times[:-1], percent) is None
    assert upper_bound(times, percent) == times[-1]


def test_the_bound_drops_what_may_be_slow():
    assert upper_bound([float(n) for n in range(1, 101)], 90) == 98.0  # t = 3: the two slowest are dropped


def test_p99_is_shown_from_662_times_on():
    few, enough = describe([1.0] * 661), describe([1.0] * 662)
    assert (few.p99_ms, few.p99_bound_ms) == (None, None)
    assert (enough.p99_ms, enough.p99_bound_ms) == (1.0, 1.0)
    assert few.p90_bound_ms == 1.0


def test_the_bound_holds_in_99_of_100_runs():
    rng = random.Random(0)
    true_p90 = -math.log(0.1)  # of the exponential distribution
    missed = sum((upper_bound([rng.expovariate(1) for _ in range(100)], 90) or 0) < true_p90 for _ in range(2000))
    assert missed <= 0.015 * 2000
