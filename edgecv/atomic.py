"""Folders and files that appear complete or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edgecv.errors import ConfigError, EdgeCVError


def check_target(target: Path, force: bool) -> None:
    """Refuse early what could not be written at the end.

    Raises:
        ConfigError: ``target`` exists without ``force``, or its folder is missing or not writable.
    """
    if (target.exists() or target.is_symlink()) and not force:
        raise ConfigError(f"{target} exists already.", "Choose another name, or replace it with --force.")
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


@contextmanager
def new_file(target: Path) -> Iterator[BinaryIO]:
    """Write a file beside ``target``; when the block ends well it is flushed and takes the name, else it goes.

    Its name cannot be foreseen and it is made anew, so nothing is ever written through a link; a link that has the name of the
    target is replaced, not followed.

    Raises:
        OSError: the disk refused; nothing is left behind.
    """
    target = target.parent.resolve() / target.name
    _remove_abandoned(target)
    work = target.parent / f".{target.name}.tmp-{secrets.token_hex(8)}-{os.getpid()}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(work, flags, 0o666), "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        work.replace(target)
        _flush(target.parent)
    finally:
        work.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path, force: bool = False) -> Iterator[Path]:
    """Build a folder beside ``target``; when the block ends well it is flushed and takes the name, else it goes.

    Raises:
        ConfigError: see ``check_target``.
        EdgeCVError: the disk refused (full, read-only); nothing is left behind.
    """
    check_target(target, force)
    target = target.parent.resolve() / target.name
    _remove_abandoned(target)
    work = target.parent / f".{target.name}.tmp-{os.getpid()}"
    try:
        work.mkdir()  # never through a link: it fails where something has the name
    except FileExistsError as error:
        raise ConfigError(f"{work} is in the way.", "Remove it, then run again.") from error
    try:
        yield work
        for path in work.rglob("*"):
            _flush(path)
        _flush(work)
        _take_name(work, target)
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


def _remove_abandoned(target: Path) -> None:
    """Work folders and files of processes that were killed; what they had replaced comes back if nothing took its place."""
    for kind in ("tmp", "old"):
        for path in target.parent.glob(f".{target.name}.{kind}-*"):
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
