"""POST to one address, with a deadline for the whole of it.

``http.client`` and no HTTP library: a device needs no further package for it, it follows no redirect and asks no proxy by itself,
and the deadline can cover the answer as a whole; elsewhere a time-out starts anew with every byte.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from edgecv._internal.redaction import refuse_doubtful
from edgecv._internal.timing import Backoff
from edgecv.errors import ConfigError, SinkError

NETWORK_ERRORS = (OSError, http.client.HTTPException, ValueError)  # the last: a host or header that nobody can send

_MOST_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 307, 308})  # 303 says: done, go and look elsewhere
_READ_BYTES = 65_536  # of an answer nobody needs; with more the connection is not used again
_LONGEST_RETRY_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the receiver said.

    Attributes:
        status: HTTP status.
        retry_after_s: When it wants to be asked again, at most 60 s; 0.0 when it did not say.
    """

    status: int
    retry_after_s: float

    @property
    def is_delivered(self) -> bool:
        """Whether the receiver took it."""
        return 200 <= self.status < 300

    @property
    def may_pass(self) -> bool:
        """Whether trying again can help (RFC 9110, RFC 8470 for 425, RFC 6585 for 429)."""
        return self.status >= 500 or self.status in (408, 425, 429)


class Poster:
    """Posts over one connection that is kept open.

    Args:
        url: Checked by ``check_url``.
        headers: Sent with every request.
        context: Certificates to trust; that they are verified cannot be turned off.
    """

    def __init__(self, url: str, headers: Mapping[str, str], context: ssl.SSLContext | None = None) -> None:
        self._url = url
        self._headers = dict(headers)
        self._context = context
        self._connection: http.client.HTTPConnection | None = None

    def post(self, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Answer:
        """Send and wait for the answer; redirects within the same scheme, host and port are followed three times.

        Raises:
            SinkError: it redirects elsewhere, or too often.
            OSError: the network; see ``NETWORK_ERRORS`` for its relatives.
        """
        deadline, url = time.monotonic() + timeout_s, self._url
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._exchange(url, body, headers, deadline)
            if response.status not in _REDIRECTS:
                return Answer(response.status, retry_after_s(response.headers.get("Retry-After", ""), _now()))
            url = _same_origin(url, response.headers.get("Location", ""))
        raise SinkError(f"{origin(self._url)} redirects more than {_MOST_REDIRECTS} times.", "Give the final address.")

    def interrupt(self) -> None:
        """Let a ``post`` in another thread fail soon."""
        connection = self._connection
        sock = None if connection is None else connection.sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; the next ``post`` opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(self, url: str, body: bytes, headers: Mapping[str, str], deadline: float) -> http.client.HTTPResponse:
        """One request; on a connection that the receiver closed in the meantime it is made again at once."""
        was_open = self._connection is not None
        try:
            return self._request(url, body, headers, deadline)
        except (ConnectionError, ssl.SSLError):
            if not was_open:
                raise
        return self._request(url, body, headers, deadline)

    def _request(self, url: str, body: bytes, headers: Mapping[str, str], deadline: float) -> http.client.HTTPResponse:
        try:
            connection = self._connect(deadline)
            connection.request("POST", _target(urlsplit(url)), body, {**self._headers, **headers})
            response = connection.getresponse()
            if response.will_close or not _read_to_end(response):
                self.close()
        except NETWORK_ERRORS:
            self.close()
            raise
        return response

    def _connect(self, deadline: float) -> http.client.HTTPConnection:
        left_s = _left_s(deadline)
        if self._connection is None:
            self._connection = self._new_connection(left_s)
            self._connection.connect()
        self._connection.sock.settimeout(_left_s(deadline))
        # Any: http.client calls it with a socket of which it needs no more than this one has.
        answer: Any = lambda sock, *rest, **more: http.client.HTTPResponse(_timed(sock, deadline), *rest, **more)  # noqa: E731
        self._connection.response_class = answer
        return self._connection

    def _new_connection(self, timeout_s: float) -> http.client.HTTPConnection:
        parts = urlsplit(self._url)
        host = parts.hostname or ""
        if parts.scheme == "https":
            context = self._context or ssl.create_default_context()
            return http.client.HTTPSConnection(host, parts.port, timeout=timeout_s, context=context)
        return http.client.HTTPConnection(host, parts.port, timeout=timeout_s)


class _TimedReader(io.RawIOBase):
    """Reads from a socket until one moment, however slowly the bytes come."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_left_s(self._deadline))
        return self._sock.recv_into(buffer)


class _TimedSocket:
    """What ``HTTPResponse`` needs of a socket."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._reader = _TimedReader(sock, deadline)

    def makefile(self, *_: Any) -> io.BufferedReader:
        return io.BufferedReader(self._reader)


def _timed(sock: socket.socket, deadline: float) -> Any:
    return _TimedSocket(sock, deadline)


def check_url(url: str) -> str:
    """The address, when it is one that can be posted to.

    Raises:
        ConfigError: it is not ``http`` or ``https``, has no host, or holds a password.
    """
    hint = "Write for example: webhook:https://example.com/hook"
    refuse_doubtful(url, "put 'user:password' into a file: ?auth=basic&token_file=FILE")
    try:
        parts = urlsplit(url)
        host, port_fits = parts.hostname, parts.port != 0
        (host or "").encode("idna")
    except ValueError as error:  # its text would repeat the address
        raise ConfigError("The address of the webhook cannot be read.", hint) from error
    if parts.scheme not in ("http", "https") or not host or not port_fits or not re.fullmatch(r"[\x21-\x7e]+", url):
        raise ConfigError("The address of the webhook is no http or https URL.", hint)
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            f"The address of the webhook at {host} holds a user or password, which others can see.",
            "Put 'user:password' into a file: ?auth=basic&token_file=FILE",
        )
    return url


