"""Results and events as JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from edgecv.errors import SinkError
from edgecv.events import Event

_ENCODER = msgspec.json.Encoder()


def event_document(event: Event) -> dict[str, Any]:
    """An event that belongs to no frame; its one key ``event`` tells it from the document of a frame."""
    return {"event": event.as_dict()}


def encode(document: Any) -> bytes:
    """A document as JSON on one line. Raises ``SinkError`` when a step put something into an event that JSON cannot hold."""
    try:
        return _ENCODER.encode(document)
    except (TypeError, ValueError, OverflowError) as error:
        raise SinkError(
            f"A result is no JSON: {error}.", "Put numbers, texts, lists and dicts into an event's data."
        ) from error
