"""MQTT in WebSocket frames, against a server written by hand that does what it should not."""

from __future__ import annotations

import base64
import hashlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from edgecv.cloud_sync.mqtt.websocket import WebSocket
from edgecv.errors import TransportError

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BINARY, TEXT, CLOSE, PING, PONG, CONTINUATION = 0x82, 0x81, 0x88, 0x89, 0x8A, 0x80


def frame(first: int, payload: bytes = b"", *, says: int | None = None, masked: bool = False) -> bytes:
    """A frame of a server; ``says`` is the length in its head."""
    size = len(payload) if says is None else says
    mask = 0x80 if masked else 0
    if size < 126:
        return bytes((first, mask | size)) + payload
    if size < 65_536:
        return bytes((first, mask | 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, mask | 127)) + size.to_bytes(8, "big") + payload


def read_request(server: socket.socket) -> dict[str, str]:
    text = b""
    while b"\r\n\r\n" not in text:
        text += server.recv(4096)
    first, *lines = text.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {**headers, "request": first}


def welcome(server: socket.socket, more: str = "Sec-WebSocket-Protocol: mqtt\r\n") -> dict[str, str]:
    headers = read_request(server)
    accept = base64.b64encode(hashlib.sha1(headers["sec-websocket-key"].encode() + GUID).digest()).decode()
    answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    server.sendall(f"{answer}Sec-WebSocket-Accept: {accept}\r\n{more}\r\n".encode())
    return headers


