"""Folders that one process at a time owns."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from edgecv._internal.file_locks import lock_file, lock_owner
from edgecv._internal.private_files import make_private_folder
from edgecv.errors import SyncError


def own_folder(folder: Path, what: str, owner: str, taken: type[SyncError] = SyncError) -> BinaryIO:
    """Make a folder for its owner alone, and lock it until the file that is returned is closed.

    Messages call the folder ``what`` and a process that has it ``owner``.

    Raises:
        SyncError: it cannot be written, or another process has it (``taken``).
    """
    path = folder / "lock"
    try:
        make_private_folder(folder, parents=True)
        lock = lock_file(path, sign=True)
    except OSError as error:
        raise SyncError(f"The {what} {folder} cannot be written: {error.strerror}.", "Check it.") from error
    if lock is None:
        raise taken(
            f"The {what} {folder} belongs to the running {owner} {lock_owner(path)}.",
            "Stop that one, or give this one a folder of its own.",
        )
    return lock
