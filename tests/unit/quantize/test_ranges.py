"""Ranges chosen by the error they leave."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, strategies as st

from edgecv.quantize.ranges import (
    ESTIMATORS,
    SAMPLES_PER_TENSOR,
    TensorStats,
    collect,
    copy_groups,
    minmax,
    mse,
    percentile,
    range_of,
    silu_aware,
    union,
)


def stats_of(values: np.ndarray) -> TensorStats:
    return TensorStats(low=float(values.min()), high=float(values.max()), sample=values)


def silu(values: np.ndarray) -> np.ndarray:
    return values / (1 + np.exp(-values))


def error(values: np.ndarray, limits: tuple[float, float], activation=lambda x: x) -> float:
    """Mean square error after uint8 over a range, written out in double precision."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    scale = (high - low) / 255 or 1.0
    zero = round(-low / scale)
    stored = np.clip(np.rint(values / scale) + zero, 0, 255)
    return float(((activation((stored - zero) * scale) - activation(values)) ** 2).mean())


samples = st.builds(
    lambda seed, size, centre, spread, tail: np.concatenate(
        [
            np.random.default_rng(seed).normal(centre, spread, size),
            np.random.default_rng(seed).normal(0, spread * tail, 3),
        ]
    ).astype(np.float32),
    st.integers(0, 2**31),
    st.integers(1, 2000),
    st.floats(-5, 5),
    st.floats(0.01, 20),
    st.floats(1, 30),
)


@given(samples)
def test_the_silu_aware_error_after_the_activation_is_never_above_minmax(values: np.ndarray) -> None:
    stats = stats_of(values)
    x = values.astype(np.float64)
    assert error(x, silu_aware(stats), silu) <= error(x, minmax(stats), silu) * 1.001 + 1e-12


@given(samples)
def test_the_mse_error_is_never_above_minmax(values: np.ndarray) -> None:
    stats = stats_of(values)
    x = values.astype(np.float64)
    assert error(x, mse(stats)) <= error(x, minmax(stats)) * 1.001 + 1e-12


@given(samples, st.sampled_from(sorted(ESTIMATORS)))
def test_a_range_lies_within_what_was_seen(values: np.ndarray, name: str) -> None:
    low, high = ESTIMATORS[name](stats_of(values))
    assert np.isfinite([low, high]).all()
    assert low >= values.min()
    assert high <= max(values.max(), 0)


def test_a_long_negative_tail_is_cut_before_a_silu() -> None:
    values = np.concatenate([np.linspace(-40, 0, 5000), np.linspace(0, 6, 5000)]).astype(np.float32)
    low, high = silu_aware(stats_of(values))
    assert low > -12
    assert error(values, (low, high), silu) < error(values, (-40, 6), silu) / 10


def test_an_outlier_does_not_cost_everybody_else_their_bits() -> None:
    values = np.append(np.random.default_rng(0).normal(0, 1, 60_000), 12.0).astype(np.float32)
    low, high = mse(stats_of(values))
    assert high < 12
    assert error(values, (low, high)) < error(values, (float(values.min()), 12.0))


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0])
@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_a_constant_tensor_has_a_range(name: str, value: float) -> None:
    low, high = ESTIMATORS[name](stats_of(np.full(10, value, np.float32)))
    assert min(low, 0) <= value <= max(high, 0)


def test_extremes_are_those_of_all_values_not_of_the_sample() -> None:
    big = np.random.default_rng(0).normal(0, 1, 500_000).astype(np.float32)
    big[12345], big[54321] = -77, 99
    found = collect([{"t": big}] * 3, 3)["t"]
    assert (found.low, found.high) == (-77.0, 99.0)
    assert len(found.sample) <= 2 * SAMPLES_PER_TENSOR


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    tensor = np.arange(10_000, dtype=np.float32)
    few, many = (len(collect(({"t": tensor} for _ in range(n)), n)["t"].sample) for n in (8, 800))
    assert many <= 2 * few


def test_the_same_runs_give_the_same_statistics() -> None:
    runs = [{"t": np.random.default_rng(n).normal(size=100_000).astype(np.float32)} for n in range(4)]
    first, second = (collect(iter(runs), 4)["t"].sample for _ in range(2))
    assert np.array_equal(first, second)


def test_every_run_is_in_the_sample() -> None:
    runs = [{"t": np.full((1, 4, 50, 50), n, np.float32)} for n in range(10)]
    assert set(collect(runs, 10)["t"].sample.tolist()) == set(range(10))


def test_percentile_cuts_the_rarest_values_on_both_sides() -> None:
    values = np.linspace(-1, 3, 40_001, dtype=np.float32)
    values[0], values[-1] = -500, 900
    low, high = percentile(stats_of(values))
    assert low == pytest.approx(-1, abs=1e-3)
    assert high == pytest.approx(3, abs=1e-3)


def test_memory_is_flat_in_the_number_of_images() -> None:
    """Peaks of ``collect`` over 16 and over 128 runs, each run's tensors made anew and as large as they all are together."""

    def runs(count: int) -> Iterator[dict[str, np.ndarray]]:
        rng = np.random.default_rng(0)
        for _ in range(count):
            yield {f"t{number}": rng.random((1, 16, 64, 64), np.float32) for number in range(4)}

    peaks = []
    for count in (16, 128):
        tracemalloc.start()
        collect(runs(count), count)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.25 * peaks[0]


def test_tensors_that_are_copied_into_each_other_are_one_group() -> None:
    groups = copy_groups([["a", "b", "c"], ["c", "d"], ["x", "unknown"]], ["a", "b", "c", "d", "x", "y"])
    assert sorted(map(sorted, groups)) == [["a", "b", "c", "d"], ["x"], ["y"]]
    assert union([(-1.0, 2.0), (-3.0, 1.0)]) == (-3.0, 2.0)


def test_without_gradients_a_tensor_before_a_silu_gets_the_range_that_is_best_behind_it() -> None:
    values = stats_of(np.random.default_rng(0).normal(-10, 8, 4000).astype(np.float32))
    assert range_of(values, "gradient", "gradient", feeds_silu=True) == silu_aware(values) != mse(values)
    assert range_of(values, "gradient", "gradient", feeds_silu=False) == mse(values)
