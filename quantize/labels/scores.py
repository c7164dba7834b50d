"""What one model scored on labelled images, kept image by image so that any draw of them can be scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from edgecv.quantize.labels.average_precision import Matches, class_precisions, mean_over_classes, mean_precision
from edgecv.quantize.labels.bootstrap import RESAMPLES, RealArray
from edgecv.quantize.labels.coco import Truth
from edgecv.results import Detections, IntArray


class Scores(Protocol):
    """Scores of one model; two of the same images can be compared."""

    @property
    def metric(self) -> str:
        """Name of the figure that decides: ``map50_95`` or ``top1``."""

    @property
    def images(self) -> int:
        """How many images were scored."""

    @property
    def resamples(self) -> int:
        """How many draws an interval of the figure rests on; with 400 its ends vary by about a tenth of its width."""

    def of_draws(self, counts: IntArray) -> RealArray:
        """The figure of each draw: how often each image was drawn ``(B, I)`` to ``(B,)``, 0 to 1."""

    def figures(self) -> dict[str, float]:
        """Figures over all images by name, 0 to 1; the one that decides first."""

    def by_class(self) -> RealArray:
        """``(K,)``: AP50-95 or recall of each class; NaN where no label shows it."""

    def labels_by_class(self) -> IntArray:
        """``(K,)``: how many labels each class has."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DetectorScores:
    """Scores of one detection model."""

    pairs: tuple[tuple[Truth, Detections], ...]  # labels and detections of each image, in pixels
    matches: Matches  # pycocotools' matches of them
    # The same of their masks, where the model gives masks and every label is an outline
    mask_matches: Matches | None = None
    metric: ClassVar[str] = "map50_95"
    resamples: ClassVar[int] = (
        400  # each costs an average precision per class and IoU limit: 1.5 s for 128 images of COCO
    )

    @property
    def images(self) -> int:
        return len(self.pairs)

    def of_draws(self, counts: IntArray) -> RealArray:
        return mean_precision(self.matches, counts)

    def figures(self) -> dict[str, float]:
        """``map50_95`` and ``map50`` of the boxes, then ``mask_map50_95`` and ``mask_map50`` where there are masks."""
        return _means("", self.matches) | (_means("mask_", self.mask_matches) if self.mask_matches else {})

    def by_class(self) -> RealArray:
        """Average precision of each class over IoU 0.50 to 0.95."""
        return _precisions(self.matches).mean(axis=1)

    def labels_by_class(self) -> IntArray:
        """Labelled boxes of each class."""
        return self.matches.labels.sum(axis=1)


def _means(prefix: str, matches: Matches) -> dict[str, float]:
    precisions = _precisions(matches)
    means = mean_over_classes(np.stack([precisions.mean(axis=1), precisions[:, 0]]))
    return {f"{prefix}map50_95": float(means[0]), f"{prefix}map50": float(means[1])}


def _precisions(matches: Matches) -> RealArray:
    """Average precision over all images, by class and IoU limit: ``(K, T)``."""
    return class_precisions(matches, np.ones((1, matches.images), np.int64))[0]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassifierScores:
    """Scores of one classification model."""

    class_id: IntArray  # `(I,)` int64, the labelled class of each image
    # `(I,)` int64, where it stands among the model's classes: 0 is the best; a large number where it is not among them
    rank: IntArray
    classes: int  # how many classes the model knows
    metric: ClassVar[str] = "top1"
    resamples: ClassVar[int] = RESAMPLES

    @property
    def images(self) -> int:
        return len(self.class_id)

    def of_draws(self, counts: IntArray) -> RealArray:
        return counts @ (self.rank == 0) / counts.sum(axis=1)

    def figures(self) -> dict[str, float]:
        """The accuracies ``top1`` and ``top5`` over all images."""
        return {"top1": float(np.mean(self.rank == 0)), "top5": float(np.mean(self.rank < 5))}

    def by_class(self) -> RealArray:
        """Recall of each class: the share of its images that the model names right."""
        right = np.bincount(self.class_id[self.rank == 0], minlength=self.classes)
        labels = self.labels_by_class()
        return np.divide(right, labels, out=np.full(self.classes, np.nan), where=labels > 0)

    def labels_by_class(self) -> IntArray:
        return np.bincount(self.class_id, minlength=self.classes).astype(np.int64)
