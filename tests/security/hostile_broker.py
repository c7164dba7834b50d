"""A broker that does whatever a test tells it: a listening socket and the few packets of MQTT, written by hand."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

CONNACK, PUBLISH, PUBACK, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 0x20, 0x30, 0x40, 0x90, 0xC0, 0xD0, 0xE0
CONNECT, SUBSCRIBE = 0x10, 0x80
SERVER_KEEP_ALIVE, SERVER_REFERENCE, REASON_STRING, RECEIVE_MAXIMUM, USER_PROPERTY, MAXIMUM_PACKET_SIZE = (
    *(0x13, 0x1C, 0x1F, 0x21, 0x26, 0x27),
)


def variable(value: int) -> bytes:
    """MQTT's variable byte integer."""
    encoded = bytearray()
    while True:
        value, low = divmod(value, 128)
        encoded.append(low | (0x80 if value else 0))
        if not value:
            return bytes(encoded)


def packet(first: int, body: bytes = b"") -> bytes:
    return bytes([first]) + variable(len(body)) + body


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(2, "big") + raw


def connack(properties: bytes = b"", *, reason: int = 0, v5: bool = True) -> bytes:
    return packet(CONNACK, bytes([0, reason]) + (variable(len(properties)) + properties if v5 else b""))


def publish(topic: str | bytes, payload: bytes, *, mid: int = 1, qos: int = 1, properties: bytes | None = b"") -> bytes:
    """``properties=None`` for MQTT 3.1.1."""
    head = text(topic) + (mid.to_bytes(2, "big") if qos else b"")
    more = b"" if properties is None else variable(len(properties)) + properties
    return packet(PUBLISH | qos << 1, head + more + payload)


class Peer:
    """One client of the broker."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(10.0)
        self.v5 = True
        self.connect = b""
        self.published: list[tuple[str, bytes]] = []

    def read(self) -> tuple[int, bytes]:
        """The next packet: its first byte and its body."""
        first = self._exactly(1)[0]
        length = shift = 0
        while True:
            byte = self._exactly(1)[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return first, self._exactly(length)

    def send(self, *packets: bytes) -> None:
        self.socket.sendall(b"".join(packets))

    def welcome(self, answer: bytes | None = None, subscribed: bytes | None = None) -> None:
        """Read CONNECT and SUBSCRIBE and answer them."""
        _, self.connect = self.read()
        self.v5 = self.connect[6] == 5
        self.send(answer if answer is not None else connack(v5=self.v5))
        first, body = self.read()
        assert first & 0xF0 == SUBSCRIBE
        reasons = b"\1" if subscribed is None else subscribed
        self.send(packet(SUBACK, body[:2] + (b"\0" if self.v5 else b"") + reasons))

    def serve(self, *, acknowledge: bool = True) -> None:
        """Answer publishes and pings for as long as the client stays."""
        while True:
            first, body = self.read()
            if first & 0xF0 == PUBLISH:
                size = int.from_bytes(body[:2], "big")
                start = 2 + size + 2 + (1 if self.v5 else 0)
                self.published.append((body[2 : 2 + size].decode(), body[start:]))
                if acknowledge:
                    self.send(packet(PUBACK, body[2 + size : 4 + size]))
            elif first == PINGREQ:
                self.send(packet(PINGRESP))
            elif first & 0xF0 == DISCONNECT:
                return

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise ConnectionError("the client is gone")
            data += piece
        return bytes(data)


class HostileBroker:
    """Listens on loopback and gives every client to ``script``, in a thread of its own.

    Args:
        script: What to do with a client; it may raise ``OSError`` when the client is gone.
        receive_buffer: Of the listening socket; small, so that a client notices at once that nobody reads.
    """

    def __init__(self, script: Callable[[Peer], None], *, receive_buffer: int = 0) -> None:
        self._script = script
        self._listener = socket.socket()
        if receive_buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(16)
        self.port = self._listener.getsockname()[1]
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self.peers: list[Peer] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> HostileBroker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in self.peers:
            with suppress(OSError):
                peer.socket.shutdown(socket.SHUT_RDWR)
            peer.socket.close()
        self._thread.join(5.0)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            peer = Peer(connection)
            self.peers.append(peer)
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: Peer) -> None:
        with suppress(OSError, AssertionError):
            self._script(peer)
        with suppress(OSError):
            peer.socket.close()
