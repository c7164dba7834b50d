"""Cameras that attack who looks at them: raw TCP servers on loopback, and what they send. Nothing of it does harm."""

from __future__ import annotations

import contextlib
import io
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from tests.cameras.world import PATIENCE_S, workers

CHUNK = b"\x55" * 65536
MULTIPART = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=cut\r\n\r\n"
_SIZE = slice(5, 9)  # height and width in a start of frame, after marker, length and bits
Script = Callable[[bytes], Iterable[bytes]]


class HostileServer:
    """Answers each request with what a script gives for it, until the other side hangs up.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        requests: What was asked.
    """

    def __init__(self, script: Script) -> None:
        self.requests: list[bytes] = []
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE_S)
        with connection, contextlib.suppress(OSError):
            while request := connection.recv(65536):
                self.requests.append(request)
                answered = False
                for data in self._script(request):
                    connection.sendall(data)
                    answered = True
                if not answered or request.startswith((b"GET", b"POST")):
                    return


@contextlib.contextmanager
def hostile(script: Script) -> Iterator[HostileServer]:
    """A server that listens, gone at the end."""
    server = HostileServer(script)
    try:
        yield server
    finally:
        server.close()


def http(*parts: bytes, kind: str = "", status: str = "200 OK", head: str = "") -> Script:
    """The same HTTP answer to everything."""
    typed = f"Content-Type: {kind}\r\n" if kind else ""
    start = f"HTTP/1.0 {status}\r\n{typed}{head}\r\n".encode()
    return lambda _: (start, *parts)


def without_end(start: bytes, part: bytes = CHUNK) -> Script:
    """An answer that never ends."""

    def script(_: bytes) -> Iterator[bytes]:
        yield start
        while True:
            yield part

    return script


def part(data: bytes) -> bytes:
    """A JPEG as a camera sends it."""
    return f"--cut\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data + b"\r\n"


def jpeg(level: int = 90, size_wh: tuple[int, int] = (64, 48)) -> bytes:
    """An honest image of one grey."""
    image = np.full((size_wh[1], size_wh[0], 3), level, np.uint8)
    encoded: bytes = cv2.imencode(".jpg", image)[1].tobytes()
    return encoded


def jpeg_that_claims(width: int, height: int) -> bytes:
    """A small image whose header says that it is larger: what a decoder takes memory for."""
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0")
    data[at + _SIZE.start : at + _SIZE.stop] = struct.pack(">HH", height, width)
    return bytes(data)


def vp8_that_grows(width: int, height: int, honest: int = 10) -> bytes:
    """A live stream (Matroska) of 64 x 48 whose later key frames say that they are larger."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska", options={"live": "1"}) as container:
        stream = container.add_stream("libvpx", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="bgr24")
        key = b"".join(bytes(packet) for packet in (*stream.encode(frame), *stream.encode()))
        grown = key[:6] + struct.pack("<HH", width, height) + key[10:]
        for number, data in enumerate([*[key] * honest, *[grown] * 10]):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, number * 100, number * 100, True
            packet.time_base = Fraction(1, 1000)
            container.mux(packet)
    return file.getvalue()


def rtsp(*answers: Callable[[bytes], bytes]) -> Script:
    """Answers by method, in the order OPTIONS, DESCRIBE, all others."""

    def script(request: bytes) -> Iterator[bytes]:
        sequence = re.search(rb"CSeq: (\d+)", request)
        head = b"CSeq: " + (sequence[1] if sequence else b"0") + b"\r\n"
        number = min(
            (b"OPTIONS", b"DESCRIBE").index(request.split()[0])
            if request.split()[0] in (b"OPTIONS", b"DESCRIBE")
            else 2,
            len(answers) - 1,
        )
        yield answers[number](head)

    return script


def rtsp_ok(head: bytes) -> bytes:
    """Fine, go on."""
    return b"RTSP/1.0 200 OK\r\n" + head + b"Public: OPTIONS, DESCRIBE, SETUP, PLAY\r\n\r\n"


def rtsp_redirect(location: str) -> Callable[[bytes], bytes]:
    """Look elsewhere."""
    return lambda head: b"RTSP/1.0 302 Moved\r\n" + head + f"Location: {location}\r\n\r\n".encode()


class WorkersMemory:
    """The most that worker processes of this process took while it was watched, in MB."""

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> WorkersMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(PATIENCE_S)

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            for pid in workers():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    text = Path(f"/proc/{pid}/status").read_text()
                    self.peak_mb = max(self.peak_mb, int(text.partition("VmHWM:")[2].split()[0]) / 1024)
