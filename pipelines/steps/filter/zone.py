"""Keep the detections that stand in, or out of, areas."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from edgecv.pipelines.steps.options import Options, checked
from edgecv.pipelines.steps.per_source import PerSource
from edgecv.pipelines.steps.regions import PLACE_KINDS, Anchor, Placement, Polygon, Shape, Units, anchor_points, inside
from edgecv.results import Result


class ZoneFilter(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``type = "zone_filter"``: keep the detections whose anchor lies in one of the areas.

    Attributes:
        polygons: Areas as lists of corners.
        units: ``px`` of the frame, or ``relative``: 0 to 1 of its width and height.
        anchor: The point that stands for a box.
        keep: ``inside`` the areas, or ``outside`` all of them.
    """

    gives_kinds: ClassVar[tuple[str, ...] | None] = PLACE_KINDS

    polygons: Annotated[tuple[Polygon, ...], msgspec.Meta(min_length=1)]
    units: Units = "px"
    anchor: Anchor = "bottom_center"
    keep: Annotated[str, msgspec.Meta(pattern="^(inside|outside)$")] = "inside"

    def build(self, labels: tuple[str, ...] = ()) -> PerSource:  # noqa: ARG002 - the same for all steps
        """The step: it follows the size of each source.

        Raises ``ConfigError``: a polygon has no area, crosses itself or does not fit ``units``.
        """
        options = checked(self)
        named = {
            (what := f"polygon {at} of the zone filter"): Shape.polygon(points, options.units, what)
            for at, points in enumerate(options.polygons, start=1)
        }

        def make(_: str) -> InZones:
            placements = tuple(Placement(shape, what) for what, shape in named.items())
            return InZones(placements=placements, anchor=options.anchor, wanted=options.keep == "inside")

        return PerSource(make)


@dataclass(frozen=True, slots=True, kw_only=True)
class InZones:
    """Step that keeps the detections of one source whose anchor lies in a shape, or with ``wanted=False`` in none."""

    placements: tuple[Placement, ...]
    anchor: Anchor = "bottom_center"
    wanted: bool = True

    def __call__(self, result: Result) -> Result:
        """The result with the detections that stand where they should."""
        found = result.detections
        if found is None:
            return result
        said = [event for placement in self.placements for event in placement.follow(result.frame)[1]]
        points = anchor_points(found.xyxy, self.anchor, result.frame)
        hits = np.stack([inside(points, placement.points) for placement in self.placements])
        kept = found[hits.any(axis=0) == self.wanted]
        return replace(result, detections=kept, events=(*result.events, *said))
