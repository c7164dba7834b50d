"""What a webhook sends: documents of frames, and notifications of events."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from edgecv.events import Event, EventMedia
from edgecv.notifications.rates import Held
from edgecv.pipelines.sinks.documents import encode
from edgecv.results import Result

JPEG = "image/jpeg"
_MOST_FILES = 1024  # whose names are remembered until their event is sent


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameDocument:
    """The document of one frame, as JSON."""

    body: bytes

    def __len__(self) -> int:
        """How many bytes it takes."""
        return len(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """One event on its way.

    Attributes:
        event: The event.
        held: What was held back before it, by kind.
        picture: The frame that the event came with as a JPEG; empty where none goes along.
        size: Its bytes, about.
    """

    event: Event
    held: Held = field(default_factory=dict)
    picture: bytes = b""
    size: int

    def __len__(self) -> int:
        """How many bytes it takes, about."""
        return self.size

    @classmethod
    def of(cls, event: Event, held: Held, picture: bytes = b"") -> Notification:
        """The notification of an event. Raises ``SinkError`` when JSON cannot hold the event."""
        return cls(event=event, held=held, picture=picture, size=len(encode(event.as_dict())) + len(picture))


Parcel = FrameDocument | Notification


class Files:
    """The pictures that other sinks made of events, by the key of the event; bounded, and safe to use from any thread."""

    def __init__(self, url: str = "") -> None:
        """``url`` is where the pictures' folder is served; empty where nobody serves it."""
        self._url = f"{url.rstrip('/')}/" if url else ""
        self._paths: OrderedDict[str, Path] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, media: EventMedia) -> None:
        """Remember a picture; the oldest one of very many is forgotten."""
        if media.kind != "snapshot":
            return
        with self._lock:
            for key in media.keys:
                self._paths[key] = media.path
            while len(self._paths) > _MOST_FILES:
                self._paths.popitem(last=False)

    def names(self, key: str) -> Mapping[str, str]:
        """The ``path`` of the picture of an event, and its ``url`` where there is one; nothing when none is known."""
        with self._lock:
            path = self._paths.get(key)
        if path is None:
            return {}
        return {"path": str(path), **({"url": self._url + quote(path.name)} if self._url else {})}


def frame_document(result: Result, *, masks: bool) -> FrameDocument:
    """The document of a frame, in which each event has its key. Raises ``SinkError`` when JSON cannot hold it."""
    document = result.as_dict(masks=masks)
    if result.events:
        document["events"] = [keyed(event) for event in result.events]
    return FrameDocument(body=encode(document))


def keyed(event: Event) -> dict[str, Any]:
    """An event as JSON, with its key."""
    return {**event.as_dict(), "key": event.key}


def picture_facts(picture: bytes) -> dict[str, Any]:
    """What names a JPEG and says its size."""
    return {"sha256": hashlib.sha256(picture).hexdigest(), "bytes": len(picture), "type": JPEG}


def json_array(parcels: list[Parcel], files: Files) -> bytes:
    """Several parcels as one JSON array."""
    return b"[" + b",".join(_json(parcel, files) for parcel in parcels) + b"]"


def _json(parcel: Parcel, files: Files) -> bytes:
    if isinstance(parcel, FrameDocument):
        return parcel.body
    document: dict[str, Any] = {"event": keyed(parcel.event)}
    if parcel.held:
        document["held_back"] = dict(parcel.held)
    if parcel.picture:
        data = base64.b64encode(parcel.picture).decode()
        document["snapshot"] = {**picture_facts(parcel.picture), "data": data}
    elif names := files.names(parcel.event.key):
        document["snapshot"] = dict(names)
    return encode(document)
