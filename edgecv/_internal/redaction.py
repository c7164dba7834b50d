"""Credentials in URLs and pipelines: where they stand, and texts without them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote, unquote, unquote_plus

from edgecv._internal.printable import printable
from edgecv.errors import ConfigError

SHOWN_LENGTH = 60  # of a long text that is cut; it stands in every result
# What names a secret, in the query of a camera's URL, in its path (``/;stok=``), and as a property of a pipeline:
# these anywhere in the name ...
_SECRET_PART = re.compile(
    "pass|pwd|psw|psk|token|stok|secret|key|auth|bearer|jwt|hmac|sig|digest|nonce|user|usr|login|cred|sess|cookie|ticket|otp"
)
_SECRET_ENDS = ("sid", "code")  # ... these at its end: "codec" and "sidecar" are none ...
_SECRET_NAMES = frozenset({"pw", "pin", "sas", "hash", "account", "headers"})  # ... and these as a word of their own
_NAME_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_PARAMETER = re.compile(r"([?&#;/])([^=?&#;/\s]+)=([^&#\s]*)")
_NAME = re.compile(r"(?:^|[?&#;/])([^=?&#;/\s]+)=")
_USERINFO = re.compile(r"://[^/?#\s]*@")
_PROPERTY = re.compile(r"""((?:^|\s)([\w:-]+)\s*=\s*)("[^"]*"|'[^']*'|\S+)""")
_LONG_WORD = re.compile(
    r"\S{2048,}"
)  # no camera's URL is as long: it is cut before its query instead of looked through
_PATH = re.compile(r"[^?#;=]*")
_MOST_ENCODINGS = 3  # percent signs around percent signs: some cameras' pages do that
_URL = re.compile(r"""[A-Za-z][A-Za-z0-9+.-]*://[^\s"']+""")
_HOST = re.compile(r"(\[[^\]]*\]|[^:@]*)(:\d*)?")
_HOST_PORT = re.compile(r"[^:@\[\]]*:\d*")
_SHORTEST_SECRET = 3  # a shorter one cannot be found in a text without making it unreadable


