"""Folders and files that appear complete or not at all."""

from __future__ import annotations

import glob
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgecv._internal.private_files import FILE_MODE, create_file, write_all
from edgecv.errors import ConfigError, EdgeCVError

_HEAD_BYTES = 4096
# What programs leave in every folder that a person looks at; nobody misses it.
_LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of file or folder that ``force`` may replace."""

    name: str  # with its article, such as `a bundle`
    # what stands at a path that exists, in words such as `a folder that is no bundle`; empty where it is one
    other: Callable[[Path], str]


def _any(path: Path) -> str:
    return "a folder" if path.is_dir() else "a file"


NOTHING = Kind(name="an empty folder", other=_any)


def check_target(target: Path, force: bool, kind: Kind = NOTHING) -> None:
    """Refuse early what could not be written at the end; ``force`` replaces what stands there if it is of the kind.

    Raises:
        ConfigError: ``target`` exists without ``force`` or is of another kind, or its folder is missing or not writable.
    """
    if (target.exists() or target.is_symlink()) and not force:
        raise ConfigError(f"{target} exists already.", "Choose another name, or replace it with --force.")
    check_replaceable(target, kind)
    parent = target.resolve().parent
    if not parent.is_dir():
        raise ConfigError(f"The folder {parent} does not exist.", f"Create it first: mkdir -p {parent}")
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise ConfigError(
            f"The folder {parent} cannot be written: {error.strerror}.", "Choose another with --out."
        ) from error


def check_replaceable(target: Path, kind: Kind) -> None:
    """Refuse to replace what is not of the kind; an empty folder and a link to nowhere hold nothing that could be lost.

    Raises:
        ConfigError: something else stands at ``target``, or a link to something else.
    """
    if not target.exists() or is_empty(target):
        return
    found = kind.other(target)
    if found:
        raise ConfigError(
            f"{target} is {found}: it is not replaced, only {kind.name} would be.",
            "Choose another name, or move it away yourself.",
        )


def file_kind(name: str, begins: str) -> Kind:
    """Files whose first bytes match a regular expression; ``name`` has its article, such as ``a CSV file of results``.

    NULs before them, which a log that was cut in use begins with, are passed.
    """
    pattern = re.compile(begins.encode("latin-1"), re.DOTALL)

    def other(path: Path) -> str:
        if path.is_dir():
            return "a folder"
        if not path.is_file():
            return ""  # a device or a pipe is written to, not replaced
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            while head and not head.strip(b"\0"):
                head = file.read(_HEAD_BYTES)
        is_one = not head or pattern.match(head) or pattern.match(head.lstrip(b"\0"))
        return "" if is_one else "a file of another kind"

    return Kind(name=name, other=other)


def is_empty(path: Path) -> bool:
    """Whether it is a folder with nothing in it, or an empty file."""
    try:
        return not any(path.iterdir()) if path.is_dir() else path.is_file() and not path.stat().st_size
    except OSError:
        return False


def foreign_file(folder: Path, own: Callable[[str], bool]) -> str:
    """The first file below a folder that is not its ``own``, relative to it; empty when there is none.

    What file managers leave everywhere does not count.
    """
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if Path(place, name).is_symlink()]
        for name in sorted([*files, *links]):
            relative = Path(place, name).relative_to(folder).as_posix()
            if not (own(relative) or name in _LITTER or name.startswith("._")):
                return relative
    return ""


@contextmanager
def new_file(target: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Write a file beside ``target``; when the block ends well it is flushed and takes the name, else it goes.

    Several processes may do so at a time: the name of the work file cannot be foreseen. A link that has the name of the target
    is replaced, not followed.

    Raises:
        OSError: the disk refused; nothing is left behind.
    """
    target = target.parent.resolve() / target.name
    remove_abandoned(target)
    work = target.parent / f".{target.name}.tmp-{secrets.token_hex(8)}-{os.getpid()}"
    with _taking_name(target, work, mode=mode, flush=True) as file:
        yield file


