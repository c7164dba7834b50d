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
from urllib.parse import parse_qsl, unquote, unquote_plus

import msgspec

from edgecv.errors import ConfigError
from edgecv.strict import read_struct

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
NETWORK_SCHEMES = frozenset({"rtsp", "rtsps", "http", "https"})
NETWORK_OPTIONS = frozenset({"fps", "width", "height", "deadline_s", "connect_s", "transport", "password_file"})

_Options = TypeVar("_Options", bound=msgspec.Struct)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_QUERY = re.compile(r"\?(?=[A-Za-z_][\w-]*=)")  # a '?' in a glob is not followed by NAME=
_WORDS = "pass|pwd|token|secret|key|auth|sig|user|login"
_SECRET = re.compile(rf"([?&][^=&#]*(?:{_WORDS})[^=&#]*=)([^&#]*)", re.IGNORECASE)
_PROPERTY = re.compile(rf"""((?:^|\s)[\w:-]*(?:{_WORDS})[\w-]*\s*=\s*)("[^"]*"|'[^']*'|\S+)""", re.IGNORECASE)
_URL = re.compile(r"""[A-Za-z][A-Za-z0-9+.-]*://[^\s"']+""")
_NAME_LENGTH = 60  # of a pipeline; it stands in every result
_SHORTEST_SECRET = 3  # a shorter one cannot be found in a text without making it unreadable
_HOST = re.compile(r"(\[[^\]]*\]|[^:@]*)(:\d*)?")
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
        """What to call it in results, logs and errors: without credentials and options."""
        if self.scheme in ("file", "images"):
            return self.path
        if self.scheme in _SECRET_PATHS:
            return f"{self.scheme}:{'/'.join(redact(self.path).split('/')[:3])}"
        if self.scheme == "gst":
            return _pipeline_name(self.path)
        return redact(f"{self.scheme}{self.separator}{self.path}")


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
    path, options = _split_query(text[found.end() + len(separator) - 1 :], text)
    return Uri(scheme=found.group(1).lower(), path=path, options=options, separator=separator)


def read_options(uri: Uri, options_type: type[_Options]) -> _Options:
    """The query as a struct; every option that the struct does not have is an error.

    Raises:
        ConfigError: an unknown option (the hint names the nearest), or a value that does not fit.
    """
    return read_struct(uri.options, options_type, uri.name, texts=True)


def redact(uri: str) -> str:
    """The URI without user and password, and with ``***`` for secrets in its query.

    Passwords with unescaped ``/ ? @`` are common in camera URLs: when in doubt more is removed than needed.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return _SECRET.sub(r"\1***", uri)
    if "@" in rest and not _HOST.fullmatch(_authority(rest)):
        rest = rest.rpartition("@")[2]
    return _SECRET.sub(r"\1***", f"{scheme}://{rest}")


def split_userinfo(rest: str) -> tuple[str, str]:
    """``("user:password", "host/path")`` of what follows ``://``; the first is empty when there is none.

    A password may hold unescaped ``/ ? @``, as long as the part before the first ``/`` cannot be a host.
    """
    authority = _authority(rest)
    if "@" in authority:
        userinfo = authority.rpartition("@")[0]
        return userinfo, rest[len(userinfo) + 1 :]
    if "@" in rest and not _HOST.fullmatch(authority):
        userinfo, _, host = rest.rpartition("@")
        return userinfo, host
    return "", rest


def scrub(text: str, uri: Uri) -> str:
    """A foreign text, such as what a library printed, without the credentials of ``uri`` and of any URL in it."""
    shown = _URL.sub(lambda found: redact(found.group()), text)
    for secret in sorted(set(_secrets(uri)), key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            shown = shown.replace(secret, "***")
    return shown


def _authority(rest: str) -> str:
    return re.split(r"[/?#]", rest, maxsplit=1)[0]


def _secrets(uri: Uri) -> Iterator[str]:
    """User names and passwords of a source or sink, as they are written and as they are meant."""
    rests = [found.group().partition("://")[2] for found in _URL.finditer(uri.path)]
    for rest in rests or [uri.path]:
        user, _, password = split_userinfo(rest)[0].partition(":")
        written = [f"{user}:{password}", password, *(value for _, value in _SECRET.findall(rest))]
        yield from (form for text in written for form in (text, unquote(text)))
    yield from (value.strip("\"'") for _, value in _PROPERTY.findall(uri.path))


def _pipeline_name(pipeline: str) -> str:
    shown = _PROPERTY.sub(r"\1***", _URL.sub(lambda found: redact(found.group()), pipeline))
    if len(shown) > _NAME_LENGTH:  # the sum keeps two pipelines apart that begin alike
        shown = f"{shown[:_NAME_LENGTH]}...{zlib.crc32(shown.encode()):08x}"
    return f"gst:{shown}"


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
    if Path(path).is_dir() or path.endswith("/") or Path(path).suffix.lower() in IMAGE_SUFFIXES:
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
