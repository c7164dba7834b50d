"""uvicorn in a thread that ends when it is told to."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgecv.errors import SinkError
from edgecv.pipelines.web.visitors import Limits, visitor_of, who_leaves

log = logging.getLogger("edgecv.pipelines")

_START_S = 10.0
_CLOSE_S = 5.0
_GRACE_S = 1  # for answers in work
LIMITS = Limits(per_visitor=64, in_all=128)
REQUEST_S = 10.0  # for a whole request to arrive, from the end of the answer before it
_ANSWER_S = 30.0  # for an answer to be made and taken; not for the streams of images, which have limits of their own
_REQUEST_BYTES = 4 << 20  # a request that brings more is cut; nothing here needs more than a kilobyte
_WATCH_S = 0.5
_NEW_S = 1.0  # for so long a connection without a request is one that has just come

_ERROR_S = 60.0


class _Seldom(logging.Filter):
    """Lets one record through, and none for a minute after it."""

    def __init__(self) -> None:
        super().__init__()
        self._next_s = 0.0

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - whatever it says
        """Whether it is time again."""
        if time.monotonic() < self._next_s:
            return False
        self._next_s = time.monotonic() + _ERROR_S
        return True


# uvicorn has a line for each odd request: whoever wants to fill a disk would only have to send them. What is left are faults
# of ours, and those seldom: if a request can cause one, many can.
_errors = logging.getLogger("edgecv.pipelines.web.requests")
_errors.setLevel(logging.ERROR)
_errors.addFilter(_Seldom())


class BoundedProtocol(H11Protocol):
    """Limits what strangers hold: places, memory and time."""

    _numbers = itertools.count()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in its base
        """Take a connection; if there are too many, one of them is cut."""
        super().connection_made(transport)
        self.logger, self.access_log = _errors, False
        self.visitor = visitor_of(self.client[0] if self.client else "")
        self.is_cut = False
        self.number = next(self._numbers)
        self._answered = self._received_bytes = 0
        self._phase, self._since_s = self._look(), self.loop.time()
        self._came_s = self._since_s
        others = [other for other in _bounded(self.connections) if other is not self and not other.is_cut]
        leaving = who_leaves(self, sorted(others, key=lambda other: other.number), LIMITS)
        if leaving is not None:
            leaving.cut()

    @property
    def patience(self) -> int | None:
        """Who has sent no whole request goes first, then who does not take the answer, then who has shown no token yet.

        The last are also those who wait after wrong tokens. Whoever has just come goes after them all: the request of an honest
        visitor is on its way.
        """
        if self._look()[0] == "asking":
            return 3 if not self._answered and self.loop.time() - self._came_s < _NEW_S else 0
        state = self.cycle.scope["state"]
        if state.get("endless"):
            return None
        if self.transport.get_write_buffer_size():
            return 1
        return None if state.get("admitted") else 2

    def cut(self) -> None:
        """End it at once; what was not sent yet is forgotten."""
        self.is_cut = True
        self.transport.abort()

    def cut_when_late(self, now_s: float) -> None:
        """End it when its request or the taking of its answer lasts too long."""
        phase = self._look()
        if phase != self._phase:
            self._phase, self._since_s = phase, now_s
        limit_s = REQUEST_S if phase[0] == "asking" else _ANSWER_S
        if now_s - self._since_s > limit_s and not (phase[0] == "answering" and self._is_endless()):
            self.cut()

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request."""
        self._received_bytes += len(data)
        if self._received_bytes > _REQUEST_BYTES:
            self.cut()
        elif not self.is_cut:
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Say that it is no request; where an answer is in work already, only the end of the connection can say it."""
        is_free = self.cycle is None or self.cycle.response_complete
        if is_free and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.cut()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self._answered += 1
        self._received_bytes = 0
        super().on_response_complete()

    def _is_endless(self) -> bool:
        return bool(self.cycle.scope["state"].get("endless"))

    def _look(self) -> tuple[str, int]:
        """What it is at, and how many answers were given: another pair is another thing to wait for."""
        if self.cycle is None or self.cycle.response_complete:
            return ("taking" if self.transport.get_write_buffer_size() else "asking"), self._answered
        return ("asking" if self.conn.their_state is h11.SEND_BODY else "answering"), self._answered


class ServerThread:
    """Serves one application on one socket."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, app: ASGIApp) -> None:
        """Begin to answer. Raises ``SinkError``: it did not come up in time."""
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level=logging.WARNING,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, args=(self._server,), name="edgecv-web", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _START_S
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                self.close()
                raise SinkError("The web server did not start.", "Its log says why; try another port.")
            time.sleep(0.005)

    def abort(self, client: object) -> None:
        """Cut the connection of ``client``; in the thread of the server only."""
        assert self._server is not None
        for connection in _bounded(self._server.server_state.connections):
            if connection.client == client:
                connection.cut()

    def cut_all(self) -> None:
        """Cut all connections that there are now. From any thread."""
        if self._loop is not None and self._server is not None:
            connections = self._server.server_state.connections
            with suppress(RuntimeError):  # the loop has ended, and with it every connection
                self._loop.call_soon_threadsafe(_cut, connections)

    def close(self) -> None:
        """End every answer and the thread; a second call does nothing.

        Raises ``SinkError`` when the thread did not end in time and is left behind.
        """
        if self._server is None or self._thread is None:
            self._listener.close()
            return
        self._server.should_exit = True
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            raise SinkError(f"The web server did not end within {_CLOSE_S:.0f} s.", "Its thread is left behind.")

    def _run(self, server: uvicorn.Server) -> None:
        loop = self._loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(_serve(server, self._listener))
        except Exception:
            log.exception("The web server ended early; the frames go on.")
        finally:
            self._listener.close()
            loop.close()


async def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    watch = asyncio.create_task(_watch(server))
    try:
        await server.serve(sockets=[listener])
    finally:
        watch.cancel()
        await _cut_all(server)


async def _watch(server: uvicorn.Server) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_WATCH_S)
        for connection in _bounded(server.server_state.connections):
            connection.cut_when_late(loop.time())


async def _cut_all(server: uvicorn.Server) -> None:
    """End what the grace did not end: who reads nothing would stay connected."""
    _cut(server.server_state.connections)
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    if rest:
        await asyncio.wait(rest, timeout=1.0)


def _cut(connections: Iterable[Any]) -> None:
    for connection in _bounded(connections):
        connection.cut()


def _bounded(connections: Iterable[Any]) -> list[BoundedProtocol]:
    return [connection for connection in connections if isinstance(connection, BoundedProtocol)]
