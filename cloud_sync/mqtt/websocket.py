"""MQTT in WebSocket frames (RFC 6455), as a socket: for networks that let only HTTP out.

paho has such a wrapper too. It forgets a packet that the kernel takes only in part, masks byte by byte, keeps whole frames in
memory, and waits without end for a server that answers slowly; so it is not used.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import socket
import ssl
import time
from contextlib import suppress

from edgecv._internal.printable import printable
from edgecv.errors import TransportError

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MAX_ANSWER_BYTES = 16 * 1024
_MAX_CONTROL_BYTES = 125
_MAX_WAITING_BYTES = 64 * 1024  # pongs that the server does not read
_CONTINUATION, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x2, 0x8, 0x9, 0xA
_HINT = "Is that the port and path of MQTT over WebSocket? Write ws://HOST:PORT/PATH; the path is /mqtt unless you say otherwise."


class WebSocket:
    """What paho needs of a socket, on top of one that is connected and, for ``wss``, encrypted.

    ``host`` and ``path`` are those of the request.

    Raises:
        TransportError: the server does not answer as one of MQTT over WebSocket within ``timeout_s``.
        OSError: the connection was lost.
    """

    def __init__(self, sock: socket.socket, *, host: str, path: str, timeout_s: float) -> None:
        self._sock = sock
        self._head = bytearray()  # of the frame that is coming in
        self._left = 0  # bytes of its payload that are still to come
        self._is_control = False
        self._control = bytearray()  # payload of a control frame
        self._early = b""  # what came together with the answer to our request
        self._out = bytearray()
        self._owed = 0  # size of the packet whose frame is in ``_out``
        self._shake_hands(host, path, time.monotonic() + timeout_s)

    def recv(self, size: int) -> bytes:
        """Payload bytes, empty at the end.

        Raises:
            BlockingIOError: none are there yet.
            ConnectionError: the server sent something that no MQTT server sends.
        """
        if not self._left and not self._read_head():
            return b""
        if self._is_control:
            return self._answer_control()
        data = self._receive(min(size, self._left))
        self._left -= len(data)
        return data

    def send(self, data: bytes | bytearray) -> int:
        """Send one packet in one frame.

        Raises:
            BlockingIOError: it is not all out; the next call has to bring the same data.
        """
        if not self._owed:
            self._out += _frame(_BINARY, bytes(data))
            self._owed = len(data)
        self._flush()
        if self._out:
            raise BlockingIOError
        sent, self._owed = self._owed, 0
        return sent

    def pending(self) -> int:
        """Bytes that are here already, and that the system does not know of."""
        return len(self._early) + (self._sock.pending() if isinstance(self._sock, ssl.SSLSocket) else 0)

    def fileno(self) -> int:
        """The descriptor that ``poll`` waits for."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        """Does what it does at a socket."""
        self._sock.setblocking(flag)

    def shutdown(self, how: int) -> None:
        """Does what it does at a socket."""
        self._sock.shutdown(how)

    def close(self) -> None:
        """Does what it does at a socket."""
        self._sock.close()

    def _shake_hands(self, host: str, path: str, deadline_s: float) -> None:
        key = base64.b64encode(secrets.token_bytes(16))
        lines = (
            f"GET {path} HTTP/1.1",
            f"Host: {host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key.decode()}",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Protocol: mqtt",
        )
        self._sock.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode())
        status, headers = self._answer(deadline_s)
        if " 101" not in status[:13]:
            raise TransportError(f"The server does not speak WebSocket: {printable(status, 100)!r}.", _HINT)
        accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest()).decode()
        if headers.get("sec-websocket-accept") != accept or headers.get("sec-websocket-protocol", "mqtt") != "mqtt":
            raise TransportError("The server speaks WebSocket, and not for MQTT.", _HINT)

    def _answer(self, deadline_s: float) -> tuple[str, dict[str, str]]:
        answer = bytearray()
        while b"\r\n\r\n" not in answer:
            self._sock.settimeout(max(deadline_s - time.monotonic(), 0.001))
            piece = self._sock.recv(4096)
            answer += piece
            if not piece or len(answer) > _MAX_ANSWER_BYTES or time.monotonic() > deadline_s:
                raise TransportError("The server does not finish its answer to a WebSocket request.", _HINT)
        head, _, rest = bytes(answer).partition(b"\r\n\r\n")
        self._early = rest
        status, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return status, {name.strip().lower(): value.strip() for name, _, value in pairs}

    def _receive(self, size: int) -> bytes:
        if not self._early:
            return self._sock.recv(size)
        data, self._early = self._early[:size], self._early[size:]
        return data

    def _read_head(self) -> bool:
        """Read the head of the next frame; ``False`` when the connection ended."""
        while len(self._head) < (wanted := _head_bytes(self._head)):
            piece = self._receive(wanted - len(self._head))
            if not piece:
                return False
            self._head += piece
        kind, low = self._head[0] & 0x0F, self._head[1] & 0x7F
        length = low if len(self._head) == 2 else int.from_bytes(self._head[2:], "big")
        self._is_control = kind >= _CLOSE
        allowed = kind in (_CONTINUATION, _BINARY, _CLOSE, _PING, _PONG) and not self._head[0] & 0x70
        if not allowed or self._head[1] & 0x80 or (self._is_control and length > _MAX_CONTROL_BYTES):
            raise ConnectionError("the server sent a WebSocket frame that MQTT does not use")
        self._left = length
        if not self._is_control:
            self._head.clear()
            if not length:
                raise BlockingIOError  # an empty frame
        return True

    def _answer_control(self) -> bytes:
        """Answer a ping, note a close; there is nothing for the reader in either, but the end."""
        while self._left:
            piece = self._receive(self._left)
            if not piece:
                return b""
            self._control += piece
            self._left -= len(piece)
        kind, payload = self._head[0] & 0x0F, bytes(self._control)
        self._head.clear()
        self._control.clear()
        if kind == _CLOSE:
            return b""
        if kind == _PING and len(self._out) < _MAX_WAITING_BYTES:
            self._out += _frame(_PONG, payload)
            with suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self._flush()
        raise BlockingIOError

    def _flush(self) -> None:
        while self._out:
            sent = self._sock.send(self._out)
            del self._out[:sent]


def _head_bytes(head: bytearray) -> int:
    """How long the head of a frame is, as far as what is there tells."""
    if len(head) < 2:
        return 2
    return {126: 4, 127: 10}.get(head[1] & 0x7F, 2)


def _frame(kind: int, payload: bytes) -> bytes:
    """A whole frame, masked as clients must."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | kind, 0x80 | size))
    elif size < 65_536:
        head = bytes((0x80 | kind, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | kind, 0x80 | 127)) + size.to_bytes(8, "big")
    mask = os.urandom(4)
    pad = (mask * (size // 4 + 1))[:size]
    masked = (int.from_bytes(payload, "little") ^ int.from_bytes(pad, "little")).to_bytes(size, "little")
    return head + mask + masked
