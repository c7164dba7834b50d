"""The held-out images on which INT8 strays furthest from its float model, small enough for a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgecv._internal.extras import opencv
from edgecv.media.images import read_image
from edgecv.quantize.gate.accuracy_gate import Answer
from edgecv.quantize.gate.boxes import match
from edgecv.quantize.record import BoxRow, WorstImage
from edgecv.results import Detections, Image
from edgecv.vision.class_names import label_of
from edgecv.vision.nms import iou_matrix

_WIDTH_PX, _JPEG_QUALITY = 480, 80  # about 30 kB each
_MOST_BOXES = 60  # more cannot be told apart at that size


def worst_images(
    images: Sequence[Path],
    teacher: Sequence[Answer],
    student: Sequence[Answer],
    labels: tuple[str, ...],
    count: int = 6,
) -> tuple[WorstImage, ...]:
    """The images with the lowest agreement, worst first; none for classifiers, nor images where neither finds a box.

    Of the held-out images, which both models answered, only those that are chosen are read.
    """
    rated = [
        (image_agreement(wanted, found), at, wanted, found)
        for at, (wanted, found) in enumerate(zip(teacher, student, strict=True))
        if isinstance(wanted, Detections) and isinstance(found, Detections) and len(wanted) + len(found)
    ]
    chosen = sorted(rated, key=lambda each: each[:2])[:count]
    return tuple(_worst(images[at], value, wanted, found, labels) for value, at, wanted, found in chosen)


def image_agreement(teacher: Detections, student: Detections) -> float:
    """F1 of boxes matched at IoU 0.5, each pair counted by its IoU: 1 when all boxes are the same, 0 when none matches."""
    total = len(teacher) + len(student)
    at_teacher, at_student = match(teacher, student, 0.5)
    shared = iou_matrix(teacher.xyxy, student.xyxy)[at_teacher, at_student]
    return 2 * float(np.sum(shared)) / total if total else 1.0


def _worst(
    path: Path, agreement: float, teacher: Detections, student: Detections, labels: tuple[str, ...]
) -> WorstImage:
    image = read_image(path)
    scale = min(1.0, _WIDTH_PX / image.shape[1])
    return WorstImage(
        name=path.name,
        agreement=round(agreement, 4),
        jpeg=_jpeg(image, scale),
        scale=scale,
        float_boxes=_rows(teacher, labels),
        int8_boxes=_rows(student, labels),
    )


def _jpeg(image: Image, scale: float) -> bytes:
    cv2 = opencv()
    size_wh = tuple(max(1, round(side * scale)) for side in (image.shape[1], image.shape[0]))
    small = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA) if scale < 1 else image
    data: bytes = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
    return data


def _rows(found: Detections, labels: tuple[str, ...]) -> tuple[BoxRow, ...]:
    return tuple(
        BoxRow(
            xyxy=tuple(round(float(value), 2) for value in box),  # type: ignore[arg-type]  # four, by Detections' shape
            confidence=round(float(confidence), 4),
            label=label_of(labels, int(class_id)),
        )
        for box, confidence, class_id in zip(found.xyxy, found.confidence, found.class_id, strict=True)
    )[:_MOST_BOXES]
