"""What is said of the other side, at most once in a while."""

from __future__ import annotations

import logging
import time

from edgecv._internal.printable import printable

_EVERY_S = 60.0


class Notice:
    """A warning that may come a thousand times a second and is written once a minute, with its count."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said_s: float | None = None
        self._count = 0

    def __call__(self, text: str) -> None:
        """Count once more, and say so when the last time is long enough ago."""
        self._count += 1
        now_s = time.monotonic()
        if self._said_s is not None and now_s - self._said_s < _EVERY_S:
            return
        self._said_s = now_s
        self._log.warning("%s (%d so far)", printable(text, 1000), self._count)
