"""What keeps SQLite alive on a full disk: a floor of free space, and a ballast file to drop."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from edgecv._internal.private_files import create_private

_CHECK_EVERY_S = 1.0


class DiskGuard:
    """Watches the free space of a folder and keeps a ballast file in it.

    A full disk wedges a SQLite WAL: INSERT, DELETE and checkpoint all fail, so rows could not even be deleted after
    their acknowledgement. Dropping the ballast frees what that needs (measured; docs of the room).
    """

    def __init__(self, folder: Path, *, floor_bytes: int, ballast_bytes: int) -> None:
        self._folder = folder
        self._ballast = folder / "ballast"
        self._floor_bytes = floor_bytes
        self._ballast_bytes = ballast_bytes
        self._checked_s: float | None = None
        self._low = False

    def is_low(self) -> bool:
        """Whether free space is below the floor; looked up once a second."""
        now_s = time.monotonic()
        if self._checked_s is None or now_s - self._checked_s >= _CHECK_EVERY_S:
            self._checked_s = now_s
            self._low = self._free_bytes() < self._floor_bytes
            self._restore_ballast()
        return self._low

    def drop_ballast(self) -> bool:
        """Free the ballast; ``False`` when it is already gone, or nothing can be deleted either."""
        try:
            self._ballast.unlink()
        except OSError:  # such as a file system that became read-only
            return False
        return True

    def _free_bytes(self) -> int:
        try:
            return shutil.disk_usage(self._folder).free
        except OSError:  # the disk is gone; what is to be written will say so
            return 0

    def _restore_ballast(self) -> None:
        if self._ballast.exists() or self._free_bytes() < self._floor_bytes + 2 * self._ballast_bytes:
            return
        try:
            with os.fdopen(create_private(self._ballast), "wb") as handle:
                if self._ballast_bytes:
                    os.posix_fallocate(handle.fileno(), 0, self._ballast_bytes)
        except OSError:
            self.drop_ballast()
