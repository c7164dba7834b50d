"""Folders and files that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    probe = parent / f".{target.name}.write-test-{os.getpid()}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"The folder {parent} cannot be written: {error.strerror}.", "Choose another with --out."
        ) from error


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
    work.mkdir()
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
    """Work folders of processes that were killed; what they had replaced comes back if nothing took its place."""
    for kind in ("tmp", "old"):
        for path in target.parent.glob(f".{target.name}.{kind}-*"):
            pid = path.name.rpartition("-")[2]
            # Containers give every run the same number: a folder with ours is from an earlier one.
            if not pid.isdigit() or (int(pid) != os.getpid() and Path(f"/proc/{pid}").exists()):
                continue
            if kind == "old" and not target.exists():
                path.rename(target)
            else:
                shutil.rmtree(path, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
