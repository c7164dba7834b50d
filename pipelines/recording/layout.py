"""The folder of a recording: what lies where, and the document that describes it.

::

    door.rec/recording.json           what this is: model, labels, sources, settings
             results.bin              one record per frame, see ``records.py``
             frames/00-door/00000000.jpg ...   the images, numbered over all sources in the order of the records
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

import msgspec

from edgecv._internal.atomic import Kind, foreign_file, write_private
from edgecv._internal.bounded import read_bounded
from edgecv.errors import SinkError, SourceError

SCHEMA = 1
FORMAT = "edgecv-recording"
HEADER, RESULTS = "recording.json", "results.bin"
_OWN = frozenset({HEADER, RESULTS, f".{HEADER}.tmp"})
ImageFormat = Literal["jpeg", "png"]
SUFFIXES: dict[ImageFormat, str] = {"jpeg": ".jpg", "png": ".png"}
_LARGEST_HEADER_BYTES = 16_000_000  # a thousand labels are 20 kB


class RecordedFrom(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One source of a recording: its name in results, free of credentials, and frames per second; 0.0 when it did not know."""

    name: str
    fps: float = 0.0


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``recording.json``; the limits are those that were asked for, ``None`` for the model's own."""

    format: str = FORMAT  # tells a recording from other JSON documents
    schema: int = SCHEMA
    edgecv: str = ""  # version that recorded
    created: str = ""  # UTC, ISO 8601
    images: ImageFormat = msgspec.field(name="pictures", default="jpeg")
    model: str = ""  # name of the bundle and the variant that ran
    task: str = "detect"
    labels: tuple[str, ...] = ()
    confidence: float | None = None
    iou: float | None = None
    classes: tuple[str | int, ...] | None = None  # names or numbers of those that were kept; None for all
    sources: tuple[RecordedFrom, ...] = ()  # as they gave their first frame; records name them by position
    frames: int | None = None  # how many there are; None until the recording was closed


class _Version(msgspec.Struct, frozen=True):
    format: str = ""
    schema: int = 0


def read_header(folder: Path) -> Header:
    """The description of a recording.

    Raises ``SourceError``: there is no recording, it is damaged, or a newer EdgeCV wrote it.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is no recording.", "Make one: edgecv record BUNDLE --source 0 --out NAME.rec")
    data = _header_bytes(folder)
    try:
        version = msgspec.json.decode(data, type=_Version)
        _check_version(folder, version)
        return msgspec.json.decode(data, type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"{folder / HEADER} is damaged: {error}.", "Restore it from a copy.", code="codec") from error


def write_header(folder: Path, header: Header) -> None:
    """Write or replace the description, whole or not at all; raises ``OSError``."""
    write_private(folder / HEADER, msgspec.json.format(msgspec.json.encode(header), indent=2) + b"\n")


def is_recording(folder: Path) -> bool:
    """Whether a folder says of itself that it is a recording, of whatever version and however damaged inside."""
    try:
        return msgspec.json.decode(_header_bytes(folder), type=_Version).format == FORMAT
    except (SourceError, msgspec.DecodeError, UnicodeDecodeError):
        return False


def _no_recording(path: Path) -> str:
    if not path.is_dir():
        return "a file"
    if not is_recording(path):
        return "a folder that is no recording"
    found = foreign_file(path, lambda name: name in _OWN or name.startswith("frames/"))
    return f"a recording that also holds {found}, which is not of it" if found else ""


RECORDING = Kind(name="a recording", other=_no_recording)  # what --force replaces


def image_path(header: Header, source: int, number: int) -> str:
    """Where an image lies, below the folder; never a path that a recording could choose."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", header.sources[source].name)[-40:].strip("-")
    return f"frames/{source:02d}-{slug or 'source'}/{number:08d}{SUFFIXES[header.images]}"


def inside(folder: Path, relative: str) -> Path:
    """A path in the folder, links followed. Raises ``SourceError``: a link leads out of the folder."""
    path = Path(os.path.realpath(folder / relative))
    if not path.is_relative_to(os.path.realpath(folder)):
        raise SourceError(
            f"{folder / relative} leads out of the recording.", "Use recordings of people you trust.", code="refused"
        )
    return path


def cannot_write(path: Path, error: OSError) -> SinkError:
    """What to raise when the disk refuses."""
    return SinkError(
        f"{path} cannot be written: {error.strerror}.", "Is there space, does the folder exist, and may you write?"
    )


def _header_bytes(folder: Path) -> bytes:
    path = inside(folder, HEADER)
    try:
        return read_bounded(path, _LARGEST_HEADER_BYTES)
    except OSError as error:
        raise SourceError(
            f"{folder} is no recording: {HEADER} cannot be read: {error.strerror}.",
            "Give the folder that `edgecv record` wrote.",
        ) from error


def _check_version(folder: Path, version: _Version) -> None:
    if version.format != FORMAT:
        raise SourceError(f"{folder} is no recording.", "Give the folder that `edgecv record` wrote.")
    if version.schema > SCHEMA:
        raise SourceError(
            f"{folder} has schema {version.schema}; this EdgeCV reads up to {SCHEMA}.", "Update EdgeCV.", code="codec"
        )
