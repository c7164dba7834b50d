"""One GET of a camera, as a stream of bytes.

``http.client`` and not libav: it follows redirects to any host, takes playlists for streams, and reads what never ends.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
import secrets
import socket
import ssl
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from edgecv._internal.printable import printable
from edgecv._internal.redaction import redact
from edgecv.errors import SourceError
from edgecv.pipelines.sources.live import Unrecoverable
from edgecv.pipelines.sources.network.address import PORTS
from edgecv.version import __version__

HTTP_ERRORS = (OSError, http.client.HTTPException, ValueError)  # the last: a host or a header that nobody can send
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_FIRST_BYTES = 512  # enough to know an image from a page
_IMAGE_KINDS = frozenset({"image/jpeg", "image/jpg", "image/pjpeg"})
_JPEG_KINDS = _IMAGE_KINDS | {"video/x-motion-jpeg", "video/x-jpeg", "video/mjpeg"}
_PAGES = ("text/", "application/json", "application/xml", "application/vnd.apple.mpegurl", "application/x-mpegurl")
_PLAYLISTS = ("audio/mpegurl", "audio/x-mpegurl", "application/dash+xml", "application/sdp", "video/vnd.mpeg.dash.mpd")
_LONGEST_KIND = 60
_ALGORITHMS = {"md5": "md5", "sha-256": "sha256"}  # of RFC 7616; each also as "-sess"


@dataclass(frozen=True, slots=True)
class Login:
    """User and password, as they are meant, not as a URL writes them; empty for none."""

    user: str = ""
    password: str = ""


class HttpStream:
    """What a camera answers.

    Redirects are followed within the same scheme, host and port only: a camera must not send us, or its password,
    elsewhere. Proxies of the environment are not used.

    Attributes:
        is_jpeg: Whether it is a stream of JPEG images, by its type or by its first bytes.
        is_image: Whether its type is that of an image: it may be one alone.
    """

    def __init__(self, url: str, name: str, timeout_s: float) -> None:
        """Ask, and read the head of the answer.

        ``url`` holds user and password, percent-encoded; ``name`` is for errors, without them; the camera may be silent for
        ``timeout_s``.

        Raises:
            SourceError: it refuses, redirects elsewhere or sends a page; the ``code`` says which.
            OSError: the network; see ``HTTP_ERRORS`` for its relatives.
        """
        parts = urlsplit(url)
        self._name = name
        self._login = Login(_plain(parts.username), _plain(parts.password))
        self._connection = _connection(parts, timeout_s)
        try:
            self._answer = self._ask(f"{parts.scheme}://{_host(parts)}", _target(url))
            kind = self._kind()
            self._first = (
                b"" if kind.startswith("multipart/") or kind in _JPEG_KINDS else self._answer.read1(_FIRST_BYTES)
            )
        except BaseException:
            self._connection.close()
            raise
        self.is_image = kind in _IMAGE_KINDS
        self.is_jpeg = not self._first or self._first.startswith((b"\xff\xd8\xff", b"--", b"\r\n--"))

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes, as soon as there are any; none at the end."""
        if self._first:
            first, self._first = self._first[:size], self._first[size:]
            return first
        return self._answer.read1(size)

    def close(self) -> None:
        """Hang up; a second call does nothing."""
        self._answer.close()
        self._connection.close()

    def _ask(self, origin: str, target: str) -> http.client.HTTPResponse:
        """The answer that is none of: show your password, look elsewhere, go away."""
        header, asked = "", False
        for _ in range(_MOST_REDIRECTS + 2):
            answer = self._request(target, header)
            if answer.status == http.client.UNAUTHORIZED and self._login.user and not asked:
                header, asked = authorization(answer.headers.get_all("WWW-Authenticate", []), self._login, target), True
            elif answer.status in _REDIRECTS:
                target = self._redirected(origin, target, answer.headers.get("Location", ""))
                header, asked = "", False
            elif answer.status == http.client.OK:
                return answer
            else:
                raise self._refusal(answer.status)
            answer.close()
            self._connection.close()
        raise SourceError(
            f"{self._name} redirects more than {_MOST_REDIRECTS} times.", "Give the final address.", code="refused"
        )

    def _request(self, target: str, header: str) -> http.client.HTTPResponse:
        headers = {"User-Agent": f"edgecv/{__version__}", "Accept": "*/*"}
        self._connection.request("GET", target, headers={**headers, "Authorization": header} if header else headers)
        return self._connection.getresponse()

    def _redirected(self, origin: str, target: str, location: str) -> str:
        """Where a redirect leads, if that is the same camera."""
        try:
            url = urljoin(origin + target, location)
            parts = urlsplit(url)
            is_here = f"{parts.scheme}://{_host(parts)}".lower() == origin.lower() and parts.username is None
        except ValueError:
            is_here, parts = False, urlsplit("")
        if not location or not is_here:
            where = printable(redact(f"{parts.scheme}://{parts.netloc}"))[:_LONGEST_KIND]
            raise Unrecoverable(
                f"{self._name} redirects to {where}: not followed.",
                "If you trust that address, give it as the source.",
                code="refused",
            )
        return _target(url)

    def _refusal(self, status: int) -> SourceError:
        if status in (401, 403):
            return Unrecoverable(f"{self._name} answers with HTTP {status}.", "Check user and password.", code="auth")
        if status == http.client.NOT_FOUND:
            hint = "The camera has no such stream: check the path of the URL."
            return SourceError(f"{self._name} answers with HTTP {status}.", hint, code="missing")
        hint = "The camera refuses: too many viewers?"
        return SourceError(f"{self._name} answers with HTTP {status}.", hint, code="refused")

    def _kind(self) -> str:
        """The type of what comes, without its parameters. Raises ``SourceError``: a page or a playlist."""
        kind = printable(self._answer.headers.get("Content-Type", "").partition(";")[0].strip().lower())[:_LONGEST_KIND]
        if kind.startswith((*_PAGES, *_PLAYLISTS)) and kind != "text/plain":  # some cameras call everything plain text
            raise SourceError(
                f"{self._name} sends '{kind}', no video.",
                "Does the path lead to the stream itself? Pages, playlists (HLS, DASH) and SDP are not opened.",
                code="codec",
            )
        return kind


