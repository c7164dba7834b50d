"""Average precision of any draw of the images, from matches made once: what makes a bootstrap of mAP affordable.

pycocotools matches boxes image by image (``coco.match_boxes``); what it then does with the matches of all images
(``COCOeval.accumulate``) is done here in numpy, for many draws at a time. An image drawn twice counts twice. With every image
drawn once the result is that of pycocotools.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecv.quantize.labels.bootstrap import RealArray
from edgecv.results import BoolArray, IntArray

RECALLS = np.linspace(0.0, 1.0, 101)  # COCO reads the precision at these recalls


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matches:
    """Detections of all images, each a hit or not."""

    image: IntArray  # `(D,)` int64, index of the image; within a class best first, as in pycocotools
    class_id: IntArray  # `(D,)` int64
    score: RealArray  # `(D,)` float64, 0 to 1
    # `(T, D)` bool: whether it found a label, at each of the IoU limits 0.50, 0.55 ... 0.95
    hit: BoolArray
    labels: IntArray  # `(K, I)` int64: how many labels of each class each image has

    @property
    def images(self) -> int:
        """How many images the labels cover."""
        return int(self.labels.shape[1])


def mean_precision(matches: Matches, counts: IntArray) -> RealArray:
    """Mean average precision over IoU 0.50 to 0.95 and the classes that occur, of each draw.

    ``counts`` ``(B, I)`` says how often each image was drawn. The result is ``(B,)``, 0 to 1; NaN for a draw without labels.
    """
    return mean_over_classes(class_precisions(matches, counts).mean(axis=2))


def mean_over_classes(precisions: RealArray) -> RealArray:
    """``(B, K)`` to ``(B,)``, over the classes that are not NaN; NaN where all are."""
    present = ~np.isnan(precisions)
    classes = present.sum(axis=1)
    total = np.where(present, precisions, 0.0).sum(axis=1)
    return np.divide(total, classes, out=np.full(len(classes), np.nan), where=classes > 0)


def class_precisions(matches: Matches, counts: IntArray) -> RealArray:
    """Average precision of each draw, class and IoU limit: ``(B, K, T)``, NaN where a draw has no label of a class."""
    limits = len(matches.hit)
    found = np.full((len(counts), len(matches.labels), limits), np.nan)
    for class_id in np.flatnonzero(matches.labels.any(axis=1)):
        labels = counts @ matches.labels[class_id]
        rows = _down_to_last_hit(np.flatnonzero(matches.class_id == class_id), matches.hit)
        drawn = counts[:, matches.image[rows]]
        ranks = np.cumsum(drawn, axis=1, dtype=np.float64)
        for limit in range(limits):
            hits = np.flatnonzero(matches.hit[limit, rows])
            found[:, class_id, limit] = _precision(drawn[:, hits], ranks[:, hits], labels)
    return found


def _down_to_last_hit(rows: IntArray, hit: BoolArray) -> IntArray:
    """Misses after the last hit change nothing, and under COCO's protocol they are most of the boxes."""
    hits = np.flatnonzero(hit[:, rows].any(axis=0))
    return rows[: hits[-1] + 1] if len(hits) else rows[:0]


def _precision(drawn: IntArray, ranks: RealArray, labels: IntArray) -> RealArray:
    """Interpolated average precision of one class at one limit.

    Only hits matter: between two of them precision falls and recall stands. ``drawn`` ``(B, H)`` is how often each hit was drawn,
    best first, ``ranks`` ``(B, H)`` counts detections down to and including each hit, ``labels`` ``(B,)`` those of each draw.
    """
    hits = np.cumsum(drawn, axis=1, dtype=np.float64)
    precision = hits / (ranks + np.spacing(1))  # as pycocotools keeps 0/0 away
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = np.divide(hits, labels[:, None], out=np.zeros_like(hits), where=labels[:, None] > 0)
    reached = np.searchsorted(RECALLS, recall, side="right")  # recalls that are read at this hit or before
    steps = np.diff(reached, axis=1, prepend=0)
    return np.where(labels > 0, (steps * envelope).sum(axis=1) / len(RECALLS), np.nan)
