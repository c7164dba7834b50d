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
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import parse_qsl, unquote, unquote_plus

import msgspec

from edgecv._internal import redaction
from edgecv._internal.redaction import SHOWN_LENGTH, redact, refuse_doubtful, split_userinfo
from edgecv._internal.strict import read_struct
from edgecv.errors import ConfigError
from edgecv.media.image_files import IMAGE_SUFFIXES, UNREAD_SUFFIXES
from edgecv.uri import (
    SECRET_PATHS,
    Uri as Uri,  # noqa: PLC0414 - who reads URIs gets it from here
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
_PATH_SCHEMES = frozenset({"file", "images"})
_SUFFIX_SINKS: Mapping[str, str] = MappingProxyType(
    {".csv": "csv", ".jsonl": "jsonl", ".mkv": "video", ".mp4": "video"}
)


def parse_source(text: str | int | Path | Uri) -> Uri:
    """Take the name of a source apart: a camera number, a file, a folder, a glob or ``SCHEME://...?option=value``.

    Raises ``ConfigError`` when it is empty, or an option stands there twice.
    """
    if isinstance(text, Uri):
        return text
    whole = str(text)
    if not whole:
        raise ConfigError("The source is empty.", "Give a camera number, a video, a folder of images or a URI.")
    if "\0" in whole:
        raise ConfigError(
            "The source holds a zero byte, which no name can hold.", "Is it text, and read with the right encoding?"
        )
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

    Raises ``ConfigError`` when the scheme or the target is missing, or an option stands there twice.
    """
    if isinstance(text, Uri):
        return text
    found = _SCHEME.match(text)
    if found is None or found.end() == len(text):
        scheme = _SUFFIX_SINKS.get(Path(text).suffix, "jsonl")
        target = text if text and found is None else "out.jsonl"
        raise ConfigError(f"'{redact(text)}' does not say what to write.", f"Write for example: {scheme}:{target}")
    separator = "://" if text.startswith("//", found.end()) else ":"
    if found.group(1).lower() in SECRET_PATHS:
        refuse_doubtful(text[found.end() :], "write the URL into a file: webhook:FILE")
    elif separator == "://":
        refuse_doubtful(text)
    path, options = _split_query(text[found.end() + len(separator) - 1 :], text)
    return Uri(scheme=found.group(1).lower(), path=path, options=options, separator=separator)


def read_options(uri: Uri, options_type: type[_Options]) -> _Options:
    """The query as a struct.

    Raises ``ConfigError`` for an unknown option (the hint names the nearest), or a value that does not fit.
    """
    return read_struct(uri.options, options_type, uri.name, texts=True)


def scrub(text: str, uri: Uri) -> str:
    """A foreign text without the credentials of ``uri`` and of any URL in it, and without what steers a terminal."""
    return redaction.scrub(text, uri.path)


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
        return Path(path).exists()
    except OSError as error:
        raise ConfigError(f"'{path[:SHOWN_LENGTH]}...' is no source: {error.strerror}.", "Check the name.") from error


def _path_scheme(path: str) -> str:
    if (Path(path) / "recording.json").is_file():
        return "recording"
    suffix = Path(path).suffix.lower()
    is_image = suffix in IMAGE_SUFFIXES or (suffix in UNREAD_SUFFIXES and suffix != ".gif")  # a GIF is a clip
    if Path(path).is_dir() or path.endswith("/") or is_image:
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
