"""Compares two sides that took turns: the sequential paired t rule, and an interval for a median.

The unit is a round: both sides are measured once, one after the other, and ``log(new / old)`` is kept. After 5, 10 and 15
rounds one looks whether the one-sided 99 % bound of the mean lies above or below the limit. Simulated with a noise of 3 % per
side: no alarm between equal sides, at most 4 % at exactly the limit, over 90 % of rises by 10 % found at a limit of 5 %.

``edgecv tune`` looks after every round, at up to three sides: it takes ``median_interval``, which one slow round does not move.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb, exp, log, log1p, sqrt
from statistics import fmean
from types import MappingProxyType
from typing import Literal

from edgecv.errors import ConfigError

Judgement = Literal["slower", "fine", "cannot tell"]

# Rounds after which one looks, and the 99 % quantile of Student's t with one degree of freedom less.
LOOKS: Mapping[int, float] = MappingProxyType({5: 3.747, 10: 2.821, 15: 2.624})
MOST_ROUNDS = max(LOOKS)
MOST_REPEATED = 5  # rounds in which something else used the machine
_MEDIAN_CONFIDENCE = 0.95
FEWEST_MS = 0.1  # a change that nobody can notice is no regression, whatever its percentage


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What both sides took in one round, and whether something disturbed it.

    Attributes:
        old_ms: Median of the side that is the measure.
        new_ms: Median of the side that is judged.
        noisy: Something else used the machine meanwhile.
    """

    old_ms: float
    new_ms: float
    noisy: bool = False

    @property
    def log_ratio(self) -> float:
        """Above 0 the new side is slower."""
        return log_ratios([self.old_ms], [self.new_ms])[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Mean of the log ratios and its one-sided 99 % bounds."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the rounds say together.

    Attributes:
        judgement: ``slower`` and ``fine`` are proven; ``cannot tell`` is neither.
        limit: The largest change that is fine, such as 0.05.
        change: The measured one, as a part: 0.1 is 10 % slower.
        low: Its lower bound.
        high: Its upper bound.
        rounds: The rounds that count.
        repeated: How many were noisy and measured again.
        unnoticeable: The new side takes longer, but by so little that nobody can notice.
    """

    judgement: Judgement
    limit: float
    change: float
    low: float
    high: float
    rounds: tuple[Round, ...]
    repeated: int
    unnoticeable: bool = False

    @property
    def noisy_share(self) -> float:
        """Part of the rounds that count in which something else used the machine."""
        return sum(one.noisy for one in self.rounds) / len(self.rounds)


def log_ratios(olds_ms: Sequence[float], news_ms: Sequence[float]) -> list[float]:
    """Logarithm of ``new / old`` of each round: above 0 where the new side was slower."""
    return [log(new / old) for old, new in zip(olds_ms, news_ms, strict=True)]


def bounds(ratios: Sequence[float], quantile: float, other_sd: float = 0.0) -> Bounds:
    """The mean of log ratios and its bounds, ``quantile`` standard errors away.

    Args:
        ratios: Logarithms, two or more.
        quantile: Of Student's t.
        other_sd: Standard deviation of what these rounds cannot show, such as the change from day to day.
    """
    mean, count = fmean(ratios), len(ratios)
    variance = sum((one - mean) ** 2 for one in ratios) / (count - 1)
    reach = quantile * sqrt(variance / count + other_sd**2)
    return Bounds(mean=mean, low=mean - reach, high=mean + reach)


def judge(rounds: Sequence[Round], limit: float, other_sd: float = 0.0) -> tuple[Judgement, Bounds]:
    """Judge as many rounds as one of the looks asks for.

    Raises:
        ConfigError: their number is none of 5, 10 and 15, or the limit is no part above 0.
    """
    if len(rounds) not in LOOKS or not limit > 0:
        raise ConfigError(
            f"{len(rounds)} rounds cannot be judged at a limit of {limit:g}.", f"Rounds: {[*LOOKS]}; a limit above 0."
        )
    found = bounds([one.log_ratio for one in rounds], LOOKS[len(rounds)], other_sd)
    if found.high < log1p(limit) or _unnoticeable(rounds):
        return "fine", found
    return ("slower" if found.low > log1p(limit) else "cannot tell"), found


def take_turns(measure: Callable[[int], Round], limit: float, other_sd: float = 0.0) -> Decision:
    """Measure rounds until one side is proven slower, or fine, or there were 15.

    Args:
        measure: Given the number of the round; an odd one begins with the other side.
        limit: The largest change that is fine, such as 0.05.
        other_sd: See ``bounds``.
    """
    rounds: list[Round] = []
    tried = repeated = 0
    while True:
        one = measure(tried)
        tried += 1
        if one.noisy and repeated < MOST_REPEATED:
            repeated += 1
            continue
        rounds.append(one)
        if len(rounds) in LOOKS:
            judgement, found = judge(rounds, limit, other_sd)
            if judgement != "cannot tell" or len(rounds) == MOST_ROUNDS:
                return _decision(judgement, found, limit, rounds, repeated)


def _decision(judgement: Judgement, found: Bounds, limit: float, rounds: Sequence[Round], repeated: int) -> Decision:
    return Decision(
        judgement=judgement,
        limit=limit,
        change=exp(found.mean) - 1,
        low=exp(found.low) - 1,
        high=exp(found.high) - 1,
        rounds=tuple(rounds),
        repeated=repeated,
        unnoticeable=_unnoticeable(rounds),
    )


def _unnoticeable(rounds: Sequence[Round]) -> bool:
    return (
        abs(fmean(one.new_ms - one.old_ms for one in rounds)) <= FEWEST_MS
        and fmean(one.log_ratio for one in rounds) > 0
    )


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
    share, below = (1 - _MEDIAN_CONFIDENCE) / 2, 0.0
    for k in range(count // 2 + 1):
        below += comb(count, k) * 0.5**count
        if below > share:
            return k
    return count // 2
