"""The values of all entities at one moment, as one flat JSON object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from edgecv.cloud_sync.home_assistant.inventory import Inventory, SourceParts
from edgecv.cloud_sync.home_assistant.names import key_of
from edgecv.cloud_sync.home_assistant.sightings import Seen
from edgecv.status import Gauge, SourceStatus

Value = str | float | None

_SLOW_S = (
    10.0  # how often numbers that never stand still are told: each change becomes a row in Home Assistant's database
)
_PROGRESS = ("still", "step")  # frames that were looked at and gave no result


@dataclass(slots=True)
class Measured:
    """Values that move all the time, told every ten seconds; what matters is told at once."""

    _values: dict[str, Value] = field(default_factory=dict)
    _told_s: float = float("-inf")

    def __call__(self, now_s: float, measure: Callable[[], dict[str, Value]]) -> dict[str, Value]:
        """The values of ``measure``, at most ten seconds old."""
        if now_s - self._told_s >= _SLOW_S:
            self._values, self._told_s = measure(), now_s
        return self._values


class Freshness:
    """Tells a source that works from one of which nothing was heard for a while, for whatever reason."""

    def __init__(self, expire_after_s: float) -> None:
        self._expire_after_s = expire_after_s
        self._progress: dict[str, tuple[int, float]] = {}

    def of(self, statuses: Sequence[SourceStatus], now_s: float) -> set[str]:
        """The sources that are live, and of which frames went through lately."""
        before = self._progress
        self._progress = {}
        for status in statuses:
            frames = status.frames + sum(status.dropped.get(reason, 0) for reason in _PROGRESS)
            known = before.get(status.source_id)
            self._progress[status.source_id] = known if known is not None and known[0] == frames else (frames, now_s)
        return {
            status.source_id
            for status in statuses
            if status.health.state == "live"
            and status.frames
            and now_s - self._progress[status.source_id][1] < self._expire_after_s
        }


def values_now(
    inventory: Inventory,
    statuses: Sequence[SourceStatus],
    seen: Mapping[str, Seen],
    fresh: set[str],
    now_s: float,
) -> dict[str, Value]:
    """What is told at once: occupancy, counts and the state of each source.

    ``None``, which Home Assistant shows as unknown, stands where nobody can tell: a camera that is away is not an empty room.
    """
    values: dict[str, Value] = {}
    by_id = {status.source_id: status for status in statuses}
    for name, parts in inventory.sources.items():
        status = by_id.get(name)
        values[key_of("state", name)] = None if status is None else status.health.state
        is_fresh = name in fresh and name in seen
        values |= _presence(name, parts, seen[name] if is_fresh else None, now_s)
        counts = status.counts if status is not None and name in seen else None
        values |= _counts(name, parts, counts, seen[name] if is_fresh else None)
    return values


def values_measured(statuses: Sequence[SourceStatus], fresh: set[str], gauges: Sequence[Gauge]) -> dict[str, Value]:
    """What moves all the time: frame rates, ages and gauges; a gauge without a value is left out."""
    values: dict[str, Value] = {}
    for status in statuses:
        is_fresh = status.source_id in fresh
        values[key_of("fps", status.source_id)] = round(status.fps, 1)
        values[key_of("age", status.source_id)] = round(status.age_ms) if is_fresh else None
    for gauge in gauges:
        value = None
        with suppress(Exception):  # one broken sensor must not take the others away; the metrics say why
            value = gauge.read()
        if value is not None:
            values[key_of("gauge", gauge.name)] = round(value, 1)
    return values


def _presence(source: str, parts: SourceParts, seen: Seen | None, now_s: float) -> dict[str, Value]:
    return {
        key_of("presence", source, label): None if seen is None else _on(seen.is_present(label, now_s))
        for label in parts.classes
    }


def _counts(source: str, parts: SourceParts, counts: Mapping[str, int] | None, seen: Seen | None) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for counter in parts.counters:
        pieces = counter.split(".", 2)
        count = None if counts is None else counts.get(counter, 0)
        if pieces[1:2] == ["inside"]:
            count = None if seen is None else count
            is_in = None if seen is None or count is None else _on(count > 0 or counter in seen.entered)
            values[key_of("occupancy", source, *pieces)] = is_in
        values[key_of("count", source, *pieces)] = count
    return values


def _on(is_on: bool) -> str:
    return "ON" if is_on else "OFF"
