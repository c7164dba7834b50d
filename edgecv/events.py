"""``Event``: a message from a step or from the pipeline to sinks and to the program."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

from edgecv.errors import ConfigError

Priority = Literal["alarm", "event", "telemetry", "blob"]
_LONGEST_KEY = 200
_KEY_DIGITS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened.

    Attributes:
        kind: What happened, dotted, such as ``line.crossed`` or ``source.stale``.
        time_ns: When, UTC nanoseconds since the epoch.
        source_id: The source it happened at, free of credentials.
        data: Details that JSON can hold.
        priority: How urgent it is; a full outbox gives up the later ones first.
        coalesce_key: For a state, of which only the newest matters: a newer event of the same key takes the place of one that
            was not sent yet. Of what counts as history, such as a crossing, it stays empty.
    """

    kind: str
    time_ns: int
    source_id: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    priority: Priority = "event"
    coalesce_key: str = ""

    def __post_init__(self) -> None:
        if self.priority not in get_args(Priority):
            raise ConfigError(
                f"The event '{self.kind}' has the priority {self.priority!r}.",
                f"Use one of {', '.join(get_args(Priority))}.",
            )
        if len(self.coalesce_key) > _LONGEST_KEY:
            raise ConfigError(
                f"The event '{self.kind}' has a coalesce_key of {len(self.coalesce_key)} characters.",
                f"Use at most {_LONGEST_KEY}.",
            )

    @property
    def key(self) -> str:
        """32 hexadecimal digits that stand for this event: the same for the same kind, time, source and data, also in a replay.

        Files that belong to an event name it by this key (``EventMedia``).
        """
        said = (self.kind, self.time_ns, self.source_id, dict(self.data))
        return sha256(json.dumps(said, default=str, sort_keys=True).encode()).hexdigest()[:_KEY_DIGITS]

    def as_dict(self) -> dict[str, Any]:
        """Return the event as a dict that JSON can hold."""
        return {
            "kind": self.kind,
            "time_ns": self.time_ns,
            "source_id": self.source_id,
            "data": dict(self.data),
            "priority": self.priority,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class EventMedia:
    """A file that a sink made of events: a picture or a video of the moment.

    Attributes:
        keys: ``Event.key`` of the events that it shows.
        kind: ``snapshot``: a JPEG. ``clip``: an MP4.
        path: The file, which is whole; its sink may delete it later, by its own limits.
        source_id: The source that it shows.
    """

    keys: tuple[str, ...]
    kind: Literal["snapshot", "clip"]
    path: Path
    source_id: str = ""
