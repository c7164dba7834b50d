"""Where frames come from and results go, as text: ``usb://0``, ``file.mp4``, ``images/``, ``jsonl:FILE?overwrite=1``.

A query is read strictly: an option that does not exist names the nearest one that does. It is only taken for a query
when it looks like ``?name=value&name=value``, so that ``img?.jpg`` stays a pattern.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec

from edgecv.errors import ConfigError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

_Options = TypeVar("_Options", bound=msgspec.Struct)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_QUERY = re.compile(r"\?(?=[A-Za-z_][\w-]*=)")  # a '?' in a glob is not followed by NAME=
_SECRET = re.compile(r"([?&][^=&#]*(?:pass|pwd|token|secret|key|auth|sig|user|login)[^=&#]*=)[^&#]*", re.IGNORECASE)
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
    scheme, separator, rest = whole.partition("://")
    if separator and _SCHEME.fullmatch(scheme + ":"):
        path, options = _split_query(rest, whole)
        return Uri(scheme=scheme.lower(), path=unquote(path), options=options)
    if Path(whole).exists():
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
    known = options_type.__struct_fields__
    for name in uri.options:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            suggestion = f"Did you mean '{close[0]}'? " if close else ""
            raise ConfigError(
                f"{uri.name} has no option '{name}'.", f"{suggestion}Known: {', '.join(known) or 'none'}."
            )
    try:
        return msgspec.convert(dict(uri.options), options_type, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"An option of {uri.name} is wrong: {error}.") from error


def redact(uri: str) -> str:
    """The URI without user and password, and with ``***`` for secrets in its query.

    Passwords with unescaped ``/ ? @`` are common in camera URLs: when in doubt more is removed than needed.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return _SECRET.sub(r"\1***", uri)
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in rest and not _HOST.fullmatch(authority):
        rest = rest.rpartition("@")[2]
    return _SECRET.sub(r"\1***", f"{scheme}://{rest}")


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
