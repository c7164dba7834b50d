"""Matches of many pictures' boxes with their labels, kept small: 16 bytes a box, which 5,000 pictures of COCO need."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgecv.quantize.labels.average_precision import Matches
from edgecv.quantize.labels.coco import Truth, match_boxes
from edgecv.results import Detections

_CHUNK = 50  # pictures that pycocotools matches at a time: it takes some milliseconds each time
_LIMITS = 10  # IoU 0.50, 0.55 ... 0.95: one bit each
_BITS = 1 << np.arange(_LIMITS)


@dataclass(slots=True, eq=False)
class MatchLog:
    """Takes pictures one by one and matches them in pieces; the boxes themselves are not kept."""

    classes: int
    pictures: int
    _waiting: list[tuple[int, Truth, Detections]] = field(default_factory=list)
    _rows: list[npt.NDArray[np.void]] = field(default_factory=list)
    _labels: npt.NDArray[np.int64] | None = None

    def add(self, picture: int, truth: Truth, found: Detections) -> None:
        """Boxes of a picture, in its pixels, as its labels are."""
        self._waiting.append((picture, truth, found))
        if len(self._waiting) >= _CHUNK:
            self._match()

    def matches(self) -> Matches:
        """All of them, as ``match_boxes`` gives them for all pictures at once."""
        self._match()
        rows = np.concatenate([np.zeros(0, _ROW), *self._rows])
        rows = rows[np.lexsort((rows["image"], -rows["score"], rows["class_id"]))]
        return Matches(
            image=rows["image"].astype(np.int64),
            class_id=rows["class_id"].astype(np.int64),
            score=rows["score"].astype(np.float64),
            hit=(rows["hits"][None, :] & _BITS[:, None]) > 0,
            labels=self._table(),
        )

    def _table(self) -> npt.NDArray[np.int64]:
        if self._labels is None:
            self._labels = np.zeros((self.classes, self.pictures), np.int64)
        return self._labels

    def _match(self) -> None:
        if not self._waiting:
            return
        places = np.array([picture for picture, _, _ in self._waiting])
        found = match_boxes([(truth, boxes) for _, truth, boxes in self._waiting], self.classes)
        self._table()[:, places] = found.labels
        self._rows.append(_rows(found, places))
        self._waiting.clear()


_ROW = np.dtype([("image", np.int32), ("class_id", np.int32), ("score", np.float32), ("hits", np.int32)])


def _rows(found: Matches, places: npt.NDArray[np.int64]) -> npt.NDArray[np.void]:
    rows = np.zeros(len(found.score), _ROW)
    rows["image"], rows["class_id"], rows["score"] = places[found.image], found.class_id, found.score
    rows["hits"] = (found.hit * _BITS[:, None]).sum(axis=0)
    return rows