def redact(uri: str) -> str:
    """The URI without user and password, and with ``***`` for secrets in its query and path.

    Passwords with unescaped ``/ ? @`` are common in camera URLs: when in doubt more is removed than needed.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return _without_secrets(uri)
    if "@" in rest and not _HOST.fullmatch(_authority(rest)):
        rest = rest.rpartition("@")[2]
    elif _is_doubtful(first := re.split(r"\s", rest, maxsplit=1)[0]):
        rest = first.rpartition("@")[2] + rest[len(first) :]
    return _without_secrets(f"{scheme}://{rest}")


def refuse_doubtful(url: str, file_hint: str = "name a file that holds it: password_file=FILE") -> None:
    """Refuse ``rtsp://admin:1234#56@host``: is ``1234`` a port, or the beginning of a password?

    Raises:
        ConfigError: an ``@`` stands behind what looks like the address; the hint says how passwords are written.
    """
    if _is_doubtful(url.partition("://")[2]):
        raise ConfigError(
            f"'{redact(url)}' can be read in two ways: with a password, or with a port.",
            f"In a password write %2F for /, %23 for #, %3F for ? and %40 for @ (percent-encode it), or {file_hint}. "
            "An @ in a path or an option is written %40, too.",
        )


def names_secret(name: str) -> bool:
    """Whether what a URL or a pipeline calls by this name is a secret: ``session``, ``sid``, ``api_key``, ``user-pw`` ..."""
    name = _decoded(name)
    letters = re.sub(r"[^a-z]", "", name.lower())  # digits, too, do not count: "token2"
    words = {word.lower() for word in _NAME_WORDS.findall(name)}
    return (
        _SECRET_PART.search(letters) is not None
        or letters.endswith(_SECRET_ENDS)
        or not words.isdisjoint(_SECRET_NAMES)
    )


def split_userinfo(rest: str) -> tuple[str, str]:
    """``("user:password", "host/path")`` of what follows ``://``; the first is empty when there is none.

    A password may hold unescaped ``/ ? @``, as long as the part before the first ``/`` cannot be a host. Where it can
    (``refuse_doubtful``), it counts as a password.
    """
    authority = _authority(rest)
    if "@" in authority and not _is_doubtful(rest):
        userinfo = authority.rpartition("@")[0]
        return userinfo, rest[len(userinfo) + 1 :]
    if "@" in rest and (_is_doubtful(rest) or not _HOST.fullmatch(authority)):
        userinfo, _, host = rest.rpartition("@")
        return userinfo, host
    return "", rest


def scrub(text: str, place: str) -> str:
    """A foreign text, such as what a library printed, fit to be shown.

    Without the credentials of ``place`` (a URL without its scheme, or a pipeline) and of any URL in the text, and without
    characters that steer a terminal.
    """
    for secret in sorted(set(_secrets(place)), key=len, reverse=True):  # first: a password with a blank ends no URL
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return printable(_URL.sub(lambda found: redact(found.group()), text))


def redact_pipeline(pipeline: str) -> str:
    """The GStreamer pipeline with ``***`` for secrets in its URLs and properties."""
    return _PROPERTY.sub(_shown_property, _URL.sub(lambda found: redact(found.group()), pipeline))


def _without_secrets(text: str) -> str:
    text = _LONG_WORD.sub(lambda word: f"{_PATH.match(word[0])[0][:SHOWN_LENGTH]}...", text)  # type: ignore[index]  # it always matches
    shown, at = [], 0
    for start, end in _secret_spans(text):
        shown += [text[at:start], "***"]
        at = end
    return "".join(shown) + text[at:]


def _secret_spans(text: str) -> Iterator[tuple[int, int]]:
    """Where the values of secret parameters stand; in a path they end with their part, in a query at the next ``&``."""
    at, query = 0, min((place for place in map(text.find, "?#") if place >= 0), default=len(text))
    while (found := _PARAMETER.search(text, at)) is not None:
        at, end = found.span(3)
        if found.start() < query:
            end = at + len(re.split(r"[/;?]", found[3], maxsplit=1)[0])
        if names_secret(found[2]) or _holds_secret(text[at:end]):
            yield at, end
            at = end


def _holds_secret(value: str) -> bool:
    """Whether a value is a URL, or an encoded text, with a secret of its own."""
    plain = _decoded(value)
    if plain == value and "://" not in value:
        return False
    return _USERINFO.search(plain) is not None or any(names_secret(name) for name in _NAME.findall(plain))


def _decoded(text: str) -> str:
    for _ in range(_MOST_ENCODINGS):
        text = unquote_plus(text)
    return text


def _authority(rest: str) -> str:
    return re.split(r"[/?#]", rest, maxsplit=1)[0]


def _is_doubtful(rest: str) -> bool:
    """Whether an ``@`` follows what may be a host with its port, or the beginning of a user and a password."""
    authority = _authority(rest)
    if "@" not in rest[len(authority) :]:
        return False
    return "@" in authority or _HOST_PORT.fullmatch(authority) is not None


def _secrets(text: str) -> Iterator[str]:
    """User names and passwords of a URL or a pipeline, as they are written and as they are meant."""
    rests = [found.group().partition("://")[2] for found in _URL.finditer(text)]
    for rest in rests or [text]:
        user, _, password = split_userinfo(rest)[0].partition(":")
        values = [rest[start:end] for start, end in _secret_spans(rest)]
        written = [f"{user}:{password}", password, *values]
        plain = [unquote(text) for text in written]
        # Arguments of a program may hold bytes that are no UTF-8.
        quoted = [quote(text, safe=safe, errors="surrogateescape") for text in plain for safe in ("/", "")]
        yield from (*written, *plain, *quoted)
    yield from (value.strip("\"'") for _, name, value in _PROPERTY.findall(text) if names_secret(name))


def _shown_property(found: re.Match[str]) -> str:
    return f"{found[1]}***" if names_secret(found[2]) else found[0]