@contextmanager
def connected(script: Callable[[socket.socket], object], timeout_s: float = 5.0) -> Iterator[WebSocket]:
    """A client whose server runs ``script`` in a thread."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(10.0)

    def serve() -> None:
        with suppress(OSError):
            script(theirs)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        ours.settimeout(timeout_s)
        with closing(WebSocket(ours, host="broker:80", path="/mqtt", timeout_s=timeout_s)) as client:
            client.setblocking(False)
            yield client
    finally:
        ours.close()
        theirs.close()
        thread.join(5.0)


def read(client: WebSocket, count: int, timeout_s: float = 5.0) -> bytes:
    """``count`` bytes, or what came until the end."""
    data, deadline_s = b"", time.monotonic() + timeout_s
    while len(data) < count and time.monotonic() < deadline_s:
        try:
            piece = client.recv(count - len(data))
        except BlockingIOError:
            time.sleep(0.001)
            continue
        if not piece:
            break
        data += piece
    return data


def unmask(server: socket.socket) -> tuple[int, bytes]:
    """The next frame of the client."""
    first, second = exactly(server, 2)
    assert second & 0x80, "clients must mask"
    size = second & 0x7F
    if size > 125:
        size = int.from_bytes(exactly(server, 2 if size == 126 else 8), "big")
    mask = exactly(server, 4)
    return first, bytes(byte ^ mask[index % 4] for index, byte in enumerate(exactly(server, size)))


def exactly(server: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = server.recv(count - len(data))
        if not piece:
            raise ConnectionError
        data += piece
    return data


def test_the_request_asks_for_mqtt_at_the_path() -> None:
    asked: list[dict[str, str]] = []
    with connected(lambda server: asked.append(welcome(server))):
        pass
    assert asked[0]["request"] == "GET /mqtt HTTP/1.1"
    assert asked[0]["host"] == "broker:80"
    assert asked[0]["sec-websocket-protocol"] == "mqtt"


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_packets_pass_however_the_frames_cut_them(step: int) -> None:
    payload = random.Random(0).randbytes(500)

    def script(server: socket.socket) -> None:
        welcome(server)
        stream = frame(0x02, payload[:100]) + frame(PING, b"are you there") + frame(CONTINUATION, payload[100:300])
        stream += frame(BINARY) + frame(PONG) + frame(BINARY, payload[300:])
        for start in range(0, len(stream), step):
            server.sendall(stream[start : start + step])
        server.recv(1000)

    with connected(script) as client:
        assert read(client, len(payload)) == payload


def test_a_packet_that_the_kernel_takes_in_parts_arrives_whole() -> None:
    packets = [random.Random(n).randbytes(size) for n, size in enumerate((1, 125, 126, 65_535, 65_536, 400_000))]
    got: list[tuple[int, bytes]] = []

    def script(server: socket.socket) -> None:
        welcome(server)
        time.sleep(0.1)
        got.extend(unmask(server) for _ in packets)

    with connected(script) as client:
        for data in packets:
            deadline_s = time.monotonic() + 10.0
            while True:
                try:
                    assert client.send(data) == len(data)
                    break
                except BlockingIOError:
                    assert time.monotonic() < deadline_s
                    time.sleep(0.001)
        time.sleep(0.05)
    assert got == [(BINARY, data) for data in packets]


def test_a_ping_is_answered_with_its_payload() -> None:
    got: list[tuple[int, bytes]] = []

    def script(server: socket.socket) -> None:
        welcome(server)
        server.sendall(frame(PING, b"1234") + frame(BINARY, b"x"))
        got.append(unmask(server))

    with connected(script) as client:
        assert read(client, 1) == b"x"
        time.sleep(0.05)
    assert got == [(PONG, b"1234")]


@pytest.mark.parametrize(
    "wrong",
    [
        frame(TEXT, b"hello"),
        frame(BINARY, b"hello", masked=True),
        frame(PING, b"x" * 126),
        frame(0x83, b"reserved kind"),
        frame(0xC2, b"an extension"),
        frame(0x8B),
    ],
)
def test_a_frame_that_mqtt_does_not_use_ends_the_connection(wrong: bytes) -> None:
    def script(server: socket.socket) -> None:
        welcome(server)
        server.sendall(wrong)
        server.recv(1)

    with connected(script) as client, pytest.raises(ConnectionError, match="MQTT does not use"):
        read(client, 1)


def test_a_close_is_the_end() -> None:
    def script(server: socket.socket) -> None:
        welcome(server)
        server.sendall(frame(BINARY, b"last") + frame(CLOSE, b"\x03\xe8bye"))
        server.recv(1)

    with connected(script) as client:
        assert read(client, 100) == b"last"


def test_a_frame_that_never_ends_is_handed_on_as_it_comes() -> None:
    """Nothing is kept of it, whatever length it claims."""

    def script(server: socket.socket) -> None:
        welcome(server)
        server.sendall(frame(BINARY, b"x" * 100, says=2**62))
        server.recv(1)

    with connected(script) as client:
        assert read(client, 100) == b"x" * 100
        assert len(client._head) == 0


def test_pings_that_nobody_lets_us_answer_take_no_memory() -> None:
    def script(server: socket.socket) -> None:
        welcome(server)
        for _ in range(200):
            server.sendall(frame(PING, b"x" * 125) * 100)

    with connected(script) as client:
        deadline_s = time.monotonic() + 1.0
        with suppress(OSError):
            while time.monotonic() < deadline_s:
                with suppress(BlockingIOError):
                    if not client.recv(1000):
                        break
        assert len(client._out) < 70_000


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: ws://elsewhere/\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: wrong\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"\x20\x02\x00\x00\r\n\r\n",
        b"x" * 20_000,
        b"",
    ],
    ids=lambda answer: repr(answer[:14]),
)
def test_a_server_that_is_none_for_mqtt_is_a_transport_error(answer: bytes) -> None:
    def script(server: socket.socket) -> None:
        read_request(server)
        server.sendall(answer)
        server.shutdown(socket.SHUT_WR)

    with pytest.raises(TransportError) as caught, connected(script):
        pass
    assert "ws://HOST:PORT/PATH" in caught.value.hint
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("more", ["Sec-WebSocket-Protocol: chat\r\n"])
def test_another_protocol_than_mqtt_is_refused(more: str) -> None:
    with pytest.raises(TransportError, match="not for MQTT"), connected(lambda server: welcome(server, more)):
        pass


def test_a_server_that_answers_byte_by_byte_has_one_deadline_for_all() -> None:
    def script(server: socket.socket) -> None:
        read_request(server)
        for _ in range(100):
            server.sendall(b"x")
            time.sleep(0.05)

    began_s = time.monotonic()
    with pytest.raises((TransportError, OSError)), connected(script, timeout_s=0.4):
        pass
    assert time.monotonic() - began_s < 2.0
