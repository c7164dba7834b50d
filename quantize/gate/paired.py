"""Which of two recipes is better, as far as the held-out images and three seeds can show it.

One recipe with another sample of the same calibration values gives another file, whose error differs by up to 15 % (YOLOv8n). So
both recipes are made with the same seeds and judged on the same images, and the bootstrap draws images and seeds alike.

Drawn from three seeds, the bootstrap would give intervals that are too narrow (Hesterberg, "What teachers should know about the
bootstrap", The American Statistician 69, 2015, section 4): what the draw of seeds changes is widened to what Student's t asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgecv.quantize.gate.accuracy_gate import Answer
from edgecv.quantize.gate.boxes import match
from edgecv.quantize.gate.class_scores import ScoreError
from edgecv.quantize.labels.bootstrap import Interval, RealArray, draws, interval_of
from edgecv.quantize.record import Comparison
from edgecv.results import Classification, Detections, IntArray

SEEDS = (0, 1, 2)
_WIDER = 4.303 / 1.960 * (3 / 2) ** 0.5  # t of two degrees of freedom over the normal, and n / (n - 1) of the variance
_TINY = 1e-12  # beside any squared error; it keeps the logarithm of 0 finite
_DRAW_OF_SEEDS = 1  # another seed than that of the images, or both draws would be alike

Figure = Callable[[IntArray, IntArray], RealArray]
"""How often each seed ``(B, S)`` and each image ``(B, I)`` was drawn, to the figure of each draw ``(B,)``."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageFigures:
    """What a candidate gave on each held-out image: ``(I,)`` each; of several seeds ``(S, I)``."""

    squared: RealArray  # the squared error of its class scores
    same: RealArray  # how many of its boxes are the float model's; of a classifier, 1 for the same class
    found: RealArray  # how many boxes both models have together


def image_figures(teacher: Sequence[Answer], student: Sequence[Answer], error: ScoreError) -> ImageFigures:
    """The figures of every image, from the answers of both models and the error of the scores."""
    rows = [_agreement(t, s) for t, s in zip(teacher, student, strict=True)]
    same, found = np.array(rows, np.float64).reshape(-1, 2).T
    return ImageFigures(squared=error.squared, same=same, found=found)


def over_seeds(seeds: Sequence[ImageFigures]) -> ImageFigures:
    """The figures of one recipe that was made with several seeds."""
    return ImageFigures(
        squared=np.stack([one.squared for one in seeds]),
        same=np.stack([one.same for one in seeds]),
        found=np.stack([one.found for one in seeds]),
    )


def compare_recipes(first: str, second: str, ours: ImageFigures, theirs: ImageFigures) -> Comparison:
    """Compare the ``second`` recipe with the ``first``, over the same seeds and images ``(S, I)``."""

    def log_ratio(seeds: IntArray, images: IntArray) -> RealArray:
        return _log_ratio(_sum(theirs.squared, seeds, images), _sum(ours.squared, seeds, images))

    def gain(seeds: IntArray, images: IntArray) -> RealArray:
        return _f1(theirs, seeds, images) - _f1(ours, seeds, images)

    error, f1 = _interval(log_ratio, ours.squared.shape), _interval(gain, ours.squared.shape)
    seeds, images = (np.ones((1, count), np.int64) for count in ours.squared.shape)
    return Comparison(
        first=first,
        second=second,
        seeds=ours.squared.shape[0],
        images=ours.squared.shape[1],
        error_ratio=float(np.exp(log_ratio(seeds, images)[0])),
        error_low=float(np.exp(error.low)),
        error_high=float(np.exp(error.high)),
        f1_gain=float(gain(seeds, images)[0]),
        f1_low=f1.low,
        f1_high=f1.high,
        shown=_shown(error, f1),
    )


def _shown(error: Interval, f1: Interval) -> str:
    """``better`` or ``worse`` where one measure shows it and the other does not show the opposite; else nothing is shown."""
    better, worse = error.high < 0 or f1.low > 0, error.low > 0 or f1.high < 0
    return "" if better == worse else "better" if better else "worse"


def _agreement(teacher: Answer, student: Answer) -> tuple[int, int]:
    if isinstance(teacher, Detections) and isinstance(student, Detections):
        return len(match(teacher, student, 0.5)[0]), len(teacher) + len(student)
    assert isinstance(teacher, Classification)
    assert isinstance(student, Classification)
    return int(teacher.class_id[0] == student.class_id[0]), 2


def _interval(figure: Figure, shape: tuple[int, ...]) -> Interval:
    seeds, images = shape
    both = zip(draws(seeds, seed=_DRAW_OF_SEEDS), draws(images), strict=True)
    return interval_of([_widened(figure, drawn, counts) for drawn, counts in both])


def _widened(figure: Figure, drawn: IntArray, images: IntArray) -> RealArray:
    mean = figure(np.ones_like(drawn), images)
    return mean + _WIDER * (figure(drawn, images) - mean)


def _sum(figures: RealArray, seeds: IntArray, images: IntArray) -> RealArray:
    total: RealArray = np.einsum("bs,si,bi->b", seeds, figures, images)
    return total


def _log_ratio(above: RealArray, below: RealArray) -> RealArray:
    """The logarithm of the quotient; 0 where both are 0."""
    logs: RealArray = np.log(above + _TINY) - np.log(below + _TINY)
    return logs


def _f1(figures: ImageFigures, seeds: IntArray, images: IntArray) -> RealArray:
    found = _sum(figures.found, seeds, images)
    return np.divide(2 * _sum(figures.same, seeds, images), found, out=np.zeros_like(found), where=found > 0)
