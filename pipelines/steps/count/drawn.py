"""The overlay of a counter: what of it is painted into a frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from edgecv.overlays import Overlay
from edgecv.pipelines.steps.regions import Points
from edgecv.results import Result


class Drawn:
    """Adds the overlay of one counter at one source to results; it is made anew only when its points or totals changed."""

    def __init__(self, name: str, shape: Literal["line", "zone"]) -> None:
        self._name = name
        self._points: Points | None = None
        self._overlay = Overlay(name=name, shape=shape, points=())

    def onto(self, result: Result, points: Points, counts: Mapping[str, int]) -> Result:
        """The result with the overlay: ``points`` in pixels of its frame, ``counts`` as ``NAME.COUNT``.

        What is counted by class is left out: a picture has no room for it.
        """
        if points is not self._points:  # a placement makes new ones where they moved
            self._points = points
            corners = tuple((float(x), float(y)) for x, y in points.tolist())
            self._overlay = replace(self._overlay, points=corners)
        if (short := self._short(counts)) != self._overlay.counts:
            self._overlay = replace(self._overlay, counts=short)
        return replace(result, overlays=(*result.overlays, self._overlay))

    def _short(self, counts: Mapping[str, int]) -> dict[str, int]:
        begin = len(self._name) + 1
        return {name[begin:]: count for name, count in counts.items() if "." not in name[begin:]}