class OnlyRead:
    """A file for PyAV that can do no more than read: a stream has no length and goes in one direction.

    After an error it is at its end: PyAV raises the first and would print the others.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._is_broken = False

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; errors as of what it reads."""
        if self._is_broken:
            return b""
        try:
            return self._read(size)
        except BaseException:
            self._is_broken = True
            raise


def authorization(challenges: list[str], login: Login, target: str) -> str:
    """The header that answers one of the camera's challenges: Digest (RFC 7616) before Basic (RFC 7617); else nothing."""
    # As on the wire: http.client takes each byte for a character, and so does this.
    user, password = (text.encode(errors="surrogateescape").decode("latin-1") for text in (login.user, login.password))
    by_scheme = [(scheme.lower(), rest) for scheme, _, rest in (text.strip().partition(" ") for text in challenges)]
    for scheme, rest in by_scheme:
        if scheme == "digest" and (answer := _digest(rest, user, password, target)):
            return answer
    if any(scheme == "basic" for scheme, _ in by_scheme):
        return "Basic " + base64.b64encode(f"{user}:{password}".encode("latin-1")).decode()
    return ""


def _digest(challenge: str, user: str, password: str, target: str) -> str:
    """The answer, or nothing for an algorithm that nobody uses."""
    pairs = (item.partition("=") for item in urllib.request.parse_http_list(re.sub(r"[\r\n]", "", challenge)))
    said = {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}
    algorithm = said.get("algorithm", "MD5")
    base, of_session = algorithm.lower().removesuffix("-sess"), algorithm.lower().endswith("-sess")
    if base not in _ALGORITHMS:
        return ""
    realm, nonce, cnonce = said.get("realm", ""), said.get("nonce", ""), secrets.token_hex(8)
    secret = _hashed(base, user, realm, password)
    if of_session:
        secret = _hashed(base, secret, nonce, cnonce)
    fields = {"username": user, "realm": realm, "nonce": nonce, "uri": target}
    has_quality = "auth" in said.get("qop", "").replace(" ", "").split(",")
    between = ("00000001", cnonce, "auth") if has_quality else ()
    fields["response"] = _hashed(base, secret, nonce, *between, _hashed(base, "GET", target))
    if "opaque" in said:
        fields["opaque"] = said["opaque"]
    if has_quality or of_session:
        fields["cnonce"] = cnonce
    quoted = ", ".join('{}="{}"'.format(name, value.replace('"', '\\"')) for name, value in fields.items())
    return f"Digest {quoted}, algorithm={algorithm}" + (", qop=auth, nc=00000001" if has_quality else "")


def _hashed(base: str, *texts: str) -> str:
    return hashlib.new(_ALGORITHMS[base], ":".join(texts).encode("latin-1"), usedforsecurity=False).hexdigest()


def _plain(text: str | None) -> str:
    return unquote(text or "", errors="surrogateescape")  # a password may hold bytes that are no UTF-8


def _connection(parts: SplitResult, timeout_s: float) -> http.client.HTTPConnection:
    host = parts.hostname or ""
    if parts.scheme == "http":
        return http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # cameras sign their own
    context.set_ciphers("DEFAULT:@SECLEVEL=1")  # old ones with short keys
    return http.client.HTTPSConnection(host, parts.port, timeout=timeout_s, context=context)


def _host(parts: SplitResult) -> str:
    """Host and port, always with the port."""
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or PORTS.get(parts.scheme, 0)}"


def _target(url: str) -> str:
    """What follows the host, as cameras get it: encoded where a request could not be written else."""
    rest = url.partition("://")[2]
    at = min((place for place in map(rest.find, "/?") if place >= 0), default=len(rest))
    target = rest[at:] if rest[at : at + 1] == "/" else f"/{rest[at:]}"
    return quote(target, safe="%!#$&'()*+,/:;=?@[]\\^`{|}~\"<>-._", errors="surrogateescape")


# What of the network went wrong, with its class and next step: the first that fits.
_REASONS: tuple[tuple[tuple[type[Exception], ...], str, str], ...] = (
    ((TimeoutError,), "timeout", "Nobody answers there. Is it switched on, and in this network?"),
    ((ConnectionRefusedError,), "refused", "Nothing listens there. Is the service on, and the port right?"),
    (
        (ConnectionError, http.client.IncompleteRead),
        "eof",
        "The camera hung up: it restarts, or serves too many viewers.",
    ),
    ((ssl.SSLError,), "refused", "The encryption fails. Try http://, or another port."),
    ((OSError,), "refused", "Nothing can be reached there. Check address and port, cable and route."),
)


def why(error: Exception, host: str) -> tuple[str, str]:
    """Class and next step of an error of the network."""
    if isinstance(error, socket.gaierror | UnicodeError):
        return "dns", f"'{host}' is not known. Check its spelling and the DNS server, or give the IP address."
    for kinds, code, hint in _REASONS:
        if isinstance(error, kinds):
            return code, hint
    return "codec", "Something answers there, but not as a camera does. Check the port."
