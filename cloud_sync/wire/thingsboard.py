"""Events as ThingsBoard's telemetry: ``[{"ts": milliseconds, "values": {key: value}}, …]``.

ThingsBoard keeps one value per key and millisecond, so events of one kind and one millisecond travel as a list in one value.
Where the message before holds the first part of such a list, the second one goes a millisecond later: neither replaces the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

import msgspec

from edgecv.cloud_sync.wire.cloud_events import readable

_MOST_USED = 4096  # times and keys that are remembered


class _Event(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    type: str
    time: str
    data: msgspec.Raw


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    label: str = ""


class _Numbers(msgspec.Struct, frozen=True, kw_only=True):
    """What of a payload becomes numbers that a chart can show."""

    source_id: str | None = None
    detections: list[_Found] | None = None


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    data: msgspec.Raw


class Telemetry:
    """Writes the messages of one device, each after the other."""

    def __init__(self) -> None:
        self._used: dict[tuple[int, str], str] = {}  # by time and key the first event that is there

    def __call__(self, bodies: Iterable[bytes]) -> bytes:
        """One message of the events in ``bodies``, as an outbox stores them; written again it is the same message."""
        groups: dict[tuple[int, str], list[_Event]] = {}
        for body in bodies:
            event = _event.decode(body)
            groups.setdefault((_milliseconds(event.time), _key(event)), []).append(event)
        rows: dict[int, dict[str, Any]] = {}
        for (ts, key), events in groups.items():
            rows.setdefault(self._free(ts, key, events[0].id), {}).update(_values(key, events))
        while len(self._used) > _MOST_USED:
            del self._used[next(iter(self._used))]
        return msgspec.json.encode([{"ts": ts, "values": values} for ts, values in rows.items()])

    def _free(self, ts: int, key: str, first: str) -> int:
        while self._used.get((ts, key), first) != first:
            ts += 1
        self._used[ts, key] = first
        return ts


def _values(key: str, events: Sequence[_Event]) -> dict[str, Any]:
    documents = [_Document(id=event.id, data=readable(event.type, event.data)) for event in events]
    return {key: documents, **_counts(key, events)}


def _counts(key: str, events: Sequence[_Event]) -> dict[str, int]:
    if not key.endswith("result"):
        return {f"{key}.count": len(events)}
    found = _numbers_of(events[-1]).detections
    if found is None:
        return {}
    labels = Counter(one.label for one in found)
    return {f"{key}.objects": len(found), **{f"{key}.{label}": count for label, count in labels.items() if label}}


def _key(event: _Event) -> str:
    """``CAMERA.line.crossed``, or the kind alone where there is no camera; results are ``CAMERA.result``."""
    kind = event.type.removeprefix("edgecv.").removeprefix("event.")
    camera = _numbers_of(event).source_id
    return f"{camera}.{kind}" if camera else kind


def _numbers_of(event: _Event) -> _Numbers:
    try:
        return _numbers.decode(event.data)
    except msgspec.MsgspecError:  # a step of the user's own may write anything under these names
        return _Numbers()


def _milliseconds(time: str) -> int:
    """Of RFC 3339 in UTC, since 1970."""
    whole = datetime.fromisoformat(time[:19]).replace(tzinfo=timezone.utc)
    fraction = time[20:-1].ljust(3, "0")[:3]
    return int(whole.timestamp()) * 1000 + int(fraction)


_event = msgspec.json.Decoder(_Event)
_numbers = msgspec.json.Decoder(_Numbers)
