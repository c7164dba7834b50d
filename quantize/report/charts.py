"""Images of the report as inline SVG: what each attempt cost and gave, and boxes over photographs."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgecv.errors import SourceError
from edgecv.media.image_headers import image_size
from edgecv.quantize.record import BoxRow, WorstImage
from edgecv.quantize.report.markup import Markup, element
from edgecv.results import FloatArray
from edgecv.vision.nms import iou_matrix

_WIDTH, _HEIGHT = 640.0, 340.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 16.0, 14.0, 46.0
_UNTIMED_WIDTH = 84.0
_MARK = 6.0
_NUMBER_WIDTH, _NUMBER_HEIGHT = 10.5, 13.0  # of a bold character at 12 px
_MATCH_IOU = 0.5
_SHOWABLE = 1e6
_FEW_BOXES = 6  # in a crowd only boxes that are wide enough are labelled
_LETTER_WIDTH = 0.5  # of a letter, in its height

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One variant in the Pareto image."""

    number: str  # its number in the tables, or a short name
    title: str  # what a pointer over it tells
    kind: str  # `chosen`, `passed`, `refused` or `float`: its shape and colour
    latency_ms: float | None  # `None` where it was not timed: it then stands in a band of its own
    value: float  # height in the image


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axes:
    """From figures to pixels: ``x`` starts at zero, ``y`` shows the range that occurs."""

    most_ms: float
    low: float
    high: float
    right: float

    def x(self, latency_ms: float) -> float:
        return _LEFT + latency_ms / self.most_ms * (self.right - _LEFT)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP)


def pareto(points: Sequence[Point], axis: str) -> Markup:
    """Latency against accuracy (``axis``, in words), every point numbered; points without a finite value are left out."""
    shown = [point for point in points if abs(point.value) < _SHOWABLE]  # neither NaN nor infinite
    if not shown:
        return Markup()
    axes = _axes(shown)
    placed = [(point, _place(point, axes)) for point in shown]
    labels = _labels(placed)
    return element(
        "svg",
        element("title", f"Milliseconds per image against {axis}"),
        *_grid(axes, axis),
        *([] if axes.right == _WIDTH - _RIGHT else [_untimed_band(axes)]),
        *(_mark(point, at) for point, at in placed),
        *labels,
        viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}",
        role="img",
        class_="chart",
    )


def bar(share: float) -> Markup:
    """A bar that fills ``share`` (0 to 1) of its cell."""
    filled = max(0.0, min(100.0, 100 * share))
    rect = element("rect", x=0, y=0, width=filled, height=8, rx=1)
    return element("svg", rect, viewBox="0 0 100 8", preserveAspectRatio="none", class_="bar", aria_hidden="true")


def side_by_side(image: WorstImage, number: int) -> Markup:
    """Float boxes and INT8 boxes over one photograph, which the page holds once; empty when it is no JPEG."""
    size_wh = jpeg_size_wh(image.jpeg)
    if size_wh is None:
        return Markup()
    name = f"image-{number}"
    data = "data:image/jpeg;base64," + base64.b64encode(image.jpeg).decode()
    photo = element("image", id=name, href=data, width=size_wh[0], height=size_wh[1])
    again = element("use", href=f"#{name}")
    sides = (
        ("Float", photo, image.float_boxes, image.int8_boxes),
        ("INT8", again, image.int8_boxes, image.float_boxes),
    )
    return element(
        "div",
        *(
            element(
                "div",
                element("p", f"{title}: {len(own)} found", class_="side"),
                _over(below, own, other, image, size_wh, title),
            )
            for title, below, own, other in sides
        ),
        class_="pair",
    )


def unmatched(own: Sequence[BoxRow], other: Sequence[BoxRow]) -> set[int]:
    """Indices of boxes that have no counterpart: the same label at IoU 0.5, the best box choosing first."""
    free = set(range(len(other)))
    overlap = iou_matrix(_corners(own), _corners(other))
    alone = set()
    for at, box in enumerate(own):
        fitting = [n for n in free if other[n].label == box.label and overlap[at, n] >= _MATCH_IOU]
        if fitting:
            free.discard(max(fitting, key=overlap[at].__getitem__))
        else:
            alone.add(at)
    return alone


def _corners(rows: Sequence[BoxRow]) -> FloatArray:
    return np.array([row.xyxy for row in rows], np.float32).reshape(-1, 4)


def jpeg_size_wh(data: bytes) -> tuple[int, int] | None:
    """Width and height from the header; ``None`` when it is no JPEG."""
    try:
        return image_size(data) if data.startswith(b"\xff\xd8") else None
    except SourceError:
        return None


def _axes(points: Sequence[Point]) -> _Axes:
    timed = [point.latency_ms for point in points if point.latency_ms is not None]
    values = [point.value for point in points]
    spread = max(max(values) - min(values), 0.01)
    right = _WIDTH - _RIGHT - (_UNTIMED_WIDTH if len(timed) < len(points) else 0.0)
    return _Axes(
        most_ms=max([*timed, 1e-3]) * 1.08,
        low=min(values) - 0.1 * spread,
        high=max(values) + 0.1 * spread,
        right=right,
    )


def _place(point: Point, axes: _Axes) -> tuple[float, float]:
    untimed = (axes.right + _WIDTH - _RIGHT) / 2 + 8
    return (untimed if point.latency_ms is None else axes.x(point.latency_ms)), axes.y(point.value)


