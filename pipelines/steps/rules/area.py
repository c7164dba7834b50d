"""Where a rule looks in the images of one source, and how that is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgecv.events import Event
from edgecv.overlays import Overlay
from edgecv.pipelines.steps.regions import Border, Placement, Points
from edgecv.pipelines.steps.rules.options import AreaRule
from edgecv.pipelines.steps.rules.seen import Seen
from edgecv.pipelines.steps.rules.shared import shared
from edgecv.results import Frame


class Area:
    """The zone that a rule names, points of its own, or the whole image."""

    def __init__(self, options: AreaRule) -> None:
        """Raises ``ConfigError``: the points are no area."""
        shape = options.shape()
        self._zone = options.zone
        self._placement = None if shape is None else Placement(shape, f"rule '{options.name}'")
        self._points: Points | None = None  # those of the border and of the overlay
        self._border, self._key = Border(np.zeros((0, 2))), b""
        self._overlay = Overlay(name=options.name, shape="zone", points=())

    def adopt(self, before: Area) -> None:
        """Lie where another one did, if that has the same points."""
        if self._placement is not None and before._placement is not None:
            self._placement.adopt(before._placement)

    def follow(self, frame: Frame) -> tuple[Event, ...]:
        """Fit the area to a frame; what is to be said of that, unless the zone says it itself."""
        if self._placement is None:
            return ()
        _, said = self._placement.follow(frame)
        points = self._placement.points
        if points is not self._points:  # a placement makes new ones where they moved
            self._points, self._border, self._key = points, Border(points), points.tobytes()
            self._overlay = replace(self._overlay, points=tuple((float(x), float(y)) for x, y in points.tolist()))
        return () if self._zone else said

    def places(self, seen: Seen) -> list[int]:
        """The rows of the objects in it that the rule looks at."""
        counts = seen.counts
        if self._placement is not None:
            key, border = (self._key, id(seen.points)), self._border  # the points are kept as long as the answer
            counts = counts & shared(seen.xyxy, key, lambda: border.holds(seen.points))
        found: list[int] = counts.nonzero()[0].tolist()
        return found

    def drawn(self, overlays: tuple[Overlay, ...], counts: Mapping[str, int], is_active: bool) -> tuple[Overlay, ...]:
        """The overlays of a frame with that of the rule; where it names a zone that is drawn already, that one is marked."""
        if self._placement is None:
            return overlays
        if self._zone and any(one.name == self._zone for one in overlays):
            if not is_active:
                return overlays
            return tuple(replace(one, active=True) if one.name == self._zone else one for one in overlays)
        overlay = self._overlay
        if overlay.active != is_active or overlay.counts != counts:
            overlay = self._overlay = replace(overlay, counts=dict(counts), active=is_active)
        return (*overlays, overlay)
