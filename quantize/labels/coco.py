"""COCO mean average precision of detections against labelled images, computed by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv.errors import MissingDependency
from edgecv.quantize.labels.average_precision import Matches
from edgecv.results import Detections, FloatArray, IntArray

_LIMITS = 10  # IoU 0.50, 0.55 ... 0.95


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Truth:
    """What is labelled in one image."""

    xyxy: FloatArray  # `(N, 4)` float32 in pixels
    class_id: IntArray  # `(N,)` int64
    outline: tuple[FloatArray, ...] | None = None  # `N` polygons `(P, 2)` in pixels, where every object has one


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameMasks:
    """Masks of one image's detections as pycocotools encodes them: a hundredth of the memory."""

    size_wh: tuple[int, int]
    runs: tuple[dict[str, Any], ...]


def pycocotools(part: str) -> Any:
    """A module of pycocotools, which is asked for alone: a device that judges needs nothing else of the workstation.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        return require(f"pycocotools.{part}", "convert")
    except MissingDependency as error:
        raise MissingDependency(error.message, "Install it alone with: pip install pycocotools") from error


def match_boxes(pairs: Sequence[tuple[Truth, Detections]], classes: int) -> Matches:
    """pycocotools' matches of the boxes, kept so that average precision can be had of any draw of the images.

    Raises:
        MissingDependency: pycocotools is not installed.
    """
    return _matched(evaluation(pairs, classes), pairs, classes)


def match_masks(pairs: Sequence[tuple[Truth, Detections]], masks: Sequence[FrameMasks], classes: int) -> Matches:
    """The same of masks, against labels with outlines.

    Raises:
        MissingDependency: pycocotools is not installed.
    """
    return _matched(evaluation(pairs, classes, masks), pairs, classes)


def encode_masks(found: Detections, size_wh: tuple[int, int]) -> FrameMasks:
    """Encode the masks of an image's detections; none where they have none."""
    coder: Any = pycocotools("mask")
    whole = () if found.mask is None else found.mask
    return FrameMasks(size_wh=size_wh, runs=tuple(coder.encode(np.asfortranarray(mask, np.uint8)) for mask in whole))


def _matched(judge: Any | None, pairs: Sequence[tuple[Truth, Detections]], classes: int) -> Matches:
    labels = np.zeros((classes, len(pairs)), np.int64)
    for image, (truth, _) in enumerate(pairs):
        np.add.at(labels[:, image], truth.class_id, 1)
    if judge is None:
        return _matches([], labels)
    judge.params.areaRng = judge.params.areaRng[:1]  # objects of every size
    judge.params.areaRngLbl = judge.params.areaRngLbl[:1]
    with contextlib.redirect_stdout(io.StringIO()):
        judge.evaluate()
    return _matches([row for row in judge.evalImgs if row is not None and row["dtScores"]], labels)


def _matches(rows: Sequence[dict[str, Any]], labels: IntArray) -> Matches:
    """Rows of ``COCOeval.evalImgs`` as one table: classes in turn, each best first, equal scores by image."""
    class_id = np.array([row["category_id"] for row in rows for _ in row["dtScores"]], np.int64)
    image = np.array([row["image_id"] for row in rows for _ in row["dtScores"]], np.int64)
    score = np.array([value for row in rows for value in row["dtScores"]], np.float64)
    hit = np.concatenate([np.zeros((_LIMITS, 0), bool), *(row["dtMatches"] > 0 for row in rows)], axis=1)
    order = np.lexsort((image, -score, class_id))  # stable: within an image pycocotools' own order stays
    return Matches(image=image[order], class_id=class_id[order], score=score[order], hit=hit[:, order], labels=labels)


def evaluation(pairs: Sequence[tuple[Truth, Detections]], classes: int, masks: Sequence[FrameMasks] = ()) -> Any | None:
    """pycocotools' judge of the boxes, or of the masks; ``None`` when nothing was detected, which it cannot load."""
    cocotools: Any = pycocotools("coco")
    judging: Any = pycocotools("cocoeval")
    found = _detections([pair[1] for pair in pairs])
    if not found:
        return None
    dataset = _dataset([pair[0] for pair in pairs], classes)
    if masks:
        dataset, found = _with_masks(dataset, found, pairs, masks)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = cocotools.COCO()
        truth.dataset = dataset
        truth.createIndex()
        return judging.COCOeval(truth, truth.loadRes(found), "segm" if masks else "bbox")


def _with_masks(
    dataset: dict[str, Any],
    found: list[dict[str, Any]],
    pairs: Sequence[tuple[Truth, Detections]],
    masks: Sequence[FrameMasks],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """COCO's documents with outlines and masks in place of boxes; both list images in turn and what is in each."""
    outlines = [outline for truth, _ in pairs for outline in truth.outline or ()]
    runs = [run for frame in masks for run in frame.runs]
    sizes = [{"id": at, "width": frame.size_wh[0], "height": frame.size_wh[1]} for at, frame in enumerate(masks)]
    labels = [
        {**label, "segmentation": [[float(value) for value in outline.ravel()]]}
        for label, outline in zip(dataset["annotations"], outlines, strict=True)
    ]
    answers = [
        {name: row[name] for name in ("image_id", "category_id", "score")} | {"segmentation": run}
        for row, run in zip(found, runs, strict=True)
    ]
    return {**dataset, "images": sizes, "annotations": labels}, answers


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
