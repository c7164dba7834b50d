"""``Platform``: the topics, limits and manners of an MQTT service, read from a TOML file.

The files of this folder are the platforms that have a name; an operator may write one more and name its path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edgecv._internal.strict import named_file, named_files, read_struct, read_toml
from edgecv.cloud_sync.wire.payloads import Body, Wire
from edgecv.errors import ConfigError

FOLDER = Path(__file__).parent
OWN = "edgecv"
"""The platform of a broker that has no rules of its own."""

_MOST_BYTES = 64 * 1024  # of a file; ours are below two kilobytes
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_IN_TOPICS = frozenset({"tenant", "device", "host", "request"})
_IN_PAYLOADS = frozenset({"tenant", "device", "state"})

Positive = Annotated[int, msgspec.Meta(ge=1)]


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """``[connection]``: how a device presents itself."""

    client_id: str = "edgecv-{tenant}-{device}"
    user: str = ""  # where the URL names none
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    device_names: str = ""  # regular expression of the names that the platform allows; empty: any that EdgeCV does


class Events(msgspec.Struct, frozen=True, kw_only=True):
    """``[events]``: where the batches go, and in which form."""

    topic: str
    wires: tuple[Wire, ...] = ("zlib", "json")
    body: Body = "cloudevents"  # the form that `json` has
    # `subscribers`: a message that nobody subscribes to is not delivered. `rules`: the platform itself takes it.
    read_by: Literal["subscribers", "rules"] = "subscribers"


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """``[acks]``: where ``edgecv ingest`` acknowledges; a platform without this table has no such topic."""

    topic: str


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """``[will]``: what the broker publishes when the device vanishes."""

    topic: str
    payload: str  # JSON; `{state}` stands for online, offline or lost
    retain: bool = False


class Status(Message, frozen=True, kw_only=True):
    """``[status]``: where the device says that it is online, and where the platform answers to that."""

    answers: str = ""  # a topic filter; empty: there is no answer
    success: str = ""  # how the topic of a good answer begins; empty: every answer says that something is wrong


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """``[limits]``: what the platform takes; ``None`` where it does not say."""

    payload_bytes: Positive | None = None  # of one message
    batch_events: Positive | None = None
    window: Positive | None = None  # messages in flight
    window_bytes: Positive | None = None  # bytes in flight
    drain_events_s: Positive | None = None  # of a backlog, so that its messages stay below the rate of a connection
    status_bytes: Positive | None = None  # of the status document
    topic_bytes: Positive | None = None
    topic_slashes: Positive | None = None


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """What a whole file says."""

    title: str
    source: str = ""  # where its rules are written
    events: Events
    connection: Connection = Connection()
    acks: Answers | None = None
    status: Status | None = None
    will: Message | None = None
    limits: Limits = Limits()


def platform_names() -> tuple[str, ...]:
    """The platforms that have a name."""
    return named_files(FOLDER)


def read_platform(name: str) -> Platform:
    """A platform by its name, or from a file of the user's own: a path that ends in ``.toml``.

    Raises:
        ConfigError: there is no such platform or file, or what stands in it is wrong.
    """
    return _read(named_file(name, FOLDER, "platform"))


def _read(path: Path) -> Platform:
    document = read_toml(
        path, missing="Check the path of the platform.", example="docs/platforms.md shows one.", most_bytes=_MOST_BYTES
    )
    platform = read_struct(document, Platform, str(path))
    for topic in _topics(platform):
        _check_names(topic, _IN_TOPICS, path)
    for message in (platform.status, platform.will):
        if message is not None:
            _check_names(message.payload, _IN_PAYLOADS, path)
            _check_json(message.payload, path)
    _check_pattern(platform.connection.device_names, path)
    return platform


def _topics(platform: Platform) -> list[str]:
    found = [platform.events.topic, platform.connection.client_id, platform.connection.user]
    found += [table.topic for table in (platform.acks, platform.status, platform.will) if table is not None]
    return [*found, platform.status.answers] if platform.status is not None else found


def _check_names(text: str, known: frozenset[str], path: Path) -> None:
    for name in _PLACEHOLDER.findall(text):
        if name not in known:
            raise ConfigError(
                f"{path} has {{{name}}}, which stands for nothing.", f"Known: {', '.join(sorted(known))}."
            )


def _check_json(payload: str, path: Path) -> None:
    try:
        msgspec.json.decode(fill(payload, {"tenant": "t", "device": "d", "state": "online"}))
    except msgspec.DecodeError as error:
        raise ConfigError(
            f"A payload in {path} is no JSON: {error}.", 'Write it as \'{"state":"{state}"}\'.'
        ) from error


def _check_pattern(pattern: str, path: Path) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"device_names in {path} is no regular expression: {error}.") from error


def fill(text: str, values: Mapping[str, str]) -> str:
    """``text`` with its placeholders replaced; those without a value stay."""
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), text)
