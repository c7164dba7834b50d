"""Files of a bundle, opened once: what was hashed is what a runtime loads, whatever the names point to in the meantime.

A file is opened part by part below its folder without following links, and hashed through the descriptor. On Linux a runtime
then opens ``/proc/self/fd/N``, which is that very file: it maps or reads it as it would by name, so this costs no memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from edgecv.errors import BundleError

_DESCRIPTORS = Path("/proc/self/fd")
_CHUNK = 1 << 20
_Identity = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedFile:
    """A regular file that is open for reading; ``path`` is what to call it."""

    path: Path
    descriptor: int
    _before: _Identity

    @property
    def readable(self) -> Path:
        """By which name to open this very file again; where there is no ``/proc`` that is its path."""
        by_descriptor = _DESCRIPTORS / str(self.descriptor)
        return by_descriptor if by_descriptor.exists() else self.path

    @property
    def size(self) -> int:
        """Bytes when it was opened."""
        return self._before[2]

    def sha256(self) -> str:
        """Hexadecimal sha256 of its content."""
        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()

    def chunks(self) -> Iterator[bytes]:
        """Its content from the start, a megabyte at a time."""
        at = 0
        while chunk := os.pread(self.descriptor, _CHUNK, at):
            yield chunk
            at += len(chunk)

    def read(self, most: int) -> bytes:
        """At most ``most`` bytes from the start."""
        with self.file() as file:
            return file.read(most)

    def file(self) -> BinaryIO:
        """A file object at the start; closing it leaves the descriptor open."""
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        return os.fdopen(self.descriptor, "rb", closefd=False)

    def check_unchanged(self) -> None:
        """Check that the file was not written, moved or replaced since it was opened.

        Raises:
            BundleError: it was.
        """
        try:
            named = self.path.lstat()
        except OSError as error:
            raise _changed(self.path) from error
        if self._before != _identity(os.fstat(self.descriptor)) or self._before != _identity(named):
            raise _changed(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedModel:
    """The files of one model: ``main`` is what a runtime opens, ``beside`` what it reads along with it, by name."""

    main: OpenedFile
    beside: Mapping[str, OpenedFile]

    @property
    def path(self) -> Path:
        """Where the main file stands: what messages call the model."""
        return self.main.path

    def check_unchanged(self) -> None:
        """Check that none of the files was written, moved or replaced since it was opened; call it after loading.

        Raises:
            BundleError: one was.
        """
        for file in (self.main, *self.beside.values()):
            file.check_unchanged()


@contextmanager
def open_inside(folder: Path, relative: str) -> Iterator[OpenedFile]:
    """Open ``relative`` below ``folder`` without passing through a link; ``folder`` itself may be one.

    Raises:
        BundleError: the path leads through a link.
        FileNotFoundError: there is no such file, or it is no regular file.
        OSError: it cannot be read.
    """
    descriptor = _walk(folder, PurePosixPath(relative).parts, relative)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(f"{relative} is no file")
        yield OpenedFile(path=folder / relative, descriptor=descriptor, _before=_identity(status))
    finally:
        os.close(descriptor)


@contextmanager
def open_model(folder: Path, names: tuple[str, ...]) -> Iterator[OpenedModel]:
    """Open the files of one model, the main one first; raises as ``open_inside``."""
    with contextlib.ExitStack() as stack:
        main, *others = (stack.enter_context(open_inside(folder, name)) for name in names)
        beside = {os.path.relpath(file.path, main.path.parent): file for file in others}
        yield OpenedModel(main=main, beside=beside)


def path_of(model: Path | OpenedModel) -> Path:
    """What messages call a model that is given by path or by its opened files."""
    return model.path if isinstance(model, OpenedModel) else model


def readable_path(model: Path | OpenedModel) -> Path:
    """By which name a runtime opens the main file."""
    return model.main.readable if isinstance(model, OpenedModel) else model


def _walk(folder: Path, parts: tuple[str, ...], relative: str) -> int:
    flags = os.O_RDONLY | os.O_CLOEXEC
    place = os.open(folder, flags | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            below = _open_part(part, flags | os.O_DIRECTORY, place, folder, relative)
            os.close(place)
            place = below
        return _open_part(parts[-1], flags | os.O_NONBLOCK, place, folder, relative)
    finally:
        os.close(place)


def _open_part(part: str, flags: int, place: int, folder: Path, relative: str) -> int:
    try:
        if stat.S_ISLNK(os.stat(part, dir_fd=place, follow_symlinks=False).st_mode):
            raise leads_outside(str(folder), relative)
        return os.open(part, flags | os.O_NOFOLLOW, dir_fd=place)
    except NotADirectoryError as error:
        raise FileNotFoundError(*error.args) from error


def leads_outside(origin: str, relative: str) -> BundleError:
    """The error for a path that is not plainly below the bundle's folder."""
    return BundleError(
        f"{origin}: the path {relative!r} leads outside the bundle.", "Do not use this bundle; ask whoever made it."
    )


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _changed(path: Path) -> BundleError:
    return BundleError(f"{path} changed while it was loaded.", "Copy the bundle again, then load it.")
