"""One server for one address: the page and the numbers share it when they are asked for at the same host and port."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from typing import Any

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from edgecv.pipelines.web.address import Address, listen
from edgecv.pipelines.web.server import ServerThread

_LEAVE_S = 2.0  # for the answers of a place that closes, where the server stays
_changing = threading.Lock()
_servers: dict[tuple[Any, ...], _Server] = {}  # those of this program, by the address of their socket


class Place:
    """A part of a server, at its ``port``: all answers under some paths."""

    def __init__(self, server: _Server, paths: frozenset[str]) -> None:
        self.paths = paths
        self.app: ASGIApp | None = None
        self.port: int = server.address[1]
        self._server = server
        self._answering = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application of this place answer."""
        app = self.app or PlainTextResponse("Nothing is served here yet.", 503)
        self._answering += 1
        try:
            await app(scope, receive, send)
        finally:
            self._answering -= 1

    def serve(self, app: ASGIApp) -> None:
        """Begin to answer. Raises ``SinkError``: the server did not come up in time."""
        self.app = app
        try:
            self._server.start()
        except Exception:
            self.close()
            raise

    def abort(self, client: object) -> None:
        """Cut the connection of ``client``; in the thread of the server only."""
        self._server.thread.abort(client)

    def close(self) -> None:
        """End the answers of this place, and the server with the last place; a second call does nothing.

        Raises ``SinkError`` when the server did not end in time.
        """
        with _changing:
            is_last = self._server.remove(self)
        if is_last:
            self._server.thread.close()
        elif self._answering:
            self._server.thread.cut_all()
            deadline_s = time.monotonic() + _LEAVE_S
            while self._answering and time.monotonic() < deadline_s:
                time.sleep(0.01)


class _Server:
    """Finds the place that answers a request."""

    def __init__(self, address: Address) -> None:
        listener = listen(address)
        self.address: tuple[Any, ...] = listener.getsockname()
        self.thread = ServerThread(listener)
        self._places: list[Place] = []
        self._starting = threading.Lock()
        self._is_started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a place answer: the one that names the path of the request, else the one for all other paths."""
        places = self._places
        naming = [place for place in places if scope["path"] in place.paths]
        others = [place for place in places if not place.paths]
        for place in [*naming, *others, *places][:1]:
            await place(scope, receive, send)

    def holds(self, paths: frozenset[str]) -> bool:
        """Whether there is a place for these paths already."""
        return any(place.paths == paths for place in self._places)

    def add(self, paths: frozenset[str]) -> Place:
        """Create the place that answers for some paths of this server."""
        place = Place(self, paths)
        self._places = [*self._places, place]
        return place

    def remove(self, place: Place) -> bool:
        """Forget a place; whether it was the last one."""
        if place not in self._places:
            return False
        self._places = [other for other in self._places if other is not place]
        if not self._places:
            del _servers[self.address]
        return not self._places

    def start(self) -> None:
        """Begin to answer, where that has not begun."""
        with self._starting:
            if not self._is_started:
                self.thread.start(self)
                self._is_started = True


def take_place(address: Address, paths: Collection[str] = ()) -> Place:
    """A place at an address of this machine; two with different paths share one server.

    ``paths`` are what the place answers; none for everything that no other place of the server answers.

    Raises ``SinkError`` as ``listen``.
    """
    wanted = frozenset(paths)
    with _changing:
        server = _servers.get(address.sockaddr)
        if server is None or server.holds(wanted):
            server = _Server(address)  # where the address is taken this says so
            _servers[server.address] = server
        return server.add(wanted)
