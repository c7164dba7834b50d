"""Class-aware non-maximum suppression."""

from __future__ import annotations

import numpy as np

from edgecv.protocols import Array
from edgecv.results import FloatArray, IntArray


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
    """Keep the best box of each object.

    Args:
        xyxy: ``(N, 4)`` boxes.
        confidence: ``(N,)``.
        class_id: ``(N,)``: boxes of different classes never suppress each other.
        iou: A box that overlaps a better one of its class by more than this goes.
        max_detections: At most this many are kept.

    Returns:
        ``(K,)`` indices of the kept boxes, best first; equal confidences keep their order.
    """
    left = np.argsort(-confidence, kind="stable")
    kept: list[int] = []
    while len(left) and len(kept) < max_detections:
        best, left = left[0], left[1:]
        kept.append(int(best))
        same = class_id[left] == class_id[best]
        left = left[~(same & (iou_one_to_many(xyxy[best], xyxy[left]) > iou))]
    return np.array(kept, np.int64)
