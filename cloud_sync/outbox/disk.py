"""Private files, locks, and what keeps SQLite alive on a full disk: a floor of free space, and a ballast file to drop."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

_CHECK_EVERY_S = 1.0


def make_private_folder(folder: Path) -> None:
    """Make a folder, and what is missing above it, that only its owner may enter; one that is there stays as it is.

    Raises:
        OSError: it cannot be made.
    """
    for missing in [one for one in (*reversed(folder.parents), folder) if not one.exists()]:
        with suppress(FileExistsError):  # another process was faster
            missing.mkdir(mode=0o700)
            missing.chmod(0o700)  # whatever the umask took away
    folder.mkdir(exist_ok=True)  # an error when something else has its name


def make_private_file(path: Path) -> None:
    """Make an empty file that only its owner may read; one that is there stays as it is.

    Raises:
        OSError: it cannot be made.
    """
    with suppress(FileExistsError):
        os.close(_create_private(path))


def _create_private(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.fchmod(descriptor, 0o600)  # whatever the umask took away
    return descriptor


def lock_file(path: Path) -> IO[str] | None:
    """Take a file lock that the kernel drops when this process dies; ``None`` when another holds it.

    Raises:
        OSError: the file cannot be written, or is a link, which could lead to a file of somebody else.
    """
    make_private_file(path)
    handle = os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW), "a+", encoding="utf-8")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return None
    handle.truncate(0)
    handle.write(f"{os.getpid()}\n")
    handle.flush()
    return handle


def lock_owner(path: Path) -> str:
    """The process that wrote itself into the lock file, for messages only."""
    try:
        return path.read_text(encoding="utf-8").strip()[:20] or "unknown"
    except (OSError, UnicodeDecodeError):
        return "unknown"


class DiskGuard:
    """Watches the free space of a folder and keeps a ballast file in it.

    A full disk wedges a SQLite WAL: INSERT, DELETE and checkpoint all fail, so rows could not even be deleted after
    their acknowledgement. Dropping the ballast frees what that needs (measured; docs of the room).
    """

    def __init__(self, folder: Path, *, floor_bytes: int, ballast_bytes: int, now_s: Callable[[], float]) -> None:
        self._folder = folder
        self._ballast = folder / "ballast"
        self._floor_bytes = floor_bytes
        self._ballast_bytes = ballast_bytes
        self._now_s = now_s
        self._checked_s: float | None = None
        self._low = False

    def is_low(self) -> bool:
        """Whether free space is below the floor; looked up once a second."""
        now_s = self._now_s()
        if self._checked_s is None or now_s - self._checked_s >= _CHECK_EVERY_S:
            self._checked_s = now_s
            self._low = self._free_bytes() < self._floor_bytes
            self._restore_ballast()
        return self._low

    def drop_ballast(self) -> bool:
        """Free the ballast; ``False`` when it is already gone."""
        try:
            self._ballast.unlink()
        except FileNotFoundError:
            return False
        return True

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self._folder).free

    def _restore_ballast(self) -> None:
        if self._ballast.exists() or self._free_bytes() < self._floor_bytes + 2 * self._ballast_bytes:
            return
        try:
            with os.fdopen(_create_private(self._ballast), "wb") as handle:
                if self._ballast_bytes:
                    os.posix_fallocate(handle.fileno(), 0, self._ballast_bytes)
        except OSError:
            self._ballast.unlink(missing_ok=True)
