"""POST or PUT to one address, with a deadline for the whole of it.

urllib3 sends and keeps the connection. What it does not have is here: a deadline for the whole answer, however slowly its bytes
come, and redirects to the same scheme, host and port only.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urljoin, urlsplit

from edgecv._internal.extras import require
from edgecv._internal.printable import printable
from edgecv._internal.redaction import refuse_doubtful
from edgecv._internal.timing import Backoff
from edgecv.errors import ConfigError, SinkError

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, HTTPConnectionPool

NETWORK_ERRORS = (OSError, ValueError)  # the last: a host or header that nobody can send

_MOST_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 307, 308})  # 303 says: done, go and look elsewhere
_READ_BYTES = 65_536  # of an answer nobody needs; with more the connection is not used again
_LONGEST_RETRY_AFTER_S = 60.0
_LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """What the receiver said; ``retry_after_s`` is when it wants to be asked again, at most 60 s; 0.0 when it did not say."""

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

    ``url`` was checked by ``check_url``; ``context`` holds trusted certificates. Verification cannot be turned off.
    """

    def __init__(self, url: str, headers: Mapping[str, str], context: ssl.SSLContext | None = None) -> None:
        self._urllib3 = require("urllib3", "webhook")
        self._url = url
        self._headers = dict(headers)
        self._connection: Any = None  # the one of the pool
        self._is_interrupted = False
        self._pool = self._open_pool(urlsplit(url), context)

    def post(self, body: bytes, headers: Mapping[str, str], timeout_s: float, method: str = "POST") -> Answer:
        """Send and wait for the answer; redirects within the same scheme, host and port are followed three times.

        Raises ``SinkError`` when it redirects elsewhere or too often, and ``NETWORK_ERRORS``.
        """
        deadline, url = time.monotonic() + timeout_s, self._url
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._exchange(method, url, body, headers, deadline)
            if response.status not in _REDIRECTS:
                return Answer(response.status, retry_after_s(response.headers.get("Retry-After", ""), _now()))
            url = _same_origin(url, response.headers.get("Location", ""))
        raise SinkError(f"{origin(self._url)} redirects more than {_MOST_REDIRECTS} times.", "Give the final address.")

    def interrupt(self) -> None:
        """Let a ``post`` in another thread fail soon, and no other begin."""
        self._is_interrupted = True
        self._cut()

    def _cut(self) -> None:
        sock = getattr(self._connection, "sock", None)
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection for good."""
        self._pool.close()

    def _open_pool(self, parts: SplitResult, context: ssl.SSLContext | None) -> HTTPConnectionPool:
        pool: HTTPConnectionPool
        if parts.scheme == "https":
            trusted = context or ssl.create_default_context()
            pool = self._urllib3.HTTPSConnectionPool(
                parts.hostname, parts.port, ssl_context=trusted, cert_reqs=ssl.CERT_REQUIRED
            )
        else:
            pool = self._urllib3.HTTPConnectionPool(parts.hostname, parts.port)
        make: Any = pool.ConnectionCls

        def remember(*arguments: Any, **options: Any) -> Any:
            self._connection = make(*arguments, **options)
            return self._connection

        pool.ConnectionCls = remember  # type: ignore[assignment]  # urllib3 does no more than call it
        return pool

    def _exchange(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str], deadline: float
    ) -> BaseHTTPResponse:
        """One request; on a connection that the receiver closed in the meantime it is made again at once."""
        was_open = getattr(self._connection, "sock", None) is not None
        try:
            return self._request(method, url, body, headers, deadline)
        except (ConnectionError, ssl.SSLError):
            if not was_open or self._is_interrupted:
                raise
        return self._request(method, url, body, headers, deadline)

    def _request(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str], deadline: float
    ) -> BaseHTTPResponse:
        # urllib3's limits begin anew with every byte that comes: this one ends an answer that drips.
        alarm = threading.Timer(_left_s(deadline), self._cut)
        alarm.daemon = True
        alarm.start()
        try:
            response = self._pool.urlopen(
                method,
                _target(urlsplit(url)),
                body,
                {**self._headers, **headers},
                retries=False,
                redirect=False,
                timeout=self._urllib3.Timeout(total=_left_s(deadline)),
                preload_content=False,
                decode_content=False,
            )
        except self._urllib3.exceptions.HTTPError as error:
            _left_s(deadline)
            raise _cause(error) from error
        else:
            self._read_to_end(response)
        finally:
            alarm.cancel()
        return response

    def _read_to_end(self, response: BaseHTTPResponse) -> None:
        """Read what is worth reading: if it breaks off, its status still counts, and if there is more, the connection goes."""
        with suppress(OSError, self._urllib3.exceptions.HTTPError):
            response.read(_READ_BYTES)
            if response.closed:
                return
        response.close()


def check_url(url: str) -> str:
    """The address, when it is one that can be posted to.

    Raises ``ConfigError`` when it is not ``http`` or ``https``, has no host, or holds a password.
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


def trusted(ca_file: str) -> ssl.SSLContext | None:
    """The certificates of a file; ``None``: those of the system. Raises ``ConfigError``: it holds none."""
    if not ca_file:
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigError(f"{ca_file} holds no certificates to trust.", "Give a PEM file.") from error


def reason_of(error: Exception) -> str:
    """What went wrong in a request, as a sentence without its address."""
    if isinstance(error, TimeoutError):
        return "No answer in time."
    # Some errors of urllib3 and http.client repeat what the receiver sent.
    return f"{printable(getattr(error, 'strerror', None) or str(error) or type(error).__name__)[:_LONGEST_REASON]}."


def hint_for(status: int) -> str:
    """What to do about a status."""
    if status in (401, 403):
        return "Check the secret in token_file, and auth."
    return "The receiver refuses what it gets: look into its log." if status < 500 else "Look into the receiver's log."


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


def _cause(error: BaseException) -> OSError:
    """What the network said; urllib3's own words repeat addresses.

    urllib3 names the cause of some errors, and leaves that of others (a closed connection, TLS) in their context.
    """
    innermost: BaseException = error
    while not isinstance(innermost, OSError) and (deeper := innermost.__cause__ or innermost.__context__):
        innermost = deeper
    return innermost if isinstance(innermost, OSError) else OSError(str(innermost))


def _left_s(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("no answer in time")
    return left_s


def _now() -> datetime:
    return datetime.now(timezone.utc)
