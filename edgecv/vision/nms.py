"""Class-aware non-maximum suppression."""

from __future__ import annotations

import numpy as np

from edgecv.protocols import Array
from edgecv.results import FloatArray, IntArray

_MATRIX = 256  # boxes up to which all overlaps at once are quicker than one row at a time


def iou_one_to_many(box: FloatArray, boxes: FloatArray) -> FloatArray:
    """Intersection over union of one ``(4,)`` box with ``(N, 4)`` boxes: ``(N,)``; 0 where both are empty."""
    top_left = np.maximum(box[:2], boxes[:, :2])
    bottom_right = np.minimum(box[2:], boxes[:, 2:])
    overlap = (bottom_right - top_left).clip(0).prod(axis=1)
    union = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def iou_matrix(first: Array, second: Array) -> FloatArray:
    """Intersection over union of every one of ``(N, 4)`` boxes with every one of ``(M, 4)``: ``(N, M)``."""
    rows = [iou_one_to_many(box, second) for box in first]
    return np.stack(rows) if rows else np.zeros((0, len(second)), np.float32)


def nms(xyxy: FloatArray, confidence: FloatArray, class_id: IntArray, iou: float, max_detections: int) -> IntArray:
    """Keep the best box of each object; boxes of different classes never suppress each other.

    Of ``(N, 4)`` boxes, one that overlaps a better one of its class by more than ``iou`` goes. The result is ``(K,)`` indices, best
    first, at most ``max_detections``; equal confidences keep their order.
    """
    order = np.argsort(-confidence, kind="stable")
    keep = kept_by_matrix if len(order) <= _MATRIX else kept_by_rows
    return order[keep(xyxy[order], class_id[order], iou, max_detections)]


def kept_by_rows(xyxy: FloatArray, class_id: IntArray, iou: float, most: int) -> IntArray:
    """Places of at most ``most`` kept ones among boxes that are sorted, best first: memory for one row of overlaps."""
    left = np.arange(len(xyxy))
    kept: list[int] = []
    while len(left) and len(kept) < most:
        best, left = left[0], left[1:]
        kept.append(int(best))
        same = class_id[left] == class_id[best]
        left = left[~(same & (iou_one_to_many(xyxy[best], xyxy[left]) > iou))]
    return np.array(kept, np.int64)


def kept_by_matrix(xyxy: FloatArray, class_id: IntArray, iou: float, most: int) -> IntArray:
    """The same from all overlaps at once: fewer calls."""
    top_left = np.maximum(xyxy[:, None, :2], xyxy[None, :, :2])
    bottom_right = np.minimum(xyxy[:, None, 2:], xyxy[None, :, 2:])
    sides = (bottom_right - top_left).clip(0)
    overlap = sides[..., 0] * sides[..., 1]
    area = (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])
    union = area[:, None] + area[None, :] - overlap
    shares = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    rivals = (shares > iou) & (class_id[:, None] == class_id[None, :])
    kept = np.ones(len(xyxy), np.bool_)
    for at in range(len(xyxy)):
        if kept[at]:
            kept[at + 1 :] &= ~rivals[at, at + 1 :]
    return np.flatnonzero(kept)[:most]
