"""What the results of a pipeline showed since the last look: noted in microseconds, on the thread that brings them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgecv.results import Result

_PRESENT_S = 3.0  # a class that the model misses for so long is still there: detections flicker


@dataclass(slots=True)
class Seen:
    """What is known of one source.

    Attributes:
        labels: Names of the classes of its model.
        now: Names of the classes in its newest result.
        last_s: When each class was found last, monotonic seconds.
        entered: Counters such as ``lobby.inside`` that somebody entered since the last look, however short the stay was.
    """

    labels: tuple[str, ...] = ()
    now: frozenset[str] = frozenset()
    last_s: dict[str, float] = field(default_factory=dict)
    entered: set[str] = field(default_factory=set)

    def is_present(self, label: str, now_s: float) -> bool:
        """Whether objects of a class are there, or were a moment ago."""
        return label in self.now or now_s - self.last_s.get(label, float("-inf")) < _PRESENT_S


class Sightings:
    """What each source showed; its size is that of the sources and of the classes of the model."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sources: dict[str, Seen] = {}

    def see(self, result: Result, now_s: float) -> bool:
        """Take note of a result; whether something happened that should be told soon."""
        found = _classes(result)
        entered = {name for event in result.events if event.kind == "zone.entered" for name in _entered(event.data)}
        with self._lock:
            seen = self._sources.setdefault(result.frame.source_id, Seen())
            happened = bool(result.events) or any(not seen.is_present(label, now_s) for label in found)
            seen.labels, seen.now = result.labels, found
            seen.last_s.update(dict.fromkeys(found, now_s))
            seen.entered |= entered
        return happened

    def look(self, sources: Iterable[str]) -> dict[str, Seen]:
        """What these sources showed; others are forgotten, and so is who entered."""
        with self._lock:
            self._sources = {name: self._sources[name] for name in sources if name in self._sources}
            copies = {name: replace(seen, last_s=dict(seen.last_s)) for name, seen in self._sources.items()}
            for seen in self._sources.values():
                seen.entered = set()
            return copies


def _classes(result: Result) -> frozenset[str]:
    """A detector's classes; a classifier always names some, and none of them is present or absent."""
    if not result.detections:
        return frozenset()
    return frozenset(result.label(int(class_id)) for class_id in np.unique(result.detections.class_id))


def _entered(data: Mapping[str, Any]) -> tuple[str, str]:
    inside = f"{data.get('counter')}.inside"
    return inside, f"{inside}.{data.get('label')}"
