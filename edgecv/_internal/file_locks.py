"""Locks on files, which the kernel drops when their process dies, however that ends."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from edgecv._internal.private_files import open_private


def lock_file(path: Path, *, sign: bool = False) -> BinaryIO | None:
    """Open a private file, made where it is missing, and lock it until it is closed.

    Args:
        path: The file; its contents stay.
        sign: Replace its contents by the number of this process, for ``lock_owner``.

    Returns:
        The file; ``None`` while somebody else holds its lock.

    Raises:
        OSError: it cannot be opened, is a link, or lies on a file system without locks.
    """
    file = os.fdopen(open_private(path), "r+b", buffering=0)
    try:
        if not try_lock(file):
            file.close()
            return None
    except OSError:
        file.close()
        raise
    if sign:
        with suppress(OSError):  # for messages only: a full disk stops nobody here
            file.write(b"%d\n" % os.getpid())
            file.truncate()
    return file


def lock_owner(path: Path) -> str:
    """The process that signed a lock file, for messages only."""
    try:
        return path.read_text(encoding="utf-8").strip()[:20] or "unknown"
    except (OSError, UnicodeDecodeError):
        return "unknown"


def try_lock(file: BinaryIO) -> bool:
    """Lock an open file until it is closed; ``False`` while somebody else holds its lock.

    Raises:
        OSError: it lies on a file system without locks.
    """
    return _flock(file, fcntl.LOCK_EX)


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock of a file; not where there is no such file.

    Raises:
        OSError: it cannot be opened, or lies on a file system without locks.
    """
    try:
        with path.open("rb") as file:
            return not _flock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _flock(file: BinaryIO, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
