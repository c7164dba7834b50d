"""What pycocotools itself makes of detections: the reference of EdgeCV's own mean average precision."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import NamedTuple

from edgecv.quantize.labels.coco import Truth, evaluation
from edgecv.results import Detections


class MeanAveragePrecision(NamedTuple):
    """Over all classes that occur in the labels, 0 to 1."""

    map50_95: float
    map50: float


def coco_map(pairs: Sequence[tuple[Truth, Detections]], classes: int) -> MeanAveragePrecision:
    """Score detections against the labels of the same images."""
    judge = evaluation(pairs, classes)
    if judge is None:
        return MeanAveragePrecision(0.0, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return MeanAveragePrecision(float(judge.stats[0]), float(judge.stats[1]))