def write_private(path: str | Path, data: bytes, *, flush: bool = False) -> None:
    """Write a file of mode 0600 that appears whole or not at all; what had its name, if only a link, is replaced.

    It is for files that one process writes, again and again: written as ``.NAME.tmp`` first, and without ``flush`` not flushed to
    the disk, so a power cut may cost the last ones.

    Raises:
        OSError: the system refused; nothing is left behind.
    """
    path = Path(path)
    work = path.with_name(f".{path.name}.tmp")
    work.unlink(missing_ok=True)  # what a killed process left, or a link that somebody put there
    with _taking_name(path, work, mode=FILE_MODE, flush=flush) as file:
        write_all(file.fileno(), data)


@contextmanager
def _taking_name(target: Path, work: Path, *, mode: int = 0o666, flush: bool = False) -> Iterator[BinaryIO]:
    """The one way in which a file appears: made anew as ``work``, so nothing is written through a link, then renamed."""
    try:
        with os.fdopen(create_file(work, mode), "wb") as file:
            yield file
            file.flush()
            if flush:
                os.fsync(file.fileno())
        work.replace(target)
        if flush:
            _flush(target.parent)
    finally:
        work.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path, force: bool = False, kind: Kind = NOTHING) -> Iterator[Path]:
    """Build a folder beside ``target``; when the block ends well it is flushed and takes the name, else it goes.

    What ``force`` may replace is looked at before the block, and once more before it is replaced.

    Raises:
        ConfigError: see ``check_target``.
        EdgeCVError: the disk refused (full, read-only); nothing is left behind.
    """
    check_target(target, force, kind)
    target = target.parent.resolve() / target.name
    with _work_folder(target) as work:
        yield work
        for path in work.rglob("*"):
            _flush(path)
        _flush(work)
        check_replaceable(target, kind if force else NOTHING)
        _take_name(work, target)


@contextmanager
def new_path(target: Path) -> Iterator[Path]:
    """A path for a file or a folder that something else makes by name; when the block ends well it takes the name of ``target``.

    Else it goes. Nothing is ever replaced.

    Raises:
        ConfigError: ``target`` exists, or its folder is missing or not writable.
        EdgeCVError: the disk refused; nothing is left behind.
    """
    check_target(target, force=False)
    target = target.parent.resolve() / target.name
    with _work_folder(target) as work:
        made = work / target.name
        yield made
        for path in (*made.rglob("*"), made):
            _flush(path)
        check_target(target, force=False)
        _take_name(made, target)


@contextmanager
def _work_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that is gone after the block; errors of the disk are those of writing ``target``."""
    remove_abandoned(target)
    work = target.parent / f".{target.name}.tmp-{os.getpid()}"
    try:
        work.mkdir()  # never through a link: it fails where something has the name
    except FileExistsError as error:
        raise ConfigError(f"{work} is in the way.", "Remove it, then run again.") from error
    try:
        yield work
    except OSError as error:
        raise EdgeCVError(
            f"Writing {target} failed: {error.strerror or error}.", "Free some space and run it again."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _take_name(work: Path, target: Path) -> None:
    old = target.parent / f".{target.name}.old-{os.getpid()}"
    if target.exists() or target.is_symlink():
        target.rename(old)
    try:
        work.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    _flush(target.parent)
    if old.is_symlink() or old.is_file():
        old.unlink()
    shutil.rmtree(old, ignore_errors=True)


def remove_abandoned(target: Path) -> None:
    """Work folders and files of processes that were killed; what they had replaced comes back if nothing took its place."""
    for kind in ("tmp", "old"):
        for path in target.parent.glob(f".{glob.escape(target.name)}.{kind}-*"):
            pid = path.name.rpartition("-")[2]
            # Containers give every run the same number: a folder with ours is from an earlier one.
            if not pid.isdigit() or (int(pid) != os.getpid() and Path(f"/proc/{pid}").exists()):
                continue
            if path.is_symlink() or path.is_file():
                path.unlink(missing_ok=True)
            elif kind == "old" and not target.exists():
                path.rename(target)
            else:
                shutil.rmtree(path, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
