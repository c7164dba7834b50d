"""uvicorn in a thread that ends when it is told to."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgecv.errors import SinkError

log = logging.getLogger("edgecv.pipelines")

_START_S = 10.0
_CLOSE_S = 5.0
_GRACE_S = 1  # for answers in work
_CONNECTIONS = 64
_FIRST_REQUEST_S = 10.0


class BoundedProtocol(H11Protocol):
    """Limits what strangers hold open: idle connections would use up the files that the program may open."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in its base
        """Take a connection, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > _CONNECTIONS:
            transport.abort()
        else:
            self.loop.call_later(_FIRST_REQUEST_S, self._cut_idle)

    def _cut_idle(self) -> None:
        begun: object = self.cycle
        if begun is None:  # no whole request came yet
            self.transport.abort()


class ServerThread:
    """Serves one application on one socket."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self, app: ASGIApp) -> None:
        """Begin to answer.

        Raises:
            SinkError: it did not come up in time.
        """
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, args=(self._server,), name="edgecv-preview", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _START_S
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                self.close()
                raise SinkError("The preview page did not start.", "Its log says why; try another port.")
            time.sleep(0.005)

    def abort(self, client: object) -> None:
        """Cut the connection of ``client``; in the thread of the server only."""
        assert self._server is not None
        for connection in _connections(self._server):
            if connection.client == client:
                connection.transport.abort()

    def close(self) -> None:
        """End every answer and the thread; a second call does nothing.

        Raises:
            SinkError: the thread did not end in time and is left behind.
        """
        if self._server is None or self._thread is None:
            self._listener.close()
            return
        self._server.should_exit = True
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            raise SinkError(f"The preview page did not end within {_CLOSE_S:.0f} s.", "Its thread is left behind.")

    def _run(self, server: uvicorn.Server) -> None:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(server.serve(sockets=[self._listener]))
            loop.run_until_complete(_cut_all(server))
        except Exception:
            log.exception("The preview page ended early; the frames go on.")
        finally:
            self._listener.close()
            loop.close()


async def _cut_all(server: uvicorn.Server) -> None:
    """End what the grace did not end: who reads nothing would stay connected."""
    for connection in _connections(server):
        connection.transport.abort()
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    if rest:
        await asyncio.wait(rest, timeout=1.0)


def _connections(server: uvicorn.Server) -> list[H11Protocol]:
    return [connection for connection in server.server_state.connections if isinstance(connection, H11Protocol)]
