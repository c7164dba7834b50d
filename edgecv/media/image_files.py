"""Which files of a folder are images, and in which order: as a person would count them, without what systems leave there."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from edgecv.errors import ConfigError, EdgeCVError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".webp", ".tif", ".tiff"})
# Images that are not read, by suffix: where they lie in a folder, they are named.
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
_log = logging.getLogger("edgecv")
_DIGITS = re.compile("([0-9]+)")
# Copies and thumbnails that macOS, Synology and Windows put beside images; hidden names are left out as well.
_LITTER = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"})
# ISO/IEC 14496-12: a file type box names its brand in bytes 8 to 12.
_BRANDS: Mapping[bytes, str] = MappingProxyType(
    {
        **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), "HEIC"),
        **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    }
)
_STARTS: Mapping[bytes, str] = MappingProxyType(
    {
        b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
        b"\xff\x4f\xff\x51": "JPEG 2000",
        b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
        b"\xff\x0a": "JPEG XL",
        b"8BPS": "PSD",
        b"\0\x05\x16\x07": "AppleDouble",
    }
)
WAY_OUT = "Convert it to JPEG or PNG, for example with ImageMagick: magick {name} {stem}.jpg"


def natural_key(path: Path) -> tuple[tuple[str | int, ...] | str, ...]:
    """Sort key under which ``frame2`` comes before ``frame10``."""
    return (*(_pieces(part) for part in path.parts), str(path))


def in_natural_order(paths: Iterable[Path]) -> list[Path]:
    """Paths in the order in which a person counts."""
    return sorted(paths, key=natural_key)


def images_in(folder: Path) -> list[Path]:
    """The images directly in a folder, in natural order; says which formats were left out."""
    names = (Path(entry.path) for entry in os.scandir(folder) if not _is_litter(entry.name) and entry.is_file())
    return _chosen(names, folder)


def images_below(folder: Path) -> list[Path]:
    """Every image in a folder and the folders in it, in natural order; links to folders are followed, each folder once."""
    return _chosen(files_below(folder), folder)


def files_below(folder: Path) -> Iterator[Path]:
    """Every file in a folder and the folders in it, without hidden ones and what systems leave there."""
    seen = {os.path.realpath(folder)}
    for place, folders, files in os.walk(folder, followlinks=True):
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(Path(place, name))
            if not _is_litter(name) and real not in seen:
                seen.add(real)
                kept.append(name)
        folders[:] = kept
        yield from (path for name in files if not _is_litter(name) and (path := Path(place, name)).is_file())


def unread_in(folder: Path) -> str:
    """Formats in a folder that are not read, with their numbers, such as ``12 HEIC, 1 GIF``; empty without any."""
    return _counted(path for path in folder.iterdir() if not _is_litter(path.name))


def unread_format(data: bytes) -> str:
    """The format of an encoded image that is not read, from its first bytes; empty for any other."""
    brand = _BRANDS.get(data[8:12], "") if data[4:8] == b"ftyp" else ""
    return brand or next((name for start, name in _STARTS.items() if data.startswith(start)), "")


def text_of(path: Path) -> str:
    """A path as text that JSON and UTF-8 files can hold: bytes that are no UTF-8 are written as ``\\xe9``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def utf8_name(path: str | Path, error: Callable[[str, str], EdgeCVError] = ConfigError) -> str:
    """A path for code that takes UTF-8 alone: OpenCV ends the process at any other.

    Raises:
        EdgeCVError: there are other bytes in it; it is made by ``error``.
    """
    name = str(path)
    try:
        name.encode()
    except UnicodeEncodeError as cause:
        raise error(
            f"{text_of(Path(path))} is no name in UTF-8, and cannot be opened.",
            "Rename it, or the folder that it lies in; convmv -f latin1 -t utf8 does it for whole folders.",
        ) from cause
    return name


def _chosen(files: Iterable[Path], folder: Path) -> list[Path]:
    every = list(files)
    found = in_natural_order(path for path in every if path.suffix.lower() in IMAGE_SUFFIXES)
    left_out = _counted(every)
    if found and left_out:
        _log.warning(
            "%s: left out are %s, which are not read; convert them to JPEG or PNG, for example: magick mogrify -format jpg *",
            folder,
            left_out,
        )
    return found


def _counted(paths: Iterable[Path]) -> str:
    counts = Counter(UNREAD_SUFFIXES[suffix] for path in paths if (suffix := path.suffix.lower()) in UNREAD_SUFFIXES)
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _pieces(name: str) -> tuple[str | int, ...]:
    """Text and numbers in turn, so that numbers are only ever compared with numbers."""
    return tuple(int(piece) if at % 2 else piece.casefold() for at, piece in enumerate(_DIGITS.split(name)))


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name in _LITTER
