"""The fields that a template may use, and their values for one notification."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone, tzinfo
from types import MappingProxyType
from typing import Any

from edgecv._internal.printable import as_name
from edgecv.events import Event
from edgecv.notifications.rates import Held, rule_of
from edgecv.pipelines.sinks.webhook.parcels import Files, Notification, picture_facts

FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "kind": "the kind of the event, such as line.crossed",
        "source": "the name of the source",
        "rule": "the name of the line, zone or rule",
        "label": "the class of the object",
        "direction": "of a crossing: in, out",
        "count": "the number of the event: its count, or else the total of the line or zone",
        "priority": "alarm, event ..., or what the template says for it",
        "where": "source and rule",
        "what": "the event in a few words",
        "message": "what, and how many were held back before it",
        "more": "how many were held back, in words; empty where none was",
        "held_back": "how many were held back since the last notification",
        "held_back_kinds": "the same by kind",
        "time": "local time with its time zone",
        "time_utc": "the time in UTC, as RFC 3339 says",
        "key": "the key of the event",
        "data": "all data of the event",
    }
)
PICTURE_FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "snapshot_name": "a file name for the picture",
        "snapshot_url": "where the picture is served",
        "snapshot_path": "where the picture lies on the device",
        "snapshot_sha256": "the hash of a picture that goes along",
        "snapshot_base64": "that picture itself",
    }
)
NOWHERE = "EdgeCV"
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_FIRST_US, _LAST_US = -62_135_000_000_000_000, 253_402_000_000_000_000  # a few days from the ends of the calendar
_LONGEST = 1000  # characters of a text: receivers have limits of their own, Slack 3,000 for a block


def field_values(
    notification: Notification,
    files: Files,
    *,
    priorities: Mapping[str, str],
    time_format: str,
    zone: tzinfo | None,
) -> dict[str, Any]:
    """The value of every field; texts have no control characters. Of ``data.NAME`` the name stands for itself."""
    event, held = notification.event, notification.held
    what, more = _what(event), _more(held)
    moment = _moment(event.time_ns)
    names = files.names(event.key)
    values: dict[str, Any] = {
        "kind": event.kind,
        "source": event.source_id,
        "rule": rule_of(event),
        "label": _text(event, "label"),
        "direction": _text(event, "direction"),
        "count": next((event.data[name] for name in ("count", "total") if name in event.data), None),
        "priority": priorities.get(event.priority, event.priority),
        "where": ", ".join(filter(None, (event.source_id, rule_of(event)))) or NOWHERE,
        "what": what,
        "message": f"{what}, {more}" if more else what,
        "more": more,
        "held_back": sum(held.values()),
        "held_back_kinds": dict(held),
        "time": moment.astimezone(zone).strftime(time_format),
        "time_utc": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "key": event.key,
        "data": dict(event.data),
        "snapshot_name": f"{event.key}.jpg",
        "snapshot_url": names.get("url", ""),
        "snapshot_path": names.get("path", ""),
        "snapshot_sha256": picture_facts(notification.picture)["sha256"] if notification.picture else "",
    }
    return {name: _plain(value) for name, value in values.items()} | _base64(notification)


def _base64(notification: Notification) -> dict[str, str]:
    return {"snapshot_base64": base64.b64encode(notification.picture).decode()}  # long: it is not looked through


def _moment(time_ns: int) -> datetime:
    """The time of an event; of one that no calendar holds, the nearest that every time zone can show."""
    return _EPOCH + timedelta(microseconds=max(_FIRST_US, min(_LAST_US, time_ns // 1000)))


def _what(event: Event) -> str:
    """``line.crossed: person, in``; of trouble, what it says."""
    words = [_text(event, name) for name in ("label", "direction", "how")]
    if "count" in event.data:
        words.append(f"{event.data['count']}")
    words += [_text(event, name) for name in ("message", "error", "hint")]
    said = ", ".join(word.rstrip(".") for word in words if word)
    return f"{event.kind}: {said}" if said else event.kind


def _more(held: Held) -> str:
    if not held:
        return ""
    kinds = ", ".join(f"{count} {kind}" for kind, count in held.items())
    return f"and {sum(held.values())} more: {kinds}"


def _text(event: Event, name: str) -> str:
    value = event.data.get(name, "")
    return value if isinstance(value, str) else ""


def _plain(value: Any) -> Any:
    return as_name(value)[:_LONGEST] if isinstance(value, str) else value