def origin(url: str) -> str:
    """Scheme, host and port: what can be shown, since paths of webhooks are often secrets."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


def backoff_s(attempt: int, first_s: float, share: float) -> float:
    """How long to wait before trying again: doubled each time up to 30 s, of which ``share`` (0 to 1) spreads the upper half.

    Devices that failed together do not come back together.
    """
    return Backoff(initial_s=first_s).delay_s(attempt, share)


def retry_after_s(value: str, now: datetime) -> float:
    """``Retry-After`` in seconds, at most 60; 0.0 for none or one that cannot be read (RFC 9110, section 10.2.3)."""
    if value.strip().isdecimal():
        seconds = float(value)
    else:
        try:
            moment = parsedate_to_datetime(value)
            seconds = (moment.replace(tzinfo=moment.tzinfo or timezone.utc) - now).total_seconds()
        except (TypeError, ValueError, IndexError, OverflowError):
            return 0.0
    return min(_LONGEST_RETRY_AFTER_S, max(0.0, seconds))


def _same_origin(url: str, location: str) -> str:
    """Where a redirect leads; a results' receiver that somebody else names gets nothing."""
    try:
        target = check_url(urljoin(url, location))
    except (ConfigError, ValueError) as error:
        raise SinkError(
            f"{origin(url)} redirects to something that is no address.", "Give the final address."
        ) from error
    if _origin_of(target) != _origin_of(url):
        raise SinkError(f"{origin(url)} redirects to {origin(target)}: not followed.", "Give the final address.")
    return target


def _origin_of(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _read_to_end(response: http.client.HTTPResponse) -> bool:
    """Whether the answer ended within what is worth reading; if it breaks off, its status still counts."""
    try:
        response.read(_READ_BYTES)
    except NETWORK_ERRORS:
        return False
    return response.isclosed()


def _left_s(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("no answer in time")
    return left_s


def _now() -> datetime:
    return datetime.now(timezone.utc)
