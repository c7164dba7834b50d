"""What a transport tells its user, free of any MQTT library."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgecv._internal.timing import Backoff

TOO_LARGE = 0x95  # MQTT 5 reason codes
NO_SUBSCRIBERS = 0x10
PAYLOAD_INVALID = 0x99
NOT_AUTHORIZED = 0x87

ANY_PACKET = 268_435_455  # what MQTT itself allows


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """A connection stands and its subscriptions are granted."""

    epoch: int  # number of the connection; what is published on another one is dropped
    window: int  # how many messages may be unacknowledged
    protocol: str  # `5` or `3.1.1`
    max_packet_bytes: int = ANY_PACKET  # the largest message the broker says it takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected:
    """The connection is gone, or could not be made; every token without an answer is void."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The broker took the message and somebody subscribes to it (as far as its protocol tells)."""

    token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Undelivered:
    """The broker refused the message, or nobody subscribes to it; ``reason_code`` is MQTT 5's."""

    token: int
    reason_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A message of a subscription; ``epoch``, ``mid`` and ``qos`` are for ``acknowledge``."""

    epoch: int
    mid: int
    topic: str
    qos: int = 1
    payload: bytes = field(repr=False)


LinkEvent = Connected | Disconnected | Delivered | Undelivered | Received


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What the broker publishes when this client vanishes."""

    topic: str
    payload: bytes
    retain: bool = True  # whether it stays there for those who come later


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOptions:
    """How to connect, and how much to take and to wait."""

    client_id: str  # name of this client at the broker; a second one of that name throws the first out
    subscriptions: tuple[str, ...] = ()  # topic filters, granted before `Connected` is reported
    optional: tuple[str, ...] = ()  # more of them, which the broker may refuse
    will: Will | None = None  # published by the broker when this client vanishes
    max_packet_bytes: int = 64 * 1024  # the largest packet to take from the broker; a larger one ends the connection
    window: int = 32  # most messages unacknowledged at a time; 20 to 64 are fastest (measured)
    window_bytes: int = 60 * 1024  # most bytes of them; one message is sent even if it alone is larger
    manual_ack: bool = False  # leave received messages unacknowledged until `acknowledge`
    keepalive_s: int = 15  # a dead peer is noticed before twice this is over
    timeout_s: float = 5.0  # for connecting, until the subscriptions are granted
    stall_s: float = 30.0  # a connection on which the broker acknowledges nothing for this long is given up
    hang_s: float = 45.0  # a network thread that makes no step for so long hangs, and is replaced
    backoff: Backoff = field(default_factory=Backoff)  # delays between attempts

    @property
    def filters(self) -> tuple[str, ...]:
        """All that is subscribed to, what is needed first."""
        return (*self.subscriptions, *self.optional)
