"""``Route``: where the messages of one device go, in which form, and what the other end promises."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from edgecv._internal.printable import printable
from edgecv.cloud_sync.delivery.options import AckMode, SendOptions
from edgecv.cloud_sync.mqtt.broker_url import BrokerUrl
from edgecv.cloud_sync.mqtt.events import LinkOptions, Received, Will
from edgecv.cloud_sync.mqtt.topics import Address
from edgecv.cloud_sync.platforms.platform import OWN, Message, Platform, fill, read_platform
from edgecv.cloud_sync.wire.payloads import JSON, ZLIB, Form, Wire
from edgecv.errors import ConfigError

_TOPIC_ROOM_BYTES = 1024  # of a message, for its topic and header


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The rules of a platform, applied to one device."""

    platform: Platform
    ack: AckMode
    form: Form
    broker: BrokerUrl  # with the user and the protocol of the platform, where the URL says nothing
    _values: Mapping[str, str] = field(repr=False)
    _requests: Iterator[int] = field(default_factory=lambda: itertools.count(1), repr=False)

    @property
    def client_id(self) -> str:
        """The name of the device at the broker."""
        return self._fill(self.platform.connection.client_id)

    @property
    def events_topic(self) -> str:
        """The topic to which batches go."""
        return self._fill(self.platform.events.topic)

    @property
    def acks_topic(self) -> str | None:
        """Where ingest acknowledges them; ``None`` when it is not asked."""
        acks = self.platform.acks
        return self._fill(acks.topic) if acks is not None and self.ack == "ingest" else None

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """The topics that the device reads."""
        return tuple(topic for topic in (self.acks_topic, self._answers) if topic)

    @property
    def will(self) -> Will | None:
        """What the broker publishes when the device vanishes."""
        will = self.platform.will
        if will is None:
            return None
        topic, payload, retain = self._message(will, "lost")
        return Will(topic=topic, payload=payload, retain=retain)

    @property
    def promise(self) -> str:
        """What is not promised, where that is less than usual; else empty."""
        if self.ack == "ingest":
            return ""
        promise = (
            "an event is deleted here once the broker took it; nobody says whether it is stored, and whether once."
        )
        if self.platform.acks is None:
            return f"{self.platform.title} has no topic for the acknowledgement of edgecv ingest: {promise}"
        return f"with --ack broker, {promise} --ack ingest waits for the commit of edgecv ingest."

    @property
    def counts_without_subscribers(self) -> bool:
        """Whether a message is delivered that the broker took although nobody subscribes to it."""
        return self.ack == "broker" and self.platform.events.read_by == "rules"

    def pack(self, bodies: Iterable[bytes], nonce: str) -> tuple[bytes, str]:
        """A batch as one payload, and why it is never to be published, or empty.

        Without ingest nobody returns a nonce, and whoever reads the events need not know of it.
        """
        try:
            payload = self.form.pack(bodies, nonce if self.ack == "ingest" else None)
        except (
            msgspec.MsgspecError,
            ValueError,
            RecursionError,
        ) as error:  # an event that JSON holds, and that is nested too deeply to be read
            return b"", f"The event cannot be written for this broker ({printable(str(error), 200)})"
        return payload, self.too_large(payload)

    def too_large(self, payload: bytes) -> str:
        """Why the platform will never take a payload, or empty."""
        most = self.platform.limits.payload_bytes
        if most is None or len(payload) <= most:
            return ""
        return f"{self.platform.title} takes messages of {most} bytes, and the event is {len(payload)} bytes"

    def status(self, state: str) -> tuple[str, bytes, bool] | None:
        """Topic, payload and retain flag of a status; ``None`` where the platform has no place for it."""
        status = self.platform.status
        return None if status is None else self._message(status, state)

    def refusal(self, message: Received) -> str | None:
        """What the platform says against the status of the device; empty when it is content, ``None`` when this is no answer."""
        status = self.platform.status
        if not self._answers or status is None or not _matches(self._answers, message.topic):
            return None
        if status.success and message.topic.startswith(self._fill(status.success)):
            return ""
        said = printable(message.payload[:300].decode(errors="replace"), 300)
        return f"{self.platform.title} refuses the status of the device: {message.topic[:200]} {said}"

    def bounded(self, options: SendOptions) -> SendOptions:
        """``options`` within the limits of the platform."""
        limits = self.platform.limits
        room = None if limits.payload_bytes is None else max(limits.payload_bytes - _TOPIC_ROOM_BYTES, 1)
        return replace(
            options,
            ack=self.ack,
            window=_least(options.window, limits.window),
            window_bytes=_least(options.window_bytes, limits.window_bytes),
            batch_events=_least(options.batch_events, limits.batch_events),
            batch_bytes=_least(options.batch_bytes, room),
            drain_events_s=_slower(options.drain_events_s, limits.drain_events_s),
        )

    def link_options(self, options: SendOptions, *, optional: tuple[str, ...] = ()) -> LinkOptions:
        """How to connect; ``optional`` are more topics to read, which the broker may refuse."""
        return LinkOptions(
            client_id=self.client_id,
            subscriptions=self.subscriptions,
            optional=optional,
            will=self.will,
            window=options.window,
            window_bytes=options.window_bytes,
            keepalive_s=options.keepalive_s,
            backoff=options.reconnect,
        )

    @property
    def _answers(self) -> str:
        return self._fill(self.platform.status.answers) if self.platform.status is not None else ""

    def _message(self, message: Message, state: str) -> tuple[str, bytes, bool]:
        topic = fill(message.topic, {**self._values, "request": str(next(self._requests))})
        return topic, fill(message.payload, {**self._values, "state": state}).encode(), message.retain

    def _fill(self, text: str) -> str:
        return fill(text, self._values)


