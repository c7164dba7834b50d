"""Folders and files that only their owner may read, whatever the umask is; nothing is written through a link.

What cameras saw and what waits for the cloud is made with these functions. A folder that exists keeps its permissions:
somebody chose them. Files made in it are private all the same.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

FOLDER_MODE = 0o700
FILE_MODE = 0o600
_OTHERS = 0o077  # the permission bits of everybody but the owner
_COMMON = os.O_NOFOLLOW | os.O_CLOEXEC


def make_private_folder(path: str | Path, *, parents: bool = False, exist_ok: bool = True) -> None:
    """Make a folder of mode 0700, and with ``parents`` the missing ones above it; one that exists, also by a link, stays as it is.

    Raises:
        FileExistsError: it exists and ``exist_ok`` is not set, or it is no folder.
        OSError: the system refused.
    """
    path = Path(path)
    if parents and not path.parent.is_dir():
        make_private_folder(path.parent, parents=True)
    try:
        path.mkdir(FOLDER_MODE)
    except FileExistsError:
        if not exist_ok or not path.is_dir():
            raise
    else:
        path.chmod(FOLDER_MODE)  # an odd umask takes from the owner, too


def make_private_file(path: str | Path) -> None:
    """Make an empty file of mode 0600, for a library that opens it by name; one that exists keeps contents and permissions.

    Raises:
        OSError: the system refused.
    """
    with suppress(FileExistsError):
        os.close(create_private(path))


def create_private(path: str | Path) -> int:
    """Make a file of mode 0600 that did not exist, and open it for writing; the caller closes the descriptor.

    Raises:
        FileExistsError: something has that name already, if only a link to nowhere.
        OSError: the system refused.
    """
    descriptor = create_file(path, FILE_MODE)
    os.fchmod(descriptor, FILE_MODE)  # an odd umask takes from the owner, too
    return descriptor


def create_file(path: str | Path, mode: int = 0o666, *, overwrite: bool = False) -> int:
    """Make a file and open it for writing; the caller closes the descriptor.

    Args:
        path: The file.
        mode: Its permissions, less those that the umask takes away.
        overwrite: Take the place of a file. Its permissions, and other names it has, are not the new one's. What cannot be
            removed is emptied instead, such as a file in a folder of somebody else; devices and pipes are written to.

    Raises:
        FileExistsError: something has that name, and ``overwrite`` is not set.
        OSError: the system refused; ``ELOOP`` where the name is a link.
    """
    if overwrite:
        with suppress(OSError):
            if stat.S_ISREG(os.lstat(path).st_mode):
                Path(path).unlink()
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _COMMON, mode)
    except FileExistsError:
        if not overwrite:
            raise
        return os.open(path, os.O_WRONLY | os.O_TRUNC | _COMMON)


def append_file(path: str | Path, mode: int = 0o666) -> int:
    """Open a file to write at its end, wherever that is by then, and make it first where it is missing.

    The caller closes the descriptor. One that exists keeps its permissions.

    Raises:
        OSError: the system refused; ``ELOOP`` where the name is a link.
    """
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _COMMON, mode)


def open_private(path: str | Path) -> int:
    """Open a file for reading and writing, and make it first where it is missing; its contents stay.

    A file of this user that others may read is closed to them. The caller closes the descriptor.

    Raises:
        OSError: the system refused; ``ELOOP`` where the name is a link.
    """
    make_private_file(path)
    descriptor = os.open(path, os.O_RDWR | _COMMON)
    mode = os.fstat(descriptor).st_mode
    if mode & _OTHERS:
        with suppress(OSError):  # somebody else's file, or a file system without permissions
            os.fchmod(descriptor, mode & 0o777 & ~_OTHERS)
    return descriptor


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``: in one system call as a rule; a pipe or a full disk may take it in parts.

    Raises:
        OSError: the system refused.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def keep_files_private() -> None:
    """Let this process, and those that it starts, make no file that others may read. For programs, not for libraries."""
    os.umask(os.umask(_OTHERS) | _OTHERS)
