"""A real HTTP server in a thread that takes what a webhook sends, and misbehaves when told to."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

DEADLINE_S = 20.0


def write_secret(path: Path, text: str) -> None:
    """A file that only its owner reads."""
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)


Behaviour = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One POST; a behaviour decides what happens to it."""

    protocol_version = "HTTP/1.1"
    timeout = 5.0
    receiver: Receiver

    def do_POST(self) -> None:
        """Ask the next behaviour, or take it."""
        with self.receiver.lock:
            behaviour = self.receiver.behaviours.pop(0) if self.receiver.behaviours else self.receiver.then
            self.receiver.paths.append(self.path)
            self.receiver.keys.append(self.headers["Idempotency-Key"])
            self.receiver.headers.append(dict(self.headers))
        behaviour(self)

    def do_PUT(self) -> None:
        """The same."""
        self.do_POST()

    def read_body(self) -> bytes:
        """All of it; it is kept with its method."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.receiver.lock:
            self.receiver.bodies.append((self.command, body))
        return body

    def answer(self, status: int, **headers: str) -> None:
        """Say no more than a status."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


def take(request: Request) -> None:
    """Keep the documents."""
    documents = json.loads(request.read_body())
    with request.receiver.lock:
        request.receiver.batches.append(documents)
    request.answer(200)


def keep(request: Request) -> None:
    """Keep the body, whatever it is."""
    request.read_body()
    request.answer(200)


def refuse(status: int, **headers: str) -> Behaviour:
    """Answer with ``status``."""

    def behave(request: Request) -> None:
        request.read_body()
        request.answer(status, **headers)

    return behave


def hang(request: Request) -> None:
    """Say nothing until the test is over."""
    request.receiver.over.wait(DEADLINE_S)
    request.close_connection = True


def drip(request: Request) -> None:
    """One byte of an answer at a time, for ever."""
    request.close_connection = True
    try:
        while not request.receiver.over.wait(0.05):
            request.wfile.write(b"H")
    except OSError:
        pass


def cut_body(request: Request) -> None:
    """Hang up in the middle of what is sent."""
    request.rfile.read(10)
    request.close_connection = True


def take_quietly(request: Request) -> None:
    """Keep the documents and answer nothing yet."""
    with request.receiver.lock:
        request.receiver.batches.append(json.loads(request.read_body()))


def cut_answer(request: Request) -> None:
    """Take it, announce a long answer and hang up in the middle of that."""
    take_quietly(request)
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nso far")
    request.close_connection = True


def drip_answer(request: Request) -> None:
    """Take it, and let a long answer come a byte at a time, for ever."""
    take_quietly(request)
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    drip(request)


def long_answer(request: Request) -> None:
    """Take it, and answer with more than anybody reads."""
    take_quietly(request)
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000)


class Receiver:
    """Listens on a free port of this machine while it is open."""

    def __init__(self, *behaviours: Behaviour, tls: ssl.SSLContext | None = None, then: Behaviour = take) -> None:
        self.behaviours = list(behaviours)
        self.then = then
        self.bodies: list[tuple[str, bytes]] = []
        self.batches: list[list[dict[str, Any]]] = []
        self.paths: list[str] = []
        self.keys: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.RLock()
        self.over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundRequest", (Request,), {"receiver": self}))
        self._server.daemon_threads = True
        self._scheme = "http"
        if tls is not None:
            self._scheme = "https"
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Where to post."""
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}/hook"

    @property
    def documents(self) -> list[dict[str, Any]]:
        """Everything that was taken, in order."""
        with self.lock:
            return [document for batch in self.batches for document in batch]

    def wait_for(self, done: Callable[[], bool]) -> None:
        """Until ``done``, at most a while."""
        deadline = time.monotonic() + DEADLINE_S
        while not done():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.01)

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(DEADLINE_S)
