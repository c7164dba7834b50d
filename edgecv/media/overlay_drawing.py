"""Paints the lines and areas of steps onto images, with their names and totals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecv._internal.extras import opencv
from edgecv.detections import Image, IntArray
from edgecv.media.drawing import Color, draw_plate, line_width, plate_size_wh
from edgecv.overlays import Overlay

_CALM: Color = (0, 215, 255)  # BGR
_ACTIVE: Color = (0, 0, 255)
_TINT = 0.12  # share of the colour inside an area
_ARROW_SHARE = 0.15  # length of the arrow, of the line's length ...
_ARROW_PX = (12.0, 60.0)  # ... within these bounds
_FARTHEST_PX = 1e8  # OpenCV takes 32 bits

_Place = tuple[int, int, int, int]  # left, top, right, bottom


def draw_overlays(painted: Image, overlays: Sequence[Overlay]) -> None:
    """Paint lines, with an arrow to the side that the first of their counts leads to, and areas, with a light tint, into an
    image.

    A plate at each has its name and totals: ``door: in 3, out 2``. One whose rule holds now is red.

    Args:
        painted: ``(H, W, 3)`` uint8 BGR, which is changed.
        overlays: Those of a result for an image of this size.

    Raises:
        MissingDependency: OpenCV is not installed.
    """
    for overlay in overlays:
        if overlay.shape == "zone":
            _draw_zone(painted, overlay)
    for overlay in overlays:
        if overlay.shape == "line":
            _draw_line(painted, overlay)
    taken: list[_Place] = []
    for overlay in overlays:
        taken.append(_draw_name(painted, overlay, taken))


def overlay_text(overlay: Overlay) -> str:
    """The name and the totals, such as ``door: in 3, out 2``."""
    totals = ", ".join(f"{name} {count}" for name, count in overlay.counts.items())
    return f"{overlay.name}: {totals}" if totals else overlay.name


def _draw_zone(painted: Image, overlay: Overlay) -> None:
    cv2, color, corners = opencv(), _color(overlay), _pixels(overlay)
    height, width = painted.shape[:2]
    left, top = np.clip(corners.min(axis=0), 0, (width, height)).tolist()
    right, bottom = np.clip(corners.max(axis=0) + 1, 0, (width, height)).tolist()
    if right > left and bottom > top:
        part = painted[top:bottom, left:right]
        tinted = part.copy()
        cv2.fillPoly(tinted, [(corners - (left, top)).astype(np.int32)], color)
        painted[top:bottom, left:right] = cv2.addWeighted(tinted, _TINT, part, 1 - _TINT, 0)
    cv2.polylines(painted, [corners.astype(np.int32)], True, color, line_width(painted) + 1)


def _draw_line(painted: Image, overlay: Overlay) -> None:
    cv2, color, width = opencv(), _color(overlay), line_width(painted)
    start, end = _pixels(overlay).tolist()
    cv2.line(painted, start, end, color, width + 1, cv2.LINE_AA)
    cv2.circle(painted, start, 2 * width + 1, color, cv2.FILLED, cv2.LINE_AA)  # from here one looks along the line
    foot, tip = _arrow(overlay, painted.shape[1], painted.shape[0])
    cv2.arrowedLine(painted, foot, tip, color, width + 1, cv2.LINE_AA, tipLength=0.4)


def _arrow(overlay: Overlay, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """From the middle of what is seen of the line to its right, as one looks from its first point to its second."""
    (x1, y1), (x2, y2) = _seen_part(overlay, width, height)
    length = float(np.hypot(x2 - x1, y2 - y1)) or 1.0
    reach = float(np.clip(length * _ARROW_SHARE, *_ARROW_PX)) / length
    foot = (x1 + x2) / 2, (y1 + y2) / 2
    tip = foot[0] - (y2 - y1) * reach, foot[1] + (x2 - x1) * reach
    return (round(foot[0]), round(foot[1])), (round(tip[0]), round(tip[1]))


def _seen_part(overlay: Overlay, width: int, height: int) -> list[tuple[int, int]]:
    """The ends of a line, cut off at the border of the image where it meets that."""
    start, end = _pixels(overlay).tolist()
    meets, cut_start, cut_end = opencv().clipLine((0, 0, width, height), start, end)
    return [cut_start, cut_end] if meets else [start, end]


def _draw_name(painted: Image, overlay: Overlay, taken: Sequence[_Place]) -> _Place:
    """A plate where the line begins or at the top of the area, below the plates that are there already."""
    text, height = overlay_text(overlay), painted.shape[0]
    width_px, height_px = plate_size_wh(painted, text)
    left, bottom = _beside(painted, overlay)
    left = max(0, min(left, painted.shape[1] - width_px))
    bottom = max(height_px, min(bottom, height))
    place = left, bottom - height_px, left + width_px, bottom
    while bottom + height_px <= height and any(_overlap(place, other) for other in taken):
        bottom += height_px
        place = left, bottom - height_px, left + width_px, bottom
    draw_plate(painted, text, (left, bottom), _color(overlay))
    return place


def _beside(painted: Image, overlay: Overlay) -> tuple[int, int]:
    if overlay.shape == "line":
        x, y = _seen_part(overlay, painted.shape[1], painted.shape[0])[0]
        return x + 3 * line_width(painted), y - 3 * line_width(painted)
    x, y = min(_pixels(overlay).tolist(), key=lambda point: (point[1], point[0]))
    return x, y


def _overlap(one: _Place, other: _Place) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _pixels(overlay: Overlay) -> IntArray:
    points = np.array(overlay.points, np.float64).reshape(-1, 2)
    return np.rint(np.clip(points, -_FARTHEST_PX, _FARTHEST_PX)).astype(np.int64)


def _color(overlay: Overlay) -> Color:
    return _ACTIVE if overlay.active else _CALM
