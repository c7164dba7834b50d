"""COCO mean average precision of detections against labelled pictures, computed by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgecv.extras import require
from edgecv.results import Detections, FloatArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Truth:
    """Labelled boxes of one picture: ``xyxy (N, 4)`` in pixels, ``class_id (N,)``."""

    xyxy: FloatArray
    class_id: IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanAveragePrecision:
    """Over all classes that occur in the labels: ``map50_95`` and ``map50``, 0 to 1."""

    map50_95: float
    map50: float


def coco_map(pairs: Sequence[tuple[Truth, Detections]], classes: int) -> MeanAveragePrecision:
    """Score detections (made with confidence 0.001 and up to 300 boxes) against the labels of the same pictures.

    Raises:
        MissingDependency: pycocotools is not installed.
    """
    cocotools: Any = require("pycocotools.coco", "convert")
    evaluation: Any = require("pycocotools.cocoeval", "convert")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = cocotools.COCO()
        truth.dataset = _dataset([pair[0] for pair in pairs], classes)
        truth.createIndex()
        found = _detections([pair[1] for pair in pairs])
        if not found:
            return MeanAveragePrecision(map50_95=0.0, map50=0.0)
        judge = evaluation.COCOeval(truth, truth.loadRes(found), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return MeanAveragePrecision(map50_95=float(judge.stats[0]), map50=float(judge.stats[1]))


def _dataset(truths: Sequence[Truth], classes: int) -> dict[str, Any]:
    boxes = [
        (image, box, int(label))
        for image, t in enumerate(truths)
        for box, label in zip(t.xyxy, t.class_id, strict=True)
    ]
    return {
        "info": {},
        "images": [{"id": index} for index in range(len(truths))],
        "categories": [{"id": index} for index in range(classes)],
        "annotations": [
            {
                "id": number + 1,
                "image_id": image,
                "category_id": label,
                "bbox": _xywh(box),
                "area": float((box[2] - box[0]) * (box[3] - box[1])),
                "iscrowd": 0,
            }
            for number, (image, box, label) in enumerate(boxes)
        ],
    }


def _detections(found: Sequence[Detections]) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image,
            "category_id": int(detections.class_id[row]),
            "bbox": _xywh(detections.xyxy[row]),
            "score": float(detections.confidence[row]),
        }
        for image, detections in enumerate(found)
        for row in range(len(detections))
    ]


def _xywh(box: FloatArray) -> list[float]:
    left, top, right, bottom = (float(value) for value in box)
    return [left, top, right - left, bottom - top]
