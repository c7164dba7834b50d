"""An HTTP server for a few short answers, bounded in threads, memory and time."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from http.client import LineTooLong
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from edgecv.errors import ConfigError
from edgecv.pipelines.web.address import Address
from edgecv.pipelines.web.visitors import Limits, visitor_of, who_leaves

Environment = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]
Application = Callable[[Environment, StartResponse], Iterable[bytes]]

LIMITS = Limits(per_visitor=8, in_all=16)
REQUEST_S = 10.0  # for a request to arrive and its answer to be taken
_PIECE_S = 5.0  # for each piece of them
_HEAD_BYTES = 16_384
_POLL_S = 0.1  # how soon `stop` is seen


@dataclass(slots=True, eq=False)
class _Connection:
    """A connection that is open: a ``Guest`` of ``who_leaves``."""

    socket: socket.socket
    visitor: str
    began_s: float
    is_answered: bool = False

    @property
    def patience(self) -> int | None:
        """Who has sent no whole request may go; an answer takes its thread anyway."""
        return None if self.is_answered else 0

    def hang_up(self) -> None:
        """Wake the thread that waits for this client; it closes the socket."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


class _Head:
    """What a client sends, up to the length that a request may have."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = _HEAD_BYTES

    def readline(self, limit: int = -1) -> bytes:
        """The next line; ``LineTooLong`` when there were too many bytes."""
        line: bytes = self._file.readline(self._left + 1 if limit < 0 else min(limit, self._left + 1))
        self._left -= len(line)
        if self._left < 0:
            raise LineTooLong("request")
        return line

    def close(self) -> None:
        """As a file."""
        self._file.close()


class _Quiet(WSGIRequestHandler):
    """No line on stderr per request, and no waiting for a client that says nothing."""

    timeout = _PIECE_S
    server: SmallServer

    def setup(self) -> None:
        """Read no more than a request may have."""
        super().setup()
        self.rfile: Any = _Head(self.rfile)

    def handle(self) -> None:
        """Answer one request."""
        try:
            super().handle()
        except LineTooLong:  # in the first line; the library answers those in the rest itself
            self.requestline, self.request_version, self.command = "", self.protocol_version, ""
            self.send_error(431)

    def get_environ(self) -> Environment:
        """As the library does; the request is whole now."""
        self.server.begin_answer(self.request)
        environment: Environment = super().get_environ()
        return environment

    def get_stderr(self) -> Any:
        """Nowhere: a client that went away while it was answered is no news."""
        return io.StringIO()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing."""

    def address_string(self) -> str:
        """Without asking the name service, which may take seconds."""
        return str(self.client_address[0])


class SmallServer(ThreadingMixIn, WSGIServer):
    """One thread and one request per connection; ``who_leaves`` says who is hung up on, so that nobody keeps others out."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = (
        128  # of a flood the system drops what does not fit, and honest clients would ask again after a second
    )

    def __init__(self, address: Address) -> None:
        self.address_family = address.family
        self._changing = threading.Lock()
        self._open: dict[socket.socket, _Connection] = {}  # oldest first
        super().__init__(address.sockaddr, _Quiet)

    def server_bind(self) -> None:
        """As the library does, without asking the name service for our own name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread; if there are too many, a client is hung up on."""
        newcomer = _Connection(request, visitor_of(str(client_address[0])), time.monotonic())
        with self._changing:
            leaving = who_leaves(newcomer, list(self._open.values()), LIMITS)
            if leaving is not newcomer:
                self._open[request] = newcomer
            if leaving is not None:
                self._open.pop(leaving.socket, None)  # its thread ends now: it waits for nothing but the client
                leaving.hang_up()
        if leaving is newcomer:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def begin_answer(self, request: Any) -> None:
        """The request of this connection is whole."""
        with self._changing:
            connection = self._open.get(request)
            if connection is not None:
                connection.is_answered = True

    def service_actions(self) -> None:
        """Hang up on who takes too long; called ten times a second."""
        late_s = time.monotonic() - REQUEST_S
        with self._changing:
            for connection in self._open.values():
                if connection.began_s < late_s:
                    connection.hang_up()

    def shutdown_request(self, request: Any) -> None:
        """End a request that was answered, or never will be."""
        with self._changing:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""

    def serve(self) -> None:
        """Answer until ``stop``."""
        self.serve_forever(_POLL_S)

    def stop(self, running: bool) -> None:
        """Give the port back and hang up on whoever is still there; ``running`` says that ``serve`` was called."""
        if running:
            self.shutdown()
        self.server_close()
        with self._changing:
            for connection in self._open.values():
                connection.hang_up()


def open_server(address: Address, application: Application) -> SmallServer:
    """Take a port.

    Raises:
        ConfigError: it is in use or not allowed, or the host is not of this machine.
    """
    try:
        server = SmallServer(address)
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {address.host} port {address.sockaddr[1]}: {error.strerror}.",
            "Choose a free port above 1023, such as 9101, and a host of this machine (0.0.0.0 is all of them).",
        ) from error
    server.set_app(application)
    return server
