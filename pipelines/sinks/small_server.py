"""An HTTP server for a few short answers, bounded in threads and time."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from edgecv.errors import ConfigError

Environment = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]
Application = Callable[[Environment, StartResponse], Iterable[bytes]]

_READ_TIMEOUT_S = 5.0  # for each piece of a request
_AT_ONCE = 8
_POLL_S = 0.1  # how soon `stop` is seen


class _Quiet(WSGIRequestHandler):
    """No line on stderr per request, and no waiting for a client that says nothing."""

    timeout = _READ_TIMEOUT_S

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing."""

    def address_string(self) -> str:
        """Without asking the name service, which may take seconds."""
        return str(self.client_address[0])


class SmallServer(ThreadingMixIn, WSGIServer):
    """One thread per request; when eight are open, the oldest is hung up on, so that nobody can keep others out."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 32

    def __init__(self, address: tuple[str, int], family: socket.AddressFamily) -> None:
        self.address_family = family
        self._open: dict[socket.socket, None] = {}  # oldest first
        super().__init__(address, _Quiet)

    def server_bind(self) -> None:
        """As the library does, without asking the name service for our own name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread."""
        for oldest in list(self._open)[: 1 - _AT_ONCE]:
            _hang_up(oldest)
        self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a request that was answered, or never will be."""
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
        for request in list(self._open):
            _hang_up(request)


def _hang_up(request: socket.socket) -> None:
    """Wake the thread that waits for this client; it closes the socket."""
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


def open_server(host: str, port: int, application: Application) -> SmallServer:
    """Take a port.

    Raises:
        ConfigError: it is in use or not allowed, or the host is not of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        server = SmallServer((str(address[0]), int(address[1])), family)
    except OSError as error:
        raise ConfigError(
            f"Nobody can listen on {host} port {port}: {error.strerror}.",
            "Choose a free port above 1023, such as 9101, and a host of this machine (0.0.0.0 is all of them).",
        ) from error
    server.set_app(application)
    return server
