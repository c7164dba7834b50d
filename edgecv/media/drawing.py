"""Paints what was found onto images."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from colorsys import hsv_to_rgb

import numpy as np

from edgecv._internal.extras import opencv
from edgecv.detections import BoolArray, Classification, Detections, FloatArray, Image, Masks, check_image
from edgecv.errors import SpecMismatch
from edgecv.vision.class_names import label_of

Color = tuple[int, int, int]

_GOLDEN_ANGLE = 0.381966  # of a turn: neighbouring class numbers get hues far apart
_SHORT_SIDE_PER_LINE = 320  # a line grows by one pixel for every so many pixels of the image's short side
_SHOWN_CLASSES = 3
_MASK_SHARE = 0.5  # of the colour in a mask
_SEEN = 0.5  # keypoints below this confidence are hidden in the image, or not there


def annotate(image: Image, found: Detections | Classification | Masks, labels: Sequence[str] = ()) -> Image:
    """Paint what was found onto a copy of the image: boxes, masks, keypoints and names, or the best classes.

    Args:
        image: ``(H, W, 3)`` uint8 BGR, the image in which it was found.
        found: What a model gave for this image.
        labels: Name of each class; by default the names that ``found`` holds.

    Returns:
        A new ``(H, W, 3)`` uint8 BGR image.

    Raises:
        SpecMismatch: ``image`` is not ``(H, W, 3)`` uint8, or ``found`` is something else.
        MissingDependency: OpenCV is not installed.
    """
    check_image(image)
    painted: Image = image.copy()
    if isinstance(found, Masks):
        _draw_masks(painted, found)
    elif isinstance(found, Detections):
        _draw_detections(painted, found, labels or found.labels)
    elif isinstance(found, Classification):
        _draw_classes(painted, found, labels or found.labels)
    else:
        raise SpecMismatch(f"A {type(found).__name__} cannot be painted.", "Of a Result, call result.plot().")
    return painted


@functools.cache
def class_color(class_id: int) -> Color:
    """The colour of a class, BGR; the same in every image and run."""
    red, green, blue = hsv_to_rgb((class_id * _GOLDEN_ANGLE) % 1.0, 0.85, 1.0)
    return round(blue * 255), round(green * 255), round(red * 255)


def _draw_detections(painted: Image, found: Detections, labels: Sequence[str]) -> None:
    # The best are painted last, so that their labels stay on top.
    for row in reversed(range(len(found))):
        class_id = int(found.class_id[row])
        corners = [round(float(value)) for value in found.xyxy[row]]
        text = f"{label_of(labels, class_id)} {float(found.confidence[row]):.2f}"
        if found.tracker_id is not None and found.tracker_id[row] >= 0:  # -1: not sure yet, and never counted
            text = f"#{int(found.tracker_id[row])} {text}"
        color = class_color(class_id)
        if found.mask is not None:
            _draw_mask(painted, found.mask[row], color)
        if found.obb is None:
            _draw_box(painted, corners, color)
        else:
            _draw_rotated_box(painted, found.obb[row], color)
        if found.keypoints is not None:
            _draw_keypoints(painted, found.keypoints[row], color)
        draw_plate(painted, text, (corners[0], corners[1]), color)


def _draw_masks(painted: Image, found: Masks) -> None:
    for row, (crop, box) in enumerate(zip(found.crops, found.xyxy.astype(int).tolist(), strict=True)):
        left, top, right, bottom = box
        color = class_color(row)
        _draw_mask(painted[top:bottom, left:right], crop, color)
        _draw_box(painted, box, color)
        draw_plate(painted, f"{float(found.iou[row]):.2f}", (left, top), color)


def _draw_box(painted: Image, corners: list[int], color: Color) -> None:
    left, top, right, bottom = corners
    opencv().rectangle(painted, (left, top), (right, bottom), color, line_width(painted))


def _draw_rotated_box(painted: Image, obb: FloatArray, color: Color) -> None:
    """The outline of a box ``(5,)``: centre x, centre y, width, height, radians clockwise."""
    x, y, width, height, angle = (float(value) for value in obb)
    along = np.array([np.cos(angle), np.sin(angle)]) * width / 2
    across = np.array([-np.sin(angle), np.cos(angle)]) * height / 2
    around = np.array([x, y]) + np.stack([-along - across, along - across, along + across, across - along])
    opencv().polylines(painted, [np.rint(around).astype(np.int32)], True, color, line_width(painted))


def _draw_mask(painted: Image, mask: BoolArray, color: Color) -> None:
    """Tint the pixels of a mask ``(H, W)``."""
    tint = np.array(color, np.float32) * _MASK_SHARE
    painted[mask] = (painted[mask] * (1 - _MASK_SHARE) + tint).astype(np.uint8)


def _draw_keypoints(painted: Image, keypoints: FloatArray, color: Color) -> None:
    """A dot per keypoint ``(K, 3)`` that is seen."""
    cv2 = opencv()
    for x, y, confidence in keypoints:
        if confidence >= _SEEN:
            cv2.circle(painted, (round(float(x)), round(float(y))), line_width(painted) + 1, color, cv2.FILLED)


def _draw_classes(painted: Image, found: Classification, labels: Sequence[str]) -> None:
    for row in range(min(_SHOWN_CLASSES, len(found))):
        class_id = int(found.class_id[row])
        text = f"{label_of(labels, class_id)} {float(found.confidence[row]):.2f}"
        draw_plate(painted, text, (0, (row + 1) * _text_height(painted)), class_color(class_id))


def draw_plate(painted: Image, text: str, bottom_left: tuple[int, int], color: Color) -> None:
    """A filled plate with text: above the point, moved inside the image where it would leave it."""
    cv2 = opencv()
    width, height = plate_size_wh(painted, text)
    left = max(0, min(bottom_left[0], painted.shape[1] - width))
    bottom = max(height, min(bottom_left[1], painted.shape[0]))
    cv2.rectangle(painted, (left, bottom - height), (left + width, bottom), color, cv2.FILLED)
    at = (left + 2, bottom - height // 4)
    cv2.putText(painted, text, at, cv2.FONT_HERSHEY_SIMPLEX, _text_scale(painted), _ink(color), 1, cv2.LINE_AA)


def plate_size_wh(painted: Image, text: str) -> tuple[int, int]:
    """Width and height of a plate with this text, pixels."""
    cv2 = opencv()
    width = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, _text_scale(painted), 1)[0][0] + 4
    return width, _text_height(painted)


def line_width(painted: Image) -> int:
    """How thick lines are in an image of this size, pixels."""
    return 1 + int(min(painted.shape[:2])) // _SHORT_SIDE_PER_LINE


def _text_scale(painted: Image) -> float:
    return line_width(painted) * 0.25 + 0.25


def _text_height(painted: Image) -> int:
    return 8 + 8 * line_width(painted)


def _ink(plate: Color) -> Color:
    """Black or white, whichever stands out: by the luma weights of ITU-R BT.601."""
    blue, green, red = plate
    return (0, 0, 0) if 0.114 * blue + 0.587 * green + 0.299 * red > 128 else (255, 255, 255)
