"""``PrivacyMask``: the parts of a camera's image that nobody ever sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgecv.errors import ConfigError, EdgeCVError
from edgecv.pipelines.privacy.raster import touched
from edgecv.pipelines.steps.regions import Point, Points, Shape
from edgecv.results import Frame, Image

_EXAMPLE = "mask = [[[0.0, 0.0], [0.3, 0.0], [0.3, 0.4], [0.0, 0.4]]]"
_REPORTED_WH = (1000, 1000)  # the image on which the covered share is counted


@dataclass(frozen=True, slots=True)
class _Cover:
    """What is covered in images of one size: a part of the image, and 0 or 255 for each of its values."""

    shape: tuple[int, ...]
    rows: slice
    columns: slice
    keep: Image


class PrivacyMask:
    """Paints polygons black, in images of any size; of one camera, in one thread.

    A pixel that a polygon touches is black in all. Nothing of what was there is left in the frame: what the class of a
    plug-in's frames holds beside the image does not come along (``Frame.with_image``).
    """

    def __init__(self, polygons: Sequence[Points]) -> None:
        """``polygons``: what ``mask_polygons`` gave, one at least."""
        self._polygons = tuple(polygons)
        self._cover: _Cover | None = None

    @property
    def share(self) -> float:
        """The covered share of the image, 0 to 1, in steps of a thousandth of its width and height."""
        return float(touched(self._polygons, _REPORTED_WH).mean())

    def applied(self, frame: Frame, *, in_place: bool) -> Frame:
        """The frame with the mask on it; ``in_place`` where its image belongs to nobody else.

        Raises anything that keeps the mask from being painted; the frame must not be used then.
        """
        image = frame.image
        if not (in_place and image.flags.writeable):
            image = np.array(image)
        cover = self._cover
        if cover is None or cover.shape != image.shape:
            cover = self._cover = _cover(self._polygons, image.shape)
        part = image[cover.rows, cover.columns]
        np.bitwise_and(part, cover.keep, out=part)
        return frame.with_image(image)


def mask_polygons(mask: Sequence[Sequence[Point]], what: str = "The mask") -> tuple[Points, ...]:
    """The polygons of a mask, checked; ``what`` it is called in messages.

    Raises:
        ConfigError: a polygon has fewer than three corners or no area, crosses itself, or leaves the image. Each of them is a
            slip that would cover less than was meant.
    """
    return tuple(_polygon(corners, f"{what}, polygon {number},") for number, corners in enumerate(mask, 1))


def _polygon(corners: Sequence[Point], what: str) -> Points:
    try:
        points = np.array(corners, np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what} is no list of points.", _EXAMPLE) from error
    if points.ndim != 2 or points.shape[1] != 2:
        raise ConfigError(f"{what} is no list of points.", _EXAMPLE)
    if not (np.isfinite(points) & (points >= 0) & (points <= 1)).all():
        raise ConfigError(f"{what} has a point that is not between 0 and 1.", "Points are shares of width and height.")
    return Shape.polygon([(float(x), float(y)) for x, y in points], "relative", what).points


def _cover(polygons: Sequence[Points], shape: tuple[int, ...]) -> _Cover:
    covered = touched(polygons, (shape[1], shape[0]))
    rows, columns = (np.flatnonzero(covered.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise EdgeCVError(f"The mask covers nothing in an image of {shape[1]} x {shape[0]}.")
    down, across = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    keep = np.where(covered[down, across, None], np.uint8(0), np.uint8(255)).repeat(shape[2], axis=2)
    return _Cover(shape, down, across, keep)
