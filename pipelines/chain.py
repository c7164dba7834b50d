"""The steps of a pipeline, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgecv.protocols import Gate, Step
from edgecv.results import Frame, Result


class Chain:
    """Applies the steps in order; one that returns ``None`` ends the frame.

    A step (or gate) may have ``counts(source_id)``, ``forget(source_id)`` and ``close()``, as ``PerSource`` has.
    """

    def __init__(self, steps: Sequence[Step], gates: Sequence[Gate], age_ms: Callable[[Frame], float]) -> None:
        self._steps = tuple(steps)
        self._all: tuple[Any, ...] = (*gates, *steps)
        self._age_ms = age_ms

    def __call__(self, result: Result) -> Result | None:
        """The result after the steps; call it in the order of the frames."""
        current: Result | None = result
        for step in self._steps:
            if current is None:
                return None
            current = step(current)
        if current is None or not self._steps:
            return current
        return replace(current, age_ms=self._age_ms(current.frame))

    def counts(self, source_id: str) -> Mapping[str, int]:
        """What the steps counted at one source."""
        found: dict[str, int] = {}
        for step in self._all:
            if hasattr(step, "counts"):
                found |= step.counts(source_id)
        return found

    def forget(self, source_id: str) -> None:
        """A source is gone."""
        for step in self._all:
            if hasattr(step, "forget"):
                step.forget(source_id)

    def close(self) -> None:
        """The pipeline ended."""
        for step in self._all:
            if hasattr(step, "close"):
                step.close()
