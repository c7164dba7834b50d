"""Paints axes onto an image: pixels at the top and left, shares of its size at the bottom and right."""

from __future__ import annotations

from edgecv._internal.extras import opencv
from edgecv.detections import Image
from edgecv.media.drawing import Color, draw_plate, line_width, plate_size_wh

_PIXELS: Color = (255, 255, 255)  # BGR
_SHARES: Color = (255, 200, 80)
_SEEN = 0.35  # of the lines, so that the scene stays visible
_TICK_SHARE = 0.012  # of the image's short side
_LEAST_TICK_PX = 3
_ROOM = 1.6  # of a label's length, from one label to the next
_TENTHS = 10


def draw_grid(painted: Image) -> None:
    """Paint thin lines at round numbers of pixels, with the numbers at the top and left, and at the bottom and right the
    same places as shares of width and height, 0 to 1. The image keeps its size: what an image viewer says is the pixel.

    Args:
        painted: ``(H, W, 3)`` uint8 BGR, which is changed.

    Raises:
        MissingDependency: OpenCV is not installed.
    """
    height, width = painted.shape[:2]
    label_wh = plate_size_wh(painted, str(max(height, width)))
    columns = range(0, width, round_step(width, label_wh[0] * _ROOM))
    rows = range(0, height, round_step(height, label_wh[1] * _ROOM))
    _draw_lines(painted, columns, rows)
    _draw_shares(painted, label_wh)
    for x in columns:
        draw_plate(painted, str(x), (x + 1, label_wh[1]), _PIXELS)
    for y in rows[1:]:
        draw_plate(painted, str(y), (0, y), _PIXELS)


def round_step(length: int, least: float) -> int:
    """1, 2 or 5 times a power of ten: about ten steps in ``length``, none shorter than ``least`` pixels."""
    wanted, power = max(length / _TENTHS, least, 1.0), 1
    while True:
        for factor in (1, 2, 5):
            if factor * power >= wanted:
                return factor * power
        power *= 10


def _draw_lines(painted: Image, columns: range, rows: range) -> None:
    cv2, lines = opencv(), painted.copy()
    for x in columns:
        cv2.line(lines, (x, 0), (x, painted.shape[0]), _PIXELS, 1)
    for y in rows:
        cv2.line(lines, (0, y), (painted.shape[1], y), _PIXELS, 1)
    cv2.addWeighted(lines, _SEEN, painted, 1 - _SEEN, 0, dst=painted)


def _draw_shares(painted: Image, label_wh: tuple[int, int]) -> None:
    """A tick at each tenth of width and height, and its number where there is room."""
    cv2 = opencv()
    height, width = painted.shape[:2]
    tick = max(_LEAST_TICK_PX, round(min(height, width) * _TICK_SHARE))
    every_x, every_y = (_sparse(length, room) for length, room in ((width, label_wh[0]), (height, label_wh[1])))
    for tenth in range(1, _TENTHS):
        x, y = round(width * tenth / _TENTHS), round(height * tenth / _TENTHS)
        cv2.line(painted, (x, height - tick), (x, height), _SHARES, line_width(painted))
        cv2.line(painted, (width - tick, y), (width, y), _SHARES, line_width(painted))
        if tenth % every_x == 0:
            draw_plate(painted, f"0.{tenth}", (x + 1, height - tick), _SHARES)
        if tenth % every_y == 0:
            label = plate_size_wh(painted, f"0.{tenth}")[0]
            draw_plate(painted, f"0.{tenth}", (width - tick - label, y), _SHARES)


def _sparse(length: int, label_px: int) -> int:
    """Every how many tenths there is room for a number."""
    return next((every for every in (1, 2, 5) if length * every / _TENTHS >= label_px * _ROOM), _TENTHS)
