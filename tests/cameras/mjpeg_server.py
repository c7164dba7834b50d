"""A camera that speaks MJPEG over HTTP, on the standard library."""

from __future__ import annotations

import base64
import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

_INTERVAL_S = 0.04


class MjpegServer:
    """``/video`` is a stream, ``/secret`` wants a password, ``/page`` is no video, ``/short`` ends after ten images.

    Attributes:
        size_wh: Of the next image.
        paused: Whether the streams hold still.
        seen: The paths that were asked for, with their queries.
    """

    def __init__(self) -> None:
        self.size_wh = (64, 48)
        self.paused = False
        self.stopping = False
        self.seen: list[str] = []
        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.httpd.daemon_threads = True
        self.host = f"127.0.0.1:{self.httpd.server_address[1]}"

    def image(self, number: int) -> bytes:
        """A JPEG of the size of this moment."""
        width, height = self.size_wh
        return cv2.imencode(".jpg", np.full((height, width, 3), number * 7 % 256, np.uint8))[1].tobytes()


@contextlib.contextmanager
def mjpeg_server() -> Iterator[MjpegServer]:
    """A running server, gone at the end."""
    server = MjpegServer()
    thread = threading.Thread(target=server.httpd.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopping = True
        server.httpd.shutdown()
        server.httpd.server_close()
        thread.join(10)


def _handler(camera: MjpegServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            camera.seen.append(self.path)
            path = self.path.partition("?")[0]
            if path == "/secret" and self.headers.get("Authorization") != _basic("me", "p/ss?w@rd9"):
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                self.end_headers()
            elif path == "/page":
                self._answer("text/html")
                self.wfile.write(b"<html>" + b"no camera here " * 1000)
            elif path in ("/video", "/secret", "/short"):
                self._answer("multipart/x-mixed-replace; boundary=cut")
                with contextlib.suppress(OSError):
                    self._stream(10 if path == "/short" else 10**9)
            else:
                self.send_error(404)

        def _answer(self, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()

        def _stream(self, count: int) -> None:
            for number in range(count):
                while camera.paused and not camera.stopping:
                    time.sleep(_INTERVAL_S)
                if camera.stopping:
                    return
                data = camera.image(number)
                head = f"--cut\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")
                time.sleep(_INTERVAL_S)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
