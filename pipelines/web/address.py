"""Where a server listens, and which names for it are believed."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edgecv.errors import ConfigError, SinkError

_BACKLOG = 128  # of a flood the system drops what does not fit, and honest clients would ask again after a second
# Per connection; the kernel doubles it. Left to itself it would grow to megabytes: seconds of old images for a slow watcher.
_SEND_BUFFER_BYTES = 1 << 17
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:@/\[\]]+)(:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An address of this machine, resolved but not yet taken: the host as it was asked for, and what a socket is bound to."""

    host: str
    family: socket.AddressFamily
    sockaddr: tuple[Any, ...]

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        """The address without port and zone."""
        return ipaddress.ip_address(str(self.sockaddr[0]).partition("%")[0])

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.ip.is_loopback

    def url(self, port: int) -> str:
        """What to type into a browser."""
        host = socket.gethostname() if self.ip.is_unspecified else self.host
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def resolve(host: str, port: int) -> Address:
    """Find the address behind ``host``. Raises ``ConfigError``: there is no such port, or the host is unknown."""
    if not 0 <= port <= 65535:
        raise ConfigError(f"There is no port {port}.", "Ports go from 1 to 65535; 0 takes a free one.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"Cannot listen on '{host}': no such address.",
            "Give an address of this machine: 127.0.0.1, or 0.0.0.0 for all of them.",
        ) from error
    return Address(host=host, family=found[0], sockaddr=found[4])


def listen(address: Address) -> socket.socket:
    """Take the address.

    Raises ``SinkError`` when the port is in use or reserved, or the address is not one of this machine.
    """
    listener = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)  # accepted sockets inherit it
        listener.bind(address.sockaddr)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        port = address.sockaddr[1]
        raise SinkError(f"Cannot listen on {address.host} port {port}: {error.strerror}.", _next_step(error)) from error
    return listener


def _next_step(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "Something listens there. Take another port; 0 finds a free port. A page and its metrics share one at the same host."
    if error.errno in (errno.EACCES, errno.EPERM):
        return "Ports below 1024 are for root. Take a higher one, such as 8080."
    return "Give an address of this machine: 127.0.0.1, or 0.0.0.0 for all of them."


class HostNames:
    """Says which ``Host`` headers are believed, so that no foreign name can be pointed at this server (DNS rebinding).

    Loopback names always are. A server on all addresses believes every address in numbers too: rebinding needs a name.
    """

    def __init__(self, address: Address, more: Iterable[str] = ()) -> None:
        """Believe the names of ``address`` and ``more``. Raises ``ConfigError``: one of ``more`` is no host name."""
        self._any_ip = address.ip.is_unspecified
        machine = socket.gethostname()
        own = (machine, f"{machine}.local") if not address.is_loopback else ()
        self._names = {"localhost", _plain(address.host), str(address.ip), *map(_plain, own), *map(_checked, more)}

    def believes(self, header: str) -> bool:
        """Whether a request with this ``Host`` header is meant for this server."""
        found = _HOST.fullmatch(header)
        if found is None:
            return False
        name = _plain(found[1])
        ip = _ip(name)
        return name in self._names or (ip is not None and (self._any_ip or ip.is_loopback))


def split_names(names: str) -> list[str]:
    """Split ``A,B`` into its names, without spaces and empty ones."""
    return [name.strip() for name in names.split(",") if name.strip()]


def _checked(name: str) -> str:
    found = _HOST.fullmatch(name)
    if found is None or found[2]:
        raise ConfigError(f"'{name}' is no host name.", "Write allowed_hosts=NAME,NAME without http:// and port.")
    return _plain(found[1])


def _plain(name: str) -> str:
    bare = name.lower().strip("[]").rstrip(".")
    return str(_ip(bare) or bare)


def _ip(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