def _grid(axes: _Axes, axis: str) -> list[Markup]:
    bottom, middle = _HEIGHT - _BOTTOM, (_TOP + _HEIGHT - _BOTTOM) / 2
    drawn = []
    for value in ticks(axes.low, axes.high):
        y = axes.y(value)
        drawn.append(element("line", x1=_LEFT, x2=axes.right, y1=y, y2=y, class_="grid"))
        drawn.append(element("text", f"{value:g}", x=_LEFT - 6, y=y + 4, text_anchor="end"))
    for value in ticks(0, axes.most_ms):
        x = axes.x(value)
        drawn.append(element("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="axis"))
        drawn.append(element("text", f"{value:g}", x=x, y=bottom + 18, text_anchor="middle"))
    drawn.append(element("line", x1=_LEFT, x2=axes.right, y1=bottom, y2=bottom, class_="axis"))
    drawn.append(
        element("text", "milliseconds per image, one thread (left is faster)", x=_LEFT, y=_HEIGHT - 8, class_="name")
    )
    turned = f"rotate(-90 14 {middle:g})"
    drawn.append(element("text", axis, x=14, y=middle, text_anchor="middle", transform=turned, class_="name"))
    return drawn


def _untimed_band(axes: _Axes) -> Markup:
    left, middle = axes.right + 16, (axes.right + 16 + _WIDTH - _RIGHT) / 2
    return element(
        "g",
        element("rect", x=left, y=_TOP, width=_WIDTH - _RIGHT - left, height=_HEIGHT - _BOTTOM - _TOP, class_="band"),
        element("text", "not timed", x=middle, y=_HEIGHT - _BOTTOM + 18, text_anchor="middle"),
    )


def ticks(low: float, high: float) -> list[float]:
    """Round values between two ends, four to nine of them: steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(at * step, 12) for at in range(first, math.floor(high / step + 1e-9) + 1)]


def _mark(point: Point, at: tuple[float, float]) -> Markup:
    """A square for float, a disc for chosen, a ring for passed, a cross for refused: told apart without colour."""
    x, y = at
    if point.kind == "float":
        shape = element("rect", x=x - _MARK, y=y - _MARK, width=2 * _MARK, height=2 * _MARK)
    elif point.kind == "refused":
        shape = element("path", d=f"M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10")
    else:
        shape = element("circle", cx=x, cy=y, r=_MARK)
    return element("g", element("title", point.title), shape, class_=f"mark {point.kind}")


def _labels(placed: Sequence[tuple[Point, tuple[float, float]]]) -> list[Markup]:
    """Each number beside its mark, at the first place that no mark and no other number takes."""
    taken: list[Box] = [(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for _, (x, y) in placed]
    drawn = []
    for point, (x, y) in placed:
        width = _NUMBER_WIDTH * len(point.number)
        box = next((spot for spot in _spots(x, y, width) if not any(_touch(spot, other) for other in taken)), None)
        left, _, _, bottom = box or (x + 2 * _MARK, y, 0, y + 4)
        taken += [box] if box else []
        drawn.append(element("text", point.number, x=left, y=bottom - 2, class_="number"))
    return drawn


def _spots(x: float, y: float, width: float) -> list[Box]:
    """Where a number may stand around a mark, near ones first."""
    found = []
    for away in (9.0, 16.0, 26.0, 38.0):
        for turn in range(8):
            dx, dy = math.cos(turn * math.pi / 4), -math.sin(turn * math.pi / 4)
            left = x + dx * away + (0.0 if dx > 0.1 else -width if dx < -0.1 else -width / 2)
            top = y + dy * away - _NUMBER_HEIGHT / 2
            box = (left, top, left + width, top + _NUMBER_HEIGHT)
            if box[0] >= _LEFT and box[2] <= _WIDTH and box[1] >= 0 and box[3] <= _HEIGHT - _BOTTOM:
                found.append(box)
    return found


def _touch(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _over(
    below: Markup,
    own: Sequence[BoxRow],
    other: Sequence[BoxRow],
    image: WorstImage,
    size_wh: tuple[int, int],
    title: str,
) -> Markup:
    alone = unmatched(own, other)
    font = max(9.0, size_wh[0] / 34)
    drawn = []
    for at in reversed(range(len(own))):  # the best are drawn last, so that they stay on top
        text = f"{own[at].label} {own[at].confidence:.2f}"
        wide = (own[at].xyxy[2] - own[at].xyxy[0]) * image.scale >= len(text) * font * _LETTER_WIDTH
        drawn.append(_box(own[at], text, at in alone, image.scale, font if wide or len(own) <= _FEW_BOXES else None))
    view, said = f"0 0 {size_wh[0]} {size_wh[1]}", f"{title} boxes on {image.name}"
    return element("svg", below, *drawn, viewBox=view, role="img", aria_label=said, class_="photo")


def _box(row: BoxRow, text: str, alone: bool, scale: float, font: float | None) -> Markup:
    """A box that tells its label under the pointer, and in letters of ``font`` pixels where they are wanted."""
    left, top, right, bottom = (value * scale for value in row.xyxy)
    letters = []
    if font is not None:
        letters = [element("text", text, x=left + 2, y=max(font, top + font), style=f"font-size:{font:.3g}px")]
    return element(
        "g",
        element("title", text),
        element("rect", x=left, y=top, width=max(0.0, right - left), height=max(0.0, bottom - top)),
        *letters,
        class_="box alone" if alone else "box",
    )
