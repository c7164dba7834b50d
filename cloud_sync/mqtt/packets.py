"""What a broker sends, checked before the MQTT library sees it: expected packets of bounded size, and whole ones only.

MQTT 5 lets us announce the largest packet we take; 3.1.1 does not, and no broker can be forced to keep to it. A packet
states its length in its first five bytes, so one that is too large is refused before any of it is kept.
"""

from __future__ import annotations

import ssl
import time
from collections import deque
from collections.abc import Callable

from edgecv.cloud_sync.mqtt.reasons import tls_alert

_CHUNK_BYTES = 64 * 1024
_CONTROL_BYTES = 16 * 1024  # far more than anything but a PUBLISH needs
_CONNACK, _PUBLISH, _DISCONNECT = 0x20, 0x30, 0xE0
# CONNACK, PUBLISH, PUBACK, SUBACK, PINGRESP. Nothing else answers what we send: no QoS 2, no pings from a broker.
_EXPECTED = frozenset({_CONNACK, _PUBLISH, 0x40, 0x90, 0xD0})


class PacketGuard:
    """Stands between a socket and the MQTT library.

    It also takes the properties out of every MQTT 5 PUBLISH: nothing here uses them, whoever publishes may choose them,
    and reading a megabyte of them takes the library hours. ``max_bytes`` is the largest packet to take, with its header.
    """

    def __init__(self, *, max_bytes: int, is_v5: bool) -> None:
        self._max_bytes = max_bytes
        self._is_v5 = is_v5
        self._partial = bytearray()
        self._ready: deque[bytes] = deque()
        self._position = 0
        self.packets = 0
        self.answered_s = time.monotonic()  # when the last packet came that answers one of ours
        self.refusal = ""

    @property
    def pending(self) -> bool:
        """Whether a checked packet waits to be read; the socket says nothing of it."""
        return bool(self._ready)

    def read(self, size: int, receive: Callable[[int], bytes]) -> bytes:
        """Up to ``size`` bytes of checked packets, as ``socket.recv`` would give them; ``receive`` reads from the socket.

        Raises:
            BlockingIOError: no whole packet is there yet.
            ConnectionError: the broker sent something that is not taken; ``refusal`` says what.
        """
        if not self._ready and not self._fill(receive):
            return b""
        packet = self._ready[0]
        piece = packet[self._position : self._position + size]
        self._position += len(piece)
        if self._position == len(packet):
            self._ready.popleft()
            self._position = 0
        return piece

    def _fill(self, receive: Callable[[int], bytes]) -> bool:
        try:
            data = receive(_CHUNK_BYTES)
        except ssl.SSLError as error:
            self.refusal = f"ended TLS: {tls_alert(error)}"
            raise
        if not data:
            return False
        self._partial += data
        try:
            self._take_whole_packets()
        except _Refused as refused:
            self.refusal = str(refused)
            self._partial.clear()
            self._ready.clear()
            raise ConnectionError(self.refusal) from refused
        if not self._ready:
            raise BlockingIOError
        return True

    def _take_whole_packets(self) -> None:
        start = 0
        while (frame := self._frame_at(start)) is not None:
            body, end = frame
            if end > len(self._partial):
                break
            self._ready.append(self._checked(bytes(self._partial[start:end]), body - start))
            start = end
        del self._partial[:start]

    def _frame_at(self, start: int) -> tuple[int, int] | None:
        """Where the body of a packet begins and where it ends; ``None`` while its header is incomplete."""
        if start >= len(self._partial):
            return None
        kind = self._partial[start] & 0xF0
        self._check_kind(kind)
        found = _variable_integer(self._partial, start + 1)
        if found is None:
            return None
        length, body = found
        limit = self._max_bytes if kind == _PUBLISH else min(_CONTROL_BYTES, self._max_bytes)
        if body + length - start > limit:
            raise _Refused(
                f"a packet of {body + length - start} bytes; at most {limit} are taken (mosquitto: max_packet_size)"
            )
        return body, body + length

    def _check_kind(self, kind: int) -> None:
        if kind not in _EXPECTED and not (kind == _DISCONNECT and self._is_v5):
            raise _Refused(f"a packet of kind {kind:#04x}, which answers nothing")

    def _checked(self, packet: bytes, body: int) -> bytes:
        kind = packet[0] & 0xF0
        if (kind == _CONNACK) != (self.packets == 0):
            raise _Refused("a second CONNACK" if self.packets else "something else before its CONNACK")
        self.packets += 1
        if kind != _PUBLISH:
            self.answered_s = time.monotonic()
            return packet
        if packet[0] & 0x06 > 0x02:
            raise _Refused("a message with QoS 2 or 3, which nobody asked for")
        return _without_properties(packet, body) if self._is_v5 else packet


class _Refused(Exception):
    """Raised for a packet that is not allowed; its text becomes ``PacketGuard.refusal``."""

    def __str__(self) -> str:
        return f"sent {self.args[0]}"


def _without_properties(packet: bytes, body: int) -> bytes:
    """The same PUBLISH with an empty list of properties."""
    topic_bytes = int.from_bytes(packet[body : body + 2], "big")
    start = body + 2 + topic_bytes + (2 if packet[0] & 0x06 else 0)
    found = _variable_integer(packet, start)
    if found is None or found[0] + found[1] > len(packet):
        raise _Refused("a message whose properties are longer than itself")
    length, properties = found
    if not length:
        return packet
    rest = packet[body:start] + b"\0" + packet[properties + length :]
    return packet[:1] + _encoded(len(rest)) + rest


def _variable_integer(data: bytes | bytearray, start: int) -> tuple[int, int] | None:
    """A number of MQTT's 1 to 4 bytes and where it ends; ``None`` when it is cut short."""
    value = 0
    for position in range(4):
        if start + position >= len(data):
            return None
        byte = data[start + position]
        value |= (byte & 0x7F) << (7 * position)
        if not byte & 0x80:
            return value, start + position + 1
    raise _Refused("a length of more than four bytes")


def _encoded(value: int) -> bytes:
    encoded = bytearray()
    while True:
        value, low = divmod(value, 128)
        encoded.append(low | (0x80 if value else 0))
        if not value:
            return bytes(encoded)
