"""The rule that tells a regression from noise, held against simulated machines."""

from __future__ import annotations

import random
from collections import Counter
from math import exp, log1p

import pytest

from edgecv.errors import ConfigError
from edgecv.runtimes.paired import Decision, Round, judge, take_turns

_LIMIT = 0.05


def _simulated(seed: int, change: float, noise: float, *, hit: float = 0.0, marked: bool = False) -> Decision:
    """A machine on which the new side takes ``change`` longer; ``hit`` is the part of the rounds that ±25 % disturb."""
    rng = random.Random(seed)

    def measure(_number: int) -> Round:
        disturbed = rng.random() < hit
        push = rng.choice((-0.25, 0.25)) if disturbed else 0.0
        old = 20.0 * exp(rng.gauss(0.0, noise))
        new = 20.0 * exp(log1p(change) + rng.gauss(0.0, noise) + push)
        return Round(old_ms=old, new_ms=new, noisy=disturbed and marked)

    return take_turns(measure, _LIMIT)


def _judgements(count: int, change: float, noise: float, **more: float) -> Counter[str]:
    return Counter(_simulated(seed, change, noise, **more).judgement for seed in range(count))  # type: ignore[arg-type]


def test_equal_sides_never_raise_an_alarm() -> None:
    assert _judgements(1000, 0.0, 0.03)["slower"] == 0


def test_at_exactly_the_limit_alarms_are_rare() -> None:
    assert _judgements(1000, _LIMIT, 0.03)["slower"] <= 40
    assert _judgements(1000, _LIMIT, 0.01)["slower"] <= 40


def test_ten_percent_more_is_found_in_the_noise_of_three() -> None:
    assert _judgements(1000, 0.10, 0.03)["slower"] >= 900


def test_little_noise_is_settled_after_five_rounds() -> None:
    found = [_simulated(seed, 0.10, 0.01) for seed in range(100)]
    assert sum(len(one.rounds) == 5 and one.judgement == "slower" for one in found) >= 90


def test_disturbed_rounds_that_are_marked_are_measured_again() -> None:
    marked = _judgements(300, 0.10, 0.01, hit=0.1, marked=True)
    unmarked = _judgements(300, 0.10, 0.01, hit=0.1)
    assert marked["slower"] >= 290 > unmarked["slower"]
    assert unmarked["fine"] <= 3


def test_a_machine_that_is_always_disturbed_comes_to_an_end() -> None:
    found = take_turns(lambda _number: Round(old_ms=10, new_ms=10, noisy=True), _LIMIT)
    assert (found.judgement, found.repeated, len(found.rounds)) == ("fine", 5, 5)


def test_what_lies_on_both_sides_of_the_limit_cannot_be_told() -> None:
    ratios = [0.8, 1.3] * 7 + [1.05]
    found = take_turns(lambda number: Round(old_ms=10, new_ms=10 * ratios[number]), _LIMIT)
    assert (found.judgement, len(found.rounds)) == ("cannot tell", 15)
    assert found.low < _LIMIT < found.high


def test_a_change_below_a_tenth_of_a_millisecond_is_fine() -> None:
    found = take_turns(lambda _number: Round(old_ms=0.5, new_ms=0.58), _LIMIT)
    assert found.judgement == "fine"
    assert found.change == pytest.approx(0.16)


def test_what_the_rounds_cannot_show_makes_the_bounds_wider() -> None:
    rounds = [Round(old_ms=20, new_ms=22)] * 5
    assert judge(rounds, _LIMIT)[0] == "slower"
    assert judge(rounds, _LIMIT, other_sd=0.03)[0] == "cannot tell"


@pytest.mark.parametrize(("count", "limit"), [(4, 0.05), (0, 0.05), (5, 0.0), (5, float("nan"))])
def test_other_numbers_of_rounds_and_limits_are_refused(count: int, limit: float) -> None:
    with pytest.raises(ConfigError):
        judge([Round(old_ms=1, new_ms=1)] * count, limit)
