"""Snapshots and clips of events: opened by a path of the events file alone, and sent in the ranges that players ask for."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import PurePosixPath

_HEAD_BYTES = 12
_TAKEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe that lies there must not hold us up
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFile:
    """An open file that is what its kind says; whoever gets it closes ``descriptor``."""

    descriptor: int
    size_bytes: int
    content_type: str
    tag: str  # changes with the file


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes from ``begin`` up to and without ``end``; ``is_whole``: nobody asked for a part."""

    begin: int
    end: int
    is_whole: bool = False


def open_media(path: str) -> MediaFile | None:
    """Open a snapshot or a clip; ``None`` where nothing of the kind lies there any more.

    No link is followed: the folder must be where its name says, and the file in it must be one of its own.
    """
    place = PurePosixPath(path)
    folder, name = str(place.parent), place.name
    if not place.is_absolute() or name in ("", ".", "..") or os.path.realpath(folder) != folder:
        return None
    try:
        folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            descriptor = os.open(name, _TAKEN, dir_fd=folder_fd)
        finally:
            os.close(folder_fd)
    except (OSError, ValueError):
        return None
    try:
        opened = _look(descriptor)
    except OSError:
        opened = None
    if opened is None:
        os.close(descriptor)
    return opened


def part_of(header: str, size_bytes: int) -> Part | None:
    """What a ``Range`` header asks for; ``None`` where the file has no such bytes.

    A header that is missing, malformed or asks for several parts stands for the whole file, as HTTP allows.
    """
    found = _RANGE.fullmatch(header.strip().lower().replace(" ", ""))
    if found is None or not (found[1] or found[2]):
        return Part(begin=0, end=size_bytes, is_whole=True)
    if not found[1]:
        begin, end = max(0, size_bytes - int(found[2])), size_bytes
    else:
        begin, end = int(found[1]), min(size_bytes, int(found[2]) + 1) if found[2] else size_bytes
        if found[2] and int(found[2]) < begin:
            return Part(begin=0, end=size_bytes, is_whole=True)
    return Part(begin=begin, end=end) if begin < end else None


def _look(descriptor: int) -> MediaFile | None:
    status = os.fstat(descriptor)
    kind = _kind(os.pread(descriptor, _HEAD_BYTES, 0)) if stat.S_ISREG(status.st_mode) else ""
    if not kind:
        return None
    return MediaFile(
        descriptor=descriptor,
        size_bytes=status.st_size,
        content_type=kind,
        tag=f'"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"',
    )


def _kind(head: bytes) -> str:
    """The content type by the first bytes, never by the name; empty for what is no picture and no video."""
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    return "video/mp4" if head[4:8] == b"ftyp" else ""