def plan_route(
    broker: BrokerUrl,
    address: Address,
    *,
    ack: AckMode = "ingest",
    wire: Wire | None = None,
    platform: str | None = None,
) -> Route:
    """How a device reaches a broker.

    Args:
        broker: As the URL says.
        address: The device.
        ack: Who says that an event is safe.
        wire: The form of the messages; ``None``: ``zlib`` for ingest, ``json`` for everybody else.
        platform: A name or the path of a file; ``None``: a broker without rules of its own.

    Raises:
        ConfigError: these do not go together, or the platform does not take the names of the device.
    """
    rules = read_platform(platform or OWN)
    wire = wire or ("zlib" if ack == "ingest" else "json")
    _check_together(rules, ack, wire)
    values = {"tenant": address.tenant, "device": address.device, "host": broker.host}
    _check_names(rules, address)
    user = fill(rules.connection.user, values)
    route = Route(
        platform=rules,
        ack=ack,
        form=ZLIB if wire == "zlib" else JSON[rules.events.body](),
        broker=replace(
            broker,
            username=broker.username or user or None,
            protocol=rules.connection.protocol if broker.protocol == "auto" else broker.protocol,
        ),
        _values=values,
    )
    _check_topics(route)
    return route


def _check_together(rules: Platform, ack: AckMode, wire: Wire) -> None:
    if ack == "ingest" and rules.acks is None:
        raise ConfigError(
            f"{rules.title} has no topic for the acknowledgement of edgecv ingest.",
            "Use --ack broker: an event is then deleted once the platform took it, which is weaker.",
        )
    if ack == "ingest" and wire == "json":
        raise ConfigError(
            "--wire json has no place for what the acknowledgement of edgecv ingest has to return.",
            "Use --ack broker with it, which is weaker, or --wire zlib.",
        )
    if wire not in rules.events.wires:
        raise ConfigError(
            f"{rules.title} does not go with --wire {wire}.", f"It goes with --wire {', '.join(rules.events.wires)}."
        )


def _check_names(rules: Platform, address: Address) -> None:
    pattern = rules.connection.device_names
    if pattern and not re.fullmatch(pattern, address.device):
        raise ConfigError(f"{rules.title} does not take the device name '{address.device}'.", f"It takes {pattern}.")


def _check_topics(route: Route) -> None:
    limits, will, status = route.platform.limits, route.will, route.status("offline")
    topics = [route.events_topic, *route.subscriptions]
    topics += [will.topic] if will else []
    topics += [status[0]] if status else []
    for topic in topics:
        too_deep = limits.topic_slashes is not None and topic.count("/") > limits.topic_slashes
        if too_deep or (limits.topic_bytes is not None and len(topic.encode()) > limits.topic_bytes):
            raise ConfigError(
                f"{route.platform.title} does not take the topic {topic[:300]}.",
                f"It takes {limits.topic_slashes or 'any number of'} slashes and {limits.topic_bytes or 65_535} bytes.",
            )
    if status is not None and limits.status_bytes is not None and len(status[1]) > limits.status_bytes:
        raise ConfigError(
            f"{route.platform.title} takes a status of {limits.status_bytes} bytes.", "Shorten its payload."
        )


def _least(wanted: int, limit: int | None) -> int:
    return wanted if limit is None else min(wanted, limit)


def _slower(wanted: float | None, limit: int | None) -> float | None:
    given = [rate for rate in (wanted, limit) if rate is not None]
    return min(given) if given else None


def _matches(topic_filter: str, topic: str) -> bool:
    """Whether a filter that is a topic, or ends in ``/#``, covers a topic."""
    return topic.startswith(topic_filter[:-1]) if topic_filter.endswith("/#") else topic == topic_filter
