"""Intervals over pictures and seeds: a bootstrap that draws both.

Every seed judges the same pictures, so the two are crossed: a draw takes seeds and pictures apart from each other, and each drawn
picture counts for every drawn seed (Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1, 2007). Of ``S`` seeds
``S - 1`` are drawn, which makes the variance of a mean over so few right on average (Rao and Wu, "Resampling inference with complex
survey data", JASA 83, 1988); ``S`` of ``S`` would give two thirds of it for three. One seed is kept as it is: the interval then
covers pictures alone.

What two recipes give in the same draws is compared draw by draw, so what is hard for both cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgecv.quantize.labels.bootstrap import RealArray
from edgecv.results import IntArray

_CHUNK = 100  # draws held at a time: memory stays flat in their number
_ENDS = (0.025, 0.975)  # of 95 % of the draws

Compared = Literal["difference", "ratio"]

BySeed = Callable[[IntArray], RealArray]
"""How often each picture was drawn ``(B, I)`` to a figure of each draw and seed ``(B, S)``; NaN where a draw shows nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure over all pictures and seeds with its 95 % interval."""

    value: float
    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether a value is not excluded."""
        return not (self.low > value or self.high < value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The draws, which depend on these numbers alone."""

    seeds: int
    pictures: int
    resamples: int = 2000
    seed: int = 0

    def draws(self) -> Iterator[tuple[IntArray, IntArray]]:
        """How often each seed ``(B, S)`` and each picture ``(B, I)`` was drawn, in pieces of up to 100 draws."""
        random = np.random.default_rng(self.seed)
        drawn_seeds = max(1, self.seeds - 1)
        for start in range(0, self.resamples, _CHUNK):
            size = min(_CHUNK, self.resamples - start)
            seeds = random.multinomial(drawn_seeds, np.full(self.seeds, 1 / self.seeds), size=size)
            yield seeds, random.multinomial(self.pictures, np.full(self.pictures, 1 / self.pictures), size=size)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """A figure, averaged over the seeds: of all pictures, and of each draw."""

    value: float
    draws: RealArray  # `(B,)`

    def estimate(self) -> Estimate:
        """The figure itself."""
        return _estimate(self.value, self.draws)

    def less(self, other: Drawn) -> Drawn:
        """What this figure is more than another one of the same draws."""
        return Drawn(value=self.value - other.value, draws=self.draws - other.draws)

    def against(self, other: Drawn, how: Compared) -> Estimate:
        """This figure less the other one, or divided by it; both of the same draws."""
        if how == "difference":
            return self.less(other).estimate()
        return _estimate(_divided(self.value, other.value), _divided(self.draws, other.draws))


def drawn(figure: BySeed, plan: Plan) -> Drawn:
    """Compute a figure of all draws."""
    means = [(figure(pictures) * seeds).sum(axis=1) / seeds.sum(axis=1) for seeds, pictures in plan.draws()]
    whole = figure(np.ones((1, plan.pictures), np.int64))
    return Drawn(value=float(whole.mean()), draws=np.concatenate(means))


def ratio_of_sums(over: RealArray, under: RealArray) -> BySeed:
    """A figure that is a sum over the pictures divided by another one: from ``(S, I)`` each."""

    def figure(counts: IntArray) -> RealArray:
        return _divided(counts @ over.T, counts @ under.T)

    return figure


def _divided(over: RealArray | float, under: RealArray | float) -> RealArray:
    """NaN where there is nothing to divide by."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.divide(over, under)
    return np.where(np.isfinite(found), found, np.nan)


def _estimate(value: float | RealArray, draws: RealArray) -> Estimate:
    if np.isnan(draws).all():
        return Estimate(value=float(value), low=float("nan"), high=float("nan"))
    low, high = np.nanquantile(draws, _ENDS)
    return Estimate(value=float(value), low=float(low), high=float(high))
