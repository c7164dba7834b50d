"""PUT and HEAD at a URL that somebody signed: one request per connection, no redirect, a deadline for the whole.

The standard library is enough for that: no connection is kept, and no proxy of the environment is used.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from edgecv._internal.printable import printable
from edgecv.errors import SyncError, TransportError

_MAX_URL = 4096
_SLICE_BYTES = 64 * 1024
_STEP_S = 20.0  # the longest silence of the other side
_READ_BYTES = 64 * 1024
# What a URL may ask to be sent along; each is signed by S3, or wanted by Azure and Google.
_HEADERS = frozenset(
    {
        "cache-control",
        "content-md5",
        "content-type",
        "if-none-match",
        "x-amz-checksum-sha256",
        "x-amz-content-sha256",
        "x-amz-sdk-checksum-algorithm",
        "x-amz-server-side-encryption",
        "x-goog-content-length-range",
        "x-ms-blob-content-type",
        "x-ms-blob-type",
        "x-ms-version",
    }
)
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,512}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A checked URL. Its path and query may hold secrets, and are in no text form."""

    tls: bool
    host: str
    port: int
    target: str = field(repr=False)  # path and query

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


def check_url(url: str, hosts: Sequence[str]) -> Place:
    """The place of a URL to which a picture may be sent.

    Args:
        url: What came from the other side.
        hosts: Allowed names; ``*.example.com`` stands for all below it. Empty: every host over https.

    Raises:
        SyncError: it is no https URL, nor http to this machine where that is listed; it holds a user, or its host is not listed.
            The text does not quote it.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise SyncError("A URL for a picture cannot be read.") from None  # its text may be quoted in the error
    if len(url) > _MAX_URL or not re.fullmatch(r"[\x21-\x7e]+", url) or not re.fullmatch(r"[0-9a-z.:_-]+", host):
        raise SyncError("A URL for a picture is too long, or holds characters that no URL has.")
    if parts.username is not None or parts.password is not None or parts.fragment or port == 0:
        raise SyncError(f"A URL for a picture, at {host}, holds a user, a fragment or no port.")
    is_listed = any(_fits(host, name.lower()) for name in hosts)
    if parts.scheme not in ("https", "http") or (parts.scheme == "http" and not (is_listed and _is_loopback(host))):
        raise SyncError(
            f"A URL for a picture, at {host}, is not https.", "Plain http is for a listed loopback address."
        )
    if hosts and not is_listed:
        raise SyncError(
            f"A URL for a picture leads to {host}, which url_hosts does not list.", "Add it if it is yours."
        )
    tls = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Place(tls=tls, host=host, port=port or (443 if tls else 80), target=target)


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that a URL asks for; raises ``SyncError`` for one that is not known, or is no header."""
    for name, value in headers.items():
        if name.lower() not in _HEADERS or not _HEADER_VALUE.fullmatch(value):
            raise SyncError(f"A URL for a picture asks for the header {printable(name[:60])!r}, which is not allowed.")
    return {name.lower(): value for name, value in headers.items()}


class Request:
    """One request; ``cut`` ends it from another thread."""

    def __init__(self, place: Place, context: ssl.SSLContext | None = None) -> None:
        step_s = _STEP_S
        self._place = place
        self._is_cut = False
        self._connection: http.client.HTTPConnection
        if place.tls:
            trusted = context or ssl.create_default_context()
            self._connection = http.client.HTTPSConnection(place.host, place.port, timeout=step_s, context=trusted)
        else:
            self._connection = http.client.HTTPConnection(place.host, place.port, timeout=step_s)

    def put(self, data: bytes, headers: Mapping[str, str], timeout_s: float) -> int:
        """Send the bytes; gives the status of the answer.

        Raises:
            TransportError: no answer came in time, or the connection failed.
        """
        own = {"content-type": "image/jpeg", "user-agent": "edgecv", "connection": "close"}
        return self._exchange("PUT", data, {**own, **headers, "content-length": str(len(data))}, timeout_s)[0]

    def head(self, timeout_s: float) -> tuple[int, int]:
        """The status, and how many bytes are there, -1 when that is not said; errors as in ``put``."""
        status, length = self._exchange("HEAD", b"", {"user-agent": "edgecv", "connection": "close"}, timeout_s)
        return status, int(length) if re.fullmatch(r"[0-9]{1,15}", length, re.ASCII) else -1

    def cut(self) -> None:
        """Let the request fail soon."""
        self._is_cut = True
        sock = self._connection.sock
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _exchange(self, method: str, data: bytes, headers: Mapping[str, str], timeout_s: float) -> tuple[int, str]:
        # The limits of a socket begin anew with every byte: this one ends an answer that drips.
        alarm = threading.Timer(timeout_s, self.cut)
        alarm.daemon = True
        alarm.start()
        self._connection.timeout = min(_STEP_S, timeout_s)
        deadline_s = time.monotonic() + timeout_s
        try:
            answer = self._answer(method, data, headers)
            with suppress(OSError, http.client.HTTPException):
                answer.read(_READ_BYTES)
            return answer.status, answer.headers.get("content-length") or ""
        except (OSError, ValueError, http.client.HTTPException) as error:
            late = isinstance(error, TimeoutError) or (self._is_cut and time.monotonic() >= deadline_s)
            # An error of http.client may quote what the other side sent, or the URL.
            why = "no answer in time" if late else printable(_words(error), 200)
            raise TransportError(f"{self._place}: {why}.", "Is it up, and the network?") from None
        finally:
            alarm.cancel()
            self._connection.close()

    def _answer(self, method: str, data: bytes, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        body = self._slices(data) if data else None
        try:
            self._connection.request(method, self._place.target, body=body, headers=dict(headers))
        except (BrokenPipeError, ConnectionResetError):
            # Who refuses a picture need not read it first: the answer may be there.
            if self._connection.sock is None or self._is_cut:
                raise
        return self._connection.getresponse()

    def _slices(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _SLICE_BYTES):
            if self._is_cut:
                raise ConnectionAbortedError("given up")
            yield data[start : start + _SLICE_BYTES]


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__


def _fits(host: str, name: str) -> bool:
    return host == name or (name.startswith("*.") and host.endswith(name[1:]))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
