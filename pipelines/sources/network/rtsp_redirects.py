"""A camera that speaks RTSP must not send us to another host.

libav follows every redirect (status 3xx) and has no option against it. It says so in its log just before it connects, in the same
thread: there the process loses, for a moment, the right to open a socket. Afterwards the peers of all new sockets are looked at.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgecv._internal.printable import printable
from edgecv.pipelines.sources.live import Unrecoverable
from edgecv.pipelines.sources.network.address import PORTS

_SAYING = "Redirecting to "
_REFUSED = re.compile(r"Protocol '([^']*)' not on whitelist")
# Where libav would go: nothing but a host and a port may stand before the path, so that both of us read the same.
_PLACE = re.compile(r"(rtsps?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::(\d{1,5}))?(?:/|$)")
_LONGEST_PLACE = 60
_DESCRIPTORS = Path("/proc/self/fd")


@contextlib.contextmanager
def no_redirect(av: Any, name: str, host: str, port: int) -> Iterator[None]:
    """Open an RTSP stream inside; a redirect to another host or port raises ``Unrecoverable`` there, before it is followed."""
    guard, log, limit = _Guard(host, port), logging.getLogger("libav"), resource.getrlimit(resource.RLIMIT_NOFILE)
    level, propagate, before = log.level, log.propagate, _peers()
    log.addHandler(guard)
    log.setLevel(logging.INFO)
    log.propagate = False
    av.logging.set_skip_repeated(False)
    av.logging.set_level(av.logging.INFO)
    try:
        yield
    except Exception as error:
        if guard.place:
            raise _elsewhere(name, guard.place) from error
        raise
    finally:
        av.logging.set_level(None)
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        log.removeHandler(guard)
        log.setLevel(level)
        log.propagate = propagate
    _check_peers(name, host, port, _peers() - before)


class _Guard(logging.Handler):
    """Hears that libav is about to follow a redirect, and takes the sockets away."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._here = (host.strip("[]").lower(), port)
        self.place = ""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if (refused := _REFUSED.match(text)) is not None:  # by libav itself: another protocol than RTSP
            self.place = f"{refused[1]}://"
        _, found, place = text.partition(_SAYING)
        if not found or self._is_here(place):
            return
        self.place = place
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    def _is_here(self, place: str) -> bool:
        found = _PLACE.match(place)
        if found is None:
            return False
        return (found[2].strip("[]").lower(), int(found[3] or PORTS[found[1]])) == self._here


def _elsewhere(name: str, place: str) -> Unrecoverable:
    where = printable(place.rpartition("@")[2])[:_LONGEST_PLACE]
    return Unrecoverable(
        f"{name} redirects to {where}: not followed.",
        "If you trust that address, give it as the source.",
        code="refused",
    )


def _check_peers(name: str, host: str, port: int, peers: set[tuple[str, int]]) -> None:
    """The last word: with whom a connection was made, whatever libav said."""
    if not peers:
        return
    known = {info[4][0] for info in socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)}
    for address, at in peers:
        if at != port or address not in known:
            raise _elsewhere(name, f"{address}:{at}")


def _peers() -> set[tuple[str, int]]:
    """Whom the TCP sockets of this process lead to; nobody where the system does not say."""
    found = set()
    for entry in _DESCRIPTORS.iterdir() if _DESCRIPTORS.is_dir() else ():
        with contextlib.suppress(OSError, ValueError):
            if not str(entry.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as sock:
                if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM:
                    address, port = sock.getpeername()[:2]
                    found.add((address.removeprefix("::ffff:"), port))
    return found
