"""What a sample can show: the paired bootstrap over images.

Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979): draw as many images as there are, with
replacement, many times over; how a figure varies over the draws tells how it would vary over other samples. It is paired: both
models are judged on the same draws, so what is hard for both cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecv.results import IntArray

RESAMPLES = 1000
_CHUNK = 100  # draws held at a time: memory stays flat in the number of resamples

_ENDS = (0.025, 0.975)  # of 95 % of the draws

RealArray = npt.NDArray[np.float64]

Figure = Callable[[IntArray], RealArray]
"""How often each image was drawn ``(B, I)`` to the figure of each draw ``(B,)``; NaN where a draw shows nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """From ``low`` to ``high``, in the unit of the figure."""

    low: float
    high: float


def draws(images: int, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[IntArray]:
    """How often each image occurs in each draw: pieces of ``(up to 100, images)`` int64 that depend on the seed alone."""
    random = np.random.default_rng(seed)
    even = np.full(images, 1 / images)
    for start in range(0, resamples, _CHUNK):
        yield random.multinomial(images, even, size=min(_CHUNK, resamples - start))


def paired_interval(first: Figure, second: Figure, images: int, resamples: int = RESAMPLES) -> Interval:
    """The 95 % interval of ``first - second`` over the same images, at least one: percentiles of its bootstrap distribution."""
    return interval_of([first(counts) - second(counts) for counts in draws(images, resamples)])


def interval_of(pieces: Sequence[RealArray]) -> Interval:
    """The 95 % interval of a figure, from its values in all draws."""
    low, high = np.nanquantile(np.concatenate(pieces), _ENDS)
    return Interval(low=float(low), high=float(high))
