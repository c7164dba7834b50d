"""``Overlay``: a line or an area of a step, with what it counted, for pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """What a step drew into a frame: a line or an area, its name, and what it counted so far.

    Attributes:
        name: Of the step.
        shape: ``line`` has two points, ``zone`` three or more, in order round it.
        points: In pixels of the frame.
        counts: Totals by short name, such as ``in`` and ``out``; of a line the first is that of the way to its right, as one
            looks from its first point to its second.
        levels: Which of the counts go up and down, such as ``inside``; the others only grow.
        active: Whether a rule holds there now, such as a crowd.
    """

    name: str
    shape: Literal["line", "zone"]
    points: tuple[tuple[float, float], ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    levels: frozenset[str] = frozenset({"inside"})
    active: bool = False
