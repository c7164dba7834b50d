"""Where frames come from and results go, as text: ``usb://0``, ``file.mp4``, ``images/``, ``jsonl:FILE?overwrite=1``.

A query is read strictly: an option that does not exist names the nearest one that does. It is only taken for a query
when it looks like ``?name=value&name=value``, so that ``img?.jpg`` stays a pattern. Two kinds of sources differ:

- A network camera (``rtsp://``, ``http://`` ...) has a query of its own: the names in ``NETWORK_OPTIONS`` are ours, the rest
  goes to the camera as it stands. So a misspelt option of ours cannot be told from one of the camera. What the camera
  calls by one of our names is written ``camera.fps=10``.
- ``gst:PIPELINE`` takes our options at its end, ``gst:videotestsrc ! video/x-raw,width=320 ?fps=5``; a URL with a query in
  the last word of the pipeline stays the pipeline's.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import parse_qsl, quote, unquote, unquote_plus

import msgspec

from edgecv._internal.printable import printable
from edgecv._internal.strict import read_struct
from edgecv.errors import ConfigError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".webp", ".tif", ".tiff"})
# Pictures that are not read, by suffix: where they lie in a folder, they are named.
UNREAD_SUFFIXES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC"),
        **dict.fromkeys((".jp2", ".j2k", ".jpf", ".jpx"), "JPEG 2000"),
        **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2"), "raw"),
        ".avif": "AVIF",
        ".gif": "GIF",
        ".jxl": "JPEG XL",
        ".psd": "PSD",
    }
)
NETWORK_SCHEMES = frozenset({"rtsp", "rtsps", "http", "https"})
NETWORK_OPTIONS = frozenset(
    {
        *("fps", "width", "height", "deadline_s", "connect_s", "transport", "password_file", "every_s"),
        *("max_megapixels", "max_memory_mb"),
    }
)

_Options = TypeVar("_Options", bound=msgspec.Struct)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_QUERY = re.compile(r"\?(?=[A-Za-z_][\w-]*=)")  # a '?' in a glob is not followed by NAME=
# What names a secret, in the query of a camera's URL, in its path (``/;stok=``), and as a property of a pipeline:
# these anywhere in the name ...
_SECRET_PARTS = (
    *(
        "pass",
        "pwd",
        "psw",
        "psk",
        "token",
        "stok",
        "secret",
        "key",
        "auth",
        "bearer",
        "jwt",
        "hmac",
        "sig",
        "digest",
        "nonce",
    ),
    *("user", "usr", "login", "cred", "sess", "cookie", "ticket", "otp"),
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
_NAME_LENGTH = 60  # of a pipeline; it stands in every result
_SHORTEST_SECRET = 3  # a shorter one cannot be found in a text without making it unreadable
_HOST = re.compile(r"(\[[^\]]*\]|[^:@]*)(:\d*)?")
_HOST_PORT = re.compile(r"[^:@\[\]]*:\d*")
_PATH_SCHEMES = frozenset({"file", "images"})
_SECRET_PATHS = frozenset({"webhook"})  # chat services put the secret into the path of the URL
_SUFFIX_SINKS: Mapping[str, str] = MappingProxyType(
    {".csv": "csv", ".jsonl": "jsonl", ".mkv": "video", ".mp4": "video"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Uri:
    """A source or sink by name, taken apart.

    Attributes:
        scheme: Its name in the registry: ``file``, ``usb``, ``jsonl`` ...
        path: What follows the scheme, without the query. It may hold credentials: show ``name`` instead.
        options: The query, not yet checked (see ``read_options``).
        separator: What stood between scheme and path.
    """

    scheme: str
    path: str
    options: Mapping[str, str] = field(default_factory=dict)
    separator: str = "://"

    @property
    def name(self) -> str:
        """What to call it in results, logs and errors: without credentials, options and control characters."""
        if self.scheme in ("file", "images"):
            return printable(self.path)
        if self.scheme in _SECRET_PATHS:
            return printable(f"{self.scheme}:{'/'.join(redact(self.path).split('/')[:3])}")
        if self.scheme == "gst":
            return printable(_pipeline_name(self.path))
        return printable(redact(f"{self.scheme}{self.separator}{self.path}"))


def parse_source(text: str | int | Path | Uri) -> Uri:
    """Take the name of a source apart.

    Args:
        text: A camera number, a file, a folder, a glob or ``SCHEME://...?option=value``.

    Raises:
        ConfigError: it is empty, or an option stands there twice.
    """
    if isinstance(text, Uri):
        return text
    whole = str(text)
    if not whole:
        raise ConfigError("The source is empty.", "Give a camera number, a video, a folder of images or a URI.")
    if whole.isdecimal():
        return Uri(scheme="usb", path=whole)
    if whole.startswith("gst:"):
        return _parse_pipeline(whole.removeprefix("gst:"))
    scheme, separator, rest = whole.partition("://")
    if separator and _SCHEME.fullmatch(scheme + ":"):
        if scheme.lower() not in _PATH_SCHEMES:
            refuse_doubtful(whole)
        return _parse_network(scheme.lower(), rest) if scheme.lower() in NETWORK_SCHEMES else _parse_uri(scheme, rest)
    if _is_there(whole):
        return Uri(scheme=_path_scheme(whole), path=whole)
    path, options = _split_query(whole, whole)
    return Uri(scheme=_path_scheme(path), path=path, options=options)


def parse_sink(text: str | Uri) -> Uri:
    """Take the name of a sink apart: ``SCHEME:TARGET?option=value``.

    Raises:
        ConfigError: the scheme or the target is missing, or an option stands there twice.
    """
    if isinstance(text, Uri):
        return text
    found = _SCHEME.match(text)
    if found is None or found.end() == len(text):
        scheme = _SUFFIX_SINKS.get(Path(text).suffix, "jsonl")
        target = text if text and found is None else "out.jsonl"
        raise ConfigError(f"'{redact(text)}' does not say what to write.", f"Write for example: {scheme}:{target}")
    separator = "://" if text.startswith("//", found.end()) else ":"
    if found.group(1).lower() in _SECRET_PATHS:
        refuse_doubtful(text[found.end() :], "write the URL into a file: webhook:FILE")
    elif separator == "://":
        refuse_doubtful(text)
    path, options = _split_query(text[found.end() + len(separator) - 1 :], text)
    return Uri(scheme=found.group(1).lower(), path=path, options=options, separator=separator)


def read_options(uri: Uri, options_type: type[_Options]) -> _Options:
    """The query as a struct; every option that the struct does not have is an error.

    Raises:
        ConfigError: an unknown option (the hint names the nearest), or a value that does not fit.
    """
    return read_struct(uri.options, options_type, uri.name, texts=True)


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
        any(part in letters for part in _SECRET_PARTS)
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


def scrub(text: str, uri: Uri) -> str:
    """A foreign text, such as what a library printed, fit to be shown.

    Without the credentials of ``uri`` and of any URL in it, and without characters that steer a terminal.
    """
    for secret in sorted(set(_secrets(uri)), key=len, reverse=True):  # first: a password with a blank ends no URL
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return printable(_URL.sub(lambda found: redact(found.group()), text))


def _without_secrets(text: str) -> str:
    text = _LONG_WORD.sub(lambda word: f"{_PATH.match(word[0])[0][:_NAME_LENGTH]}...", text)  # type: ignore[index]  # it always matches
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


def _secrets(uri: Uri) -> Iterator[str]:
    """User names and passwords of a source or sink, as they are written and as they are meant."""
    rests = [found.group().partition("://")[2] for found in _URL.finditer(uri.path)]
    for rest in rests or [uri.path]:
        user, _, password = split_userinfo(rest)[0].partition(":")
        values = [rest[start:end] for start, end in _secret_spans(rest)]
        written = [f"{user}:{password}", password, *values]
        plain = [unquote(text) for text in written]
        yield from (*written, *plain, *map(quote, plain), *(quote(text, safe="") for text in plain))
    yield from (value.strip("\"'") for _, name, value in _PROPERTY.findall(uri.path) if names_secret(name))


def _pipeline_name(pipeline: str) -> str:
    shown = _PROPERTY.sub(_shown_property, _URL.sub(lambda found: redact(found.group()), pipeline))
    if len(shown) > _NAME_LENGTH:  # the sum keeps two pipelines apart that begin alike
        whole = shown.encode(errors="backslashreplace")
        shown = f"{shown[:_NAME_LENGTH]}...{zlib.crc32(whole):08x}"
    return f"gst:{shown}"


def _shown_property(found: re.Match[str]) -> str:
    return f"{found[1]}***" if names_secret(found[2]) else found[0]


def _parse_uri(scheme: str, rest: str) -> Uri:
    path, options = _split_query(rest, f"{scheme}://{rest}")
    return Uri(scheme=scheme.lower(), path=unquote(path), options=options)


def _parse_pipeline(text: str) -> Uri:
    head, space, last = text.strip().rpartition(" ")
    if "://" in last or '"' in last or "'" in last:
        return Uri(scheme="gst", path=text.strip(), separator=":")
    last, options = _split_query(last, "gst:" + last)
    return Uri(scheme="gst", path=f"{head}{space}{last}".strip(), options=options, separator=":")


def _parse_network(scheme: str, rest: str) -> Uri:
    userinfo, host = split_userinfo(rest)
    path, _, query = host.partition("?")
    ours: dict[str, str] = {}
    theirs: list[str] = []
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        if name in ours:
            raise ConfigError(f"'{name}' stands twice in '{redact(f'{scheme}://{rest}')}'.", "Give each option once.")
        if name in NETWORK_OPTIONS:
            ours[name] = unquote_plus(value)
        else:
            theirs.append(part.removeprefix("camera."))
    path = "?".join(filter(None, (path, "&".join(theirs))))
    return Uri(scheme=scheme, path=f"{userinfo}@{path}" if userinfo else path, options=ours)


def _is_there(path: str) -> bool:
    """Whether there is such a file or folder; what cannot name one is a mistake."""
    try:
        return "\0" not in path and Path(path).exists()
    except OSError as error:
        raise ConfigError(f"'{path[:_NAME_LENGTH]}...' is no source: {error.strerror}.", "Check the name.") from error


def _path_scheme(path: str) -> str:
    if (Path(path) / "recording.json").is_file():
        return "recording"
    suffix = Path(path).suffix.lower()
    is_picture = suffix in IMAGE_SUFFIXES or (suffix in UNREAD_SUFFIXES and suffix != ".gif")  # a GIF is a clip
    if Path(path).is_dir() or path.endswith("/") or is_picture:
        return "images"
    is_pattern = any(char in path for char in "*?[") and not Path(path).is_file()
    return "images" if is_pattern else "file"


def _split_query(rest: str, whole: str) -> tuple[str, dict[str, str]]:
    path, *query = _QUERY.split(rest, maxsplit=1)
    pairs = parse_qsl(query[0], keep_blank_values=True) if query else []
    options = dict(pairs)
    if len(options) < len(pairs):
        raise ConfigError(f"An option stands twice in '{redact(whole)}'.", "Give each option once.")
    return path, options
