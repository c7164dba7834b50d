"""Steps: plain callables ``Result -> Result | None`` between decoding and the sinks.

Each of the names below is a set of options, the same in Python and in ``app.toml`` (there ``type`` is the name in snake
case). ``Pipeline(steps=[Track(), ...], gates=[Motion()])`` takes them as they are. They are loaded when they are first used.
``Options``, ``checked`` and ``PerSource`` are for steps of your own (docs/plugins.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecv._internal.extras import lazy_names

if TYPE_CHECKING:
    from edgecv.pipelines.privacy.blur import Blur as Blur
    from edgecv.pipelines.steps.count.line import Line as Line
    from edgecv.pipelines.steps.count.zone import Zone as Zone
    from edgecv.pipelines.steps.filter.classes import Classes as Classes
    from edgecv.pipelines.steps.filter.confidence import Confidence as Confidence
    from edgecv.pipelines.steps.filter.zone import ZoneFilter as ZoneFilter
    from edgecv.pipelines.steps.motion import Motion as Motion
    from edgecv.pipelines.steps.options import Options as Options, checked as checked
    from edgecv.pipelines.steps.per_source import PerSource as PerSource
    from edgecv.pipelines.steps.rules.absence import Absence as Absence
    from edgecv.pipelines.steps.rules.crowd import Crowd as Crowd
    from edgecv.pipelines.steps.rules.left_behind import LeftBehind as LeftBehind
    from edgecv.pipelines.steps.rules.schedule import Schedule as Schedule
    from edgecv.pipelines.steps.rules.speed import Speed as Speed
    from edgecv.pipelines.steps.rules.stays import Appear as Appear, Dwell as Dwell, Leave as Leave
    from edgecv.pipelines.steps.second_model.classify import Classify as Classify
    from edgecv.pipelines.steps.second_model.segment import Segment as Segment
    from edgecv.pipelines.steps.track.tracker import Track as Track

_LAZY = {
    "Absence": "edgecv.pipelines.steps.rules.absence",
    "Appear": "edgecv.pipelines.steps.rules.stays",
    "Blur": "edgecv.pipelines.privacy.blur",
    "Classes": "edgecv.pipelines.steps.filter.classes",
    "Classify": "edgecv.pipelines.steps.second_model.classify",
    "Confidence": "edgecv.pipelines.steps.filter.confidence",
    "Crowd": "edgecv.pipelines.steps.rules.crowd",
    "Dwell": "edgecv.pipelines.steps.rules.stays",
    "Leave": "edgecv.pipelines.steps.rules.stays",
    "LeftBehind": "edgecv.pipelines.steps.rules.left_behind",
    "Line": "edgecv.pipelines.steps.count.line",
    "Motion": "edgecv.pipelines.steps.motion",
    "Options": "edgecv.pipelines.steps.options",
    "PerSource": "edgecv.pipelines.steps.per_source",
    "Schedule": "edgecv.pipelines.steps.rules.schedule",
    "Segment": "edgecv.pipelines.steps.second_model.segment",
    "Speed": "edgecv.pipelines.steps.rules.speed",
    "Track": "edgecv.pipelines.steps.track.tracker",
    "Zone": "edgecv.pipelines.steps.count.zone",
    "ZoneFilter": "edgecv.pipelines.steps.filter.zone",
    "checked": "edgecv.pipelines.steps.options",
}

__all__ = [*_LAZY]  # noqa: PLE0604 - the keys are strings


if not TYPE_CHECKING:  # a type checker shall find misspelt names
    __getattr__ = lazy_names(__name__, _LAZY)


def __dir__() -> list[str]:
    return sorted(__all__)
