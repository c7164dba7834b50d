"""What a link may have on its way to a broker: so many messages and so many bytes."""

from __future__ import annotations

from dataclasses import dataclass

_HEADER_BYTES = 24  # fixed header, topic length, packet identifier, properties


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """A request to send a message on connection ``epoch``."""

    epoch: int
    token: int
    topic: str
    payload: bytes
    retain: bool
    content_type: str = ""  # said with MQTT 5

    @property
    def size_bytes(self) -> int:
        """How large its packet will be."""
        return len(self.payload) + len(self.topic.encode()) + len(self.content_type) + _HEADER_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Puback:
    """A request to tell the broker that a message is taken care of."""

    epoch: int
    mid: int


class Window:
    """The messages that the broker has not answered yet, by packet identifier."""

    def __init__(self, messages: int, size_bytes: int) -> None:
        self.messages = messages
        self._most_bytes = size_bytes
        self._open: dict[int, tuple[int, int]] = {}  # the token, and the size
        self._open_bytes = 0

    def __len__(self) -> int:
        return len(self._open)

    def has_room(self, request: Publish) -> bool:
        """Whether it may be sent now; a message alone always may."""
        fits = self._open_bytes + request.size_bytes <= self._most_bytes
        return not self._open or (fits and len(self._open) < self.messages)

    def add(self, mid: int, request: Publish) -> None:
        """It was sent under the identifier ``mid``."""
        self._open[mid] = (request.token, request.size_bytes)
        self._open_bytes += request.size_bytes

    def answered(self, mid: int) -> int | None:
        """The token of what the broker answered; ``None`` when nothing of that identifier is under way."""
        token, size = self._open.pop(mid, (None, 0))
        self._open_bytes -= size
        return token
