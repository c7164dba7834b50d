"""Where a box stands and what lies inside a polygon, in pixels or in shares of the frame."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.results import BoolArray, FloatArray, Frame

Points = npt.NDArray[np.float64]
Point = tuple[float, float]
Polygon = Annotated[tuple[Point, ...], msgspec.Meta(max_length=256)]
Units = Literal["px", "relative"]
Anchor = Literal["bottom_center", "center", "top_center", "top_left", "top_right", "bottom_left", "bottom_right"]

log = logging.getLogger("edgecv.pipelines")

PLACE_KINDS: tuple[str, ...] = ("step.misplaced", "step.rescaled")
"""Kinds of events that a ``Placement`` gives."""

_FARTHEST_PX = 1_000_000  # no camera has such an image, and larger numbers would overflow when they are multiplied
_MOST_SAID = 10  # of one shape at one source
_SHARES: Mapping[str, Point] = MappingProxyType(
    {
        "bottom_center": (0.5, 1.0),
        "center": (0.5, 0.5),
        "top_center": (0.5, 0.0),
        "top_left": (0.0, 0.0),
        "top_right": (1.0, 0.0),
        "bottom_left": (0.0, 1.0),
        "bottom_right": (1.0, 1.0),
    }
)

# What each edge of a box adds to the point: ``(4, 2)``.
_WEIGHTS = {name: np.array([[1 - x, 0], [0, 1 - y], [x, 0], [0, y]], np.float64) for name, (x, y) in _SHARES.items()}


def anchor_points(xyxy: FloatArray, anchor: Anchor, frame: Frame) -> Points:
    """The point ``(N, 2)`` that stands for each box ``(N, 4)``; for people and cars the bottom centre touches the ground.

    Points on the right and lower edge of the frame move in by a pixel and a half: a box cut off by the frame stands in an
    area that ends there, whether its corner was written as 768 or as 767.
    """
    points = xyxy.astype(np.float64) @ _WEIGHTS[anchor]
    height, width = frame.image.shape[:2]
    return np.minimum(points, (width - 1.5, height - 1.5))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shape:
    """Points ``(K, 2)`` of a line or polygon as they were configured, in ``px`` of the frame or ``relative`` to its size, 0
    to 1.
    """

    points: Points
    units: Units = "px"

    @classmethod
    def line(cls, points: Sequence[Point], units: Units, what: str) -> Shape:
        """A segment. Raises ``ConfigError``: it has no two different points, or they do not fit ``units``."""
        shape = cls(points=_numbers(points, units, what), units=units)
        if len(shape.points) != 2 or (shape.points[0] == shape.points[1]).all():
            raise ConfigError(f"{what} needs two different points.", "points = [[0, 300], [768, 300]]")
        return shape

    @classmethod
    def polygon(cls, points: Sequence[Point], units: Units, what: str) -> Shape:
        """An area.

        Raises ``ConfigError`` for fewer than three points, no area, a border that crosses itself, or points that do not fit
        ``units``.
        """
        shape = cls(points=_numbers(points, units, what), units=units)
        if len(shape.points) < 3:
            raise ConfigError(f"{what} needs at least three points.", "points = [[0, 0], [100, 0], [100, 100]]")
        if _crosses_itself(shape.points):
            raise ConfigError(f"The border of {what} touches or crosses itself.", "List the corners in order round it.")
        return shape


class Placement:
    """A shape in the images of one source, whose size may change; ``points`` are ``(K, 2)`` in pixels of the newest frame.

    Points in pixels are those of the first image: when the camera changes its size they move along, so that the shape stays
    where it is in the scene. That, and a shape that lies outside the image, is said in the log and as events, where the
    shape is called ``what``, such as ``line 'door'``.
    """

    def __init__(self, shape: Shape, what: str) -> None:
        self._shape, self._what = shape, what
        self._size_wh: tuple[int, int] | None = None
        self._said = 0
        self._unlooked = False
        self.points = shape.points

    def adopt(self, before: Placement) -> bool:
        """Take the place of another one at the same source; gives whether the shape lies elsewhere now.

        The same points stay where they were. Others, in pixels, are those of the newest image.
        """
        self._size_wh, self._said = before._size_wh, before._said
        old, new = before._shape, self._shape
        if old.units == new.units and np.array_equal(old.points, new.points):
            self.points, self._unlooked = before.points, before._unlooked
            return False
        if self._size_wh is not None and new.units == "relative":
            self.points = new.points * self._size_wh
        self._said, self._unlooked = 0, self._size_wh is not None
        return self._size_wh is not None

    def follow(self, frame: Frame) -> tuple[tuple[float, float] | None, tuple[Event, ...]]:
        """Fit the shape to a frame.

        Gives by how much the image has grown since the frame before, in width and height (``None``: not at all), and what
        is to be said.
        """
        size_wh, before = (frame.image.shape[1], frame.image.shape[0]), self._size_wh
        if size_wh == before and not self._unlooked:
            return None, ()
        self._size_wh, self._unlooked = size_wh, False
        factors = None if before in (None, size_wh) else (size_wh[0] / before[0], size_wh[1] / before[1])
        if self._shape.units == "relative":
            self.points = self._shape.points * size_wh
        elif factors is not None:
            self.points = self.points * factors
        return factors, tuple(self._events(frame, size_wh, before))

    def _events(self, frame: Frame, size_wh: tuple[int, int], before: tuple[int, int] | None) -> Iterator[Event]:
        image = f"{size_wh[0]} x {size_wh[1]}"
        if before not in (None, size_wh) and self._shape.units == "px":
            yield from self._say(
                "step.rescaled",
                f"The image changed from {before[0]} x {before[1]} to {image}: the points of {self._what} were moved in "
                'proportion. Write them with units = "relative" if the camera changes its size.',
                frame,
            )
        if not _reaches(self.points, size_wh):
            yield from self._say(
                "step.misplaced",
                f"{self._what} lies outside the image of {image}: nothing is ever found there. Are its points those "
                "of another size?",
                frame,
            )

    def _say(self, kind: str, message: str, frame: Frame) -> Iterator[Event]:
        if self._said >= _MOST_SAID:  # a folder of images of all sizes
            return
        self._said += 1
        log.warning("Source %s: %s", frame.source_id, message)
        data = {"step": self._what, "message": message, "size_wh": list(self._size_wh or ())}
        yield Event(kind=kind, time_ns=frame.captured_ns, source_id=frame.source_id, data=data)


def _reaches(points: Points, size_wh: tuple[int, int]) -> bool:
    """Whether an area, or a line with both of its sides, can be met by an anchor in an image: see ``anchor_points``."""
    most = np.array(size_wh) - 1.5
    kept = [tuple(point) for point in points]
    for axis, sign, edge in ((0, 1, 0.0), (1, 1, 0.0), (0, -1, -most[0]), (1, -1, -most[1])):
        kept = _clipped(kept, axis, sign, edge)
    if len(points) > 2:
        return abs(_area(kept)) > 0
    corners = [(0.0, 0.0), (most[0], 0.0), (0.0, most[1]), tuple(most)]
    sides = [turn(points[0], points[1], corner) for corner in corners]
    return len(set(kept)) > 1 and min(sides) < 0 < max(sides)


def _clipped(points: list[Any], axis: int, sign: int, edge: float) -> list[Any]:
    """What of a polygon lies where ``sign * coordinate >= edge`` (Sutherland and Hodgman, 1974)."""
    kept = []
    for at, b in enumerate(points):
        a = points[at - 1]
        from_a, from_b = sign * a[axis] - edge, sign * b[axis] - edge
        if (from_a < 0) != (from_b < 0):
            share = from_a / (from_a - from_b)
            kept.append((a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])))
        if from_b >= 0:
            kept.append(b)
    return kept


def _area(points: list[Any]) -> float:
    """Twice the area, with the sign of its order."""
    return sum(points[at - 1][0] * b[1] - b[0] * points[at - 1][1] for at, b in enumerate(points))


def inside(points: Points, polygon: Points) -> BoolArray:
    """Which of ``(N, 2)`` points lie in a polygon ``(K, 2)``: ``(N,)``.

    A ray to the right crosses the border an odd number of times (even-odd rule); of two areas that share a border each
    point on it belongs to one.
    """
    return Border(polygon).holds(points)


class Border:
    """The edges of a polygon ``(K, 2)``, prepared for many questions."""

    def __init__(self, polygon: Points) -> None:
        (x1, y1), (x2, y2) = polygon.T, np.roll(polygon, -1, axis=0).T
        self._x1, self._y1, self._y2, self._run = x1, y1, y2, x2 - x1
        self._rise = np.where(y2 == y1, 1.0, y2 - y1)  # level edges span nothing

    def holds(self, points: Points) -> BoolArray:
        """Which points lie in the polygon, as ``inside`` says."""
        x, y = points[:, :1], points[:, 1:]
        spans = (self._y1 > y) != (self._y2 > y)
        at = self._x1 + (y - self._y1) * self._run / self._rise
        return np.logical_xor.reduce(spans & (x < at), axis=1)


def _numbers(points: Sequence[Point], units: Units, what: str) -> Points:
    array = np.array(points, np.float64).reshape(-1, 2)
    if not np.isfinite(array).all():
        raise ConfigError(f"{what} has a point that is no number.")
    if (np.abs(array) > _FARTHEST_PX).any():
        raise ConfigError(
            f"{what} has a point farther away than {_FARTHEST_PX:,} pixels.", "Is a digit too many there?"
        )
    shares = bool(len(array)) and bool(((array >= 0) & (array <= 1)).all())
    if units == "relative" and not shares:
        raise ConfigError(f"{what} has points outside 0 to 1.", 'Write units = "px" for pixels.')
    if units == "px" and shares:
        raise ConfigError(f"{what} is smaller than a pixel.", 'Write units = "relative" for shares of the frame.')
    return array


def _crosses_itself(polygon: Points) -> bool:
    """Whether two edges meet elsewhere than at a shared corner, or an edge has no length."""
    ends = np.roll(polygon, -1, axis=0)
    count = len(polygon)
    if (polygon == ends).all(axis=1).any():
        return True
    for first in range(count):
        for second in range(first + 1, count):
            pair = (polygon[first], ends[first], polygon[second], ends[second])
            if second == first + 1 or (first == 0 and second == count - 1):
                if _folds_back(*(pair if second == first + 1 else (pair[2], pair[3], pair[0], pair[1]))):
                    return True
            elif _meet(*pair):
                return True
    return False


def turn(a: Any, b: Any, c: Any) -> float:
    """Twice the area of the triangle; positive where ``c`` lies to the right of the way from ``a`` to ``b`` on the screen."""
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def _folds_back(a: Points, b: Points, _: Points, d: Points) -> bool:
    """Whether the edge from ``b`` to ``d`` lies on the edge from ``a`` to ``b``."""
    return turn(a, b, d) == 0 and float((b - a) @ (d - b)) < 0


def _meet(a: Points, b: Points, c: Points, d: Points) -> bool:
    sides = turn(a, b, c) * turn(a, b, d), turn(c, d, a) * turn(c, d, b)
    if max(sides) > 0:
        return False
    boxes_apart = (np.maximum(a, b) < np.minimum(c, d)).any() or (np.maximum(c, d) < np.minimum(a, b)).any()
    return not boxes_apart
