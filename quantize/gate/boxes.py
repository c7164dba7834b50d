"""How far two detectors agree on the same images: the float model is the teacher, no labels are needed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edgecv.results import BoolArray, Detections, FloatArray, IntArray
from edgecv.vision.nms import iou_matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What matching the student's boxes to the teacher's gives."""

    f1_50: float  # F1 of boxes matched at IoU 0.5 and equal class
    f1_75: float  # the same at IoU 0.75: falls first when boxes degrade while scores look fine
    matched_iou: float  # mean IoU of the pairs matched at 0.5
    score_bias: float  # mean of student minus teacher confidence over those pairs
    teacher_boxes: int  # how many boxes the figures rest on


def agreement(pairs: Iterable[tuple[Detections, Detections]]) -> Agreement:
    """Compare ``(teacher, student)`` detections, image by image."""
    ious: list[FloatArray] = []
    biases: list[FloatArray] = []
    hits_75 = total = teachers = 0
    for teacher, student in pairs:
        total += len(teacher) + len(student)
        teachers += len(teacher)
        hits_75 += len(match(teacher, student, 0.75)[0])
        at_teacher, at_student = match(teacher, student, 0.5)
        ious.append(iou_matrix(teacher.xyxy, student.xyxy)[at_teacher, at_student])
        biases.append(student.confidence[at_student] - teacher.confidence[at_teacher])
    matched = np.concatenate([np.zeros(0, np.float32), *ious])
    bias = np.concatenate([np.zeros(0, np.float32), *biases])
    return Agreement(
        f1_50=2 * len(matched) / total if total else 0.0,
        f1_75=2 * hits_75 / total if total else 0.0,
        matched_iou=float(matched.mean()) if len(matched) else 0.0,
        score_bias=float(bias.mean()) if len(bias) else 0.0,
        teacher_boxes=teachers,
    )


def match(teacher: Detections, student: Detections, iou: float) -> tuple[IntArray, IntArray]:
    """Indices of pairs of one class that overlap by at least ``iou``: the student's best box chooses first."""
    overlap = iou_matrix(teacher.xyxy, student.xyxy)
    overlap[teacher.class_id[:, None] != student.class_id[None, :]] = 0.0
    free: BoolArray = np.ones(len(teacher), bool)
    pairs: list[tuple[int, int]] = []
    for column in range(len(student)) if len(teacher) else ():
        candidates = np.where(free, overlap[:, column], 0.0)
        row = int(candidates.argmax())
        if candidates[row] >= iou:
            free[row] = False
            pairs.append((row, column))
    found = np.array(pairs, np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]
