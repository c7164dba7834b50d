"""Warm-up until stable, and a long run told in parts."""

from __future__ import annotations

import pytest

from edgecv.benchmarks.options import BenchOptions, StopRule
from edgecv.benchmarks.report import Minute, Reading
from edgecv.benchmarks.scenarios.measured import drift, thinned
from edgecv.benchmarks.scenarios.pipeline import overlap
from edgecv.benchmarks.scenarios.sustained import Minutes, conclude
from edgecv.benchmarks.scenarios.warm_up import WarmUp
from edgecv.errors import ConfigError


class _Machine:
    """A clock that runs as long as the runs say they take."""

    def __init__(self, times_ms: list[float]) -> None:
        self.now_s = 0.0
        self._times_ms = times_ms

    def run(self, number: int) -> float:
        ms = self._times_ms[min(number, len(self._times_ms) - 1)]
        self.now_s += ms / 1e3
        return ms


def _warm(times_ms: list[float], **options: int) -> tuple[WarmUp, _Machine]:
    machine = _Machine(times_ms)
    return WarmUp(BenchOptions(**options), lambda: machine.now_s).run(machine.run), machine


def test_slow_first_runs_do_not_count() -> None:
    warm, _ = _warm([500.0, 80.0, 60.0, 40.0, *[20.0] * 200])
    assert (warm.settled, warm.first_ms) == (True, 500.0)
    assert 30 <= warm.runs <= 80


def test_a_clock_that_rises_for_seconds_is_waited_for() -> None:
    rising = [40.0 - 0.1 * number for number in range(200)]
    warm, _ = _warm([*rising, *[20.0] * 200])
    assert (warm.settled, warm.runs > 150) == (True, True)


def test_times_that_never_become_stable_end_the_warm_up_after_half_a_minute() -> None:
    warm, machine = _warm([20 * 1.01**number for number in range(500)])
    assert not warm.settled
    assert 30 <= machine.now_s <= 32


def test_a_model_that_takes_a_quarter_of_a_minute_is_warm_after_three_runs() -> None:
    warm, _ = _warm([15_000.0] * 10)
    assert (warm.runs, warm.settled) == (3, True)


def test_a_given_number_of_runs_is_kept() -> None:
    assert _warm([10.0, 90.0], warmup=7)[0].runs == 7
    assert _warm([10.0], warmup=0)[0].runs == 0


def test_a_quick_look_takes_ten_runs_to_warm_up_and_waits_for_nothing() -> None:
    assert _warm([10.0, 90.0], runs=3)[0].runs == 10
    assert (BenchOptions(runs=3).longest_idle_wait_s, BenchOptions().longest_idle_wait_s) == (0.0, 30.0)


@pytest.mark.parametrize(
    ("options", "queries", "seconds", "enough"),
    [
        (BenchOptions(), 64, 9.9, False),
        (BenchOptions(), 63, 11.0, False),
        (BenchOptions(), 64, 10.0, True),
        (BenchOptions(), 3, 301.0, True),  # a model of half a minute per run
        (BenchOptions(runs=5), 5, 0.0, True),
        (BenchOptions(runs=5), 4, 999.0, False),
        (BenchOptions(seconds=2.0), 64, 2.0, True),
        (BenchOptions(seconds=400.0), 64, 301.0, False),
        (BenchOptions(mlperf=True), 662, 599.0, False),
        (BenchOptions(mlperf=True), 661, 700.0, False),
        (BenchOptions(mlperf=True), 662, 600.0, True),
    ],
)
def test_when_enough_was_measured(options: BenchOptions, queries: int, seconds: float, enough: bool) -> None:
    assert StopRule.of(options, 662).enough(queries, seconds) is enough


@pytest.mark.parametrize(
    "wrong",
    [{"seconds": 0.0}, {"seconds": float("nan")}, {"streams": 0}, {"mlperf": True, "runs": 3}, {"seconds": 1e9}],
)
def test_options_that_contradict_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        BenchOptions(**wrong)  # type: ignore[arg-type]


def _minutes(fps: list[float], temperature: float | None = None, throttled: int | None = None) -> list[Minute]:
    reading = Reading(at_s=0.0, temperature_c=temperature, throttle_events=throttled)
    return [
        Minute(start_s=60.0 * number, fps=one, p50_ms=1000 / one, rss_bytes=1000 + 10 * number, reading=reading)
        for number, one in enumerate(fps)
    ]


def test_a_device_that_holds_says_so() -> None:
    found = conclude(_minutes([50.0, 49.5, 49.8], temperature=61.0))
    assert found.verdict == "holds its speed; at most 61 °C"
    assert (found.ratio, found.rss_bytes_per_minute) == (0.996, 10)


def test_a_device_that_falls_says_how_far_and_when() -> None:
    found = conclude(_minutes([50.0, 50.0, 40.0, 30.0], throttled=2), first_throttle_s=130.0)
    assert "falls to 60% of its first speed" in found.verdict
    assert "after 2 min" in found.verdict
    assert "slowed itself after 2 min" in found.verdict


def test_without_sensors_the_thermal_state_is_unknown() -> None:
    assert conclude(_minutes([50.0])).verdict == "holds its speed; thermal state unknown"


def test_a_run_is_told_in_parts() -> None:
    parts = Minutes(seconds=1.0)
    for number in range(1, 101):
        parts.add(number / 100, 10.0)
    found = parts.end(1.0)
    assert len(found.minutes) == 5
    assert [round(one.fps) for one in found.minutes] == [100] * 5


def test_times_are_thinned_evenly_in_their_order() -> None:
    assert thinned([1.0, 2.0]) == (1.0, 2.0)
    assert thinned([float(n) for n in range(10)], 5) == (0.0, 2.0, 4.0, 6.0, 8.0)


def test_drift_is_the_second_half_over_the_first() -> None:
    assert drift([10.0] * 10 + [12.0] * 10) == pytest.approx(0.2)
    assert drift([10.0] * 19) is None


def test_what_overlaps_is_explained() -> None:
    said = overlap([{"inference": 36.0}] * 9, 52.0)
    assert "36.0 ms" in said
    assert "52.0 per second" in said
    assert "two frames" in said
    assert overlap([{"inference": 18.0}] * 9, 52.0) == ""
    assert overlap([], 52.0) == ""
