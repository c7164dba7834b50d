"""Small files of the kernel that are read again and again: they stay open, and what cannot be read has a reason."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from edgecv.devices.roots import to_int

_MOST_BYTES = 4096  # a file of sysfs is at most one page


class KeptFile:
    """One file. It is opened when it is first read, and again after an error: a zone may vanish and come back.

    Attributes:
        path: Where it is.
        problem: Why the last reading gave nothing; empty when it gave something.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""
        self._descriptor: int | None = None

    def text(self) -> str | None:
        """The content without white space around it; ``None`` when it cannot be read, or holds nothing."""
        try:
            content = os.pread(self._opened(), _MOST_BYTES, 0)
        except OSError as error:
            self.problem = f"{self.path}: {error.strerror}"
            self.close()
            return None
        text = content.decode(errors="replace").strip("\0\n ")
        self.problem = "" if text else f"{self.path} is empty"
        return text or None

    def number(self) -> int | None:
        """The decimal number in the file; ``None`` when there is none."""
        text = self.text()
        if text is None:
            return None
        value = to_int(text)
        if value is None:
            self.problem = f"{self.path} holds no number"
        return value

    def close(self) -> None:
        """Let go of the file; the next reading opens it again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _opened(self) -> int:
        if self._descriptor is None:
            # Without waiting: a pipe in the place of a file would hold up the caller for ever.
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        return self._descriptor
