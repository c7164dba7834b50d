from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from edgecv.benchmarks.statistics import StageStatistics, describe, describe_stages, percentile
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
    assert found.p50_ms <= found.p90_ms <= found.p99_ms


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], 0), ([1.0], 101)])
def test_percentile_of_nothing_or_out_of_range_is_refused(values, percent):
    with pytest.raises(ConfigError):
        percentile(values, percent)


def test_stages_are_described_apart_and_keep_their_order():
    found = describe_stages([{"wait": 1.0, "inference": 10.0}, {"wait": 3.0, "inference": 30.0}])
    assert list(found) == ["wait", "inference"]
    assert found["inference"] == StageStatistics(p50_ms=10.0, p90_ms=30.0, p99_ms=30.0)


def test_no_runs_are_an_error():
    with pytest.raises(ConfigError, match="Nothing was measured"):
        describe_stages([])
