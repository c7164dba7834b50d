"""SIGTERM as a clean end."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn


class TerminateCleanly:
    """While installed, SIGTERM raises ``SystemExit(0)`` in the main thread, as Ctrl-C raises ``KeyboardInterrupt``.

    Otherwise it would end the process on the spot, with results still queued for the sinks. It steps in only where
    nobody else handles SIGTERM, and only in the main thread: elsewhere Python allows no handler.
    """

    def __init__(self) -> None:
        self._installed = False

    def install(self) -> None:
        """Handle SIGTERM, if nobody does."""
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _exit)
            self._installed = True

    def restore(self) -> None:
        """Undo ``install``; a second call does nothing."""
        if self._installed and signal.getsignal(signal.SIGTERM) in (_exit, signal.SIG_IGN):
            with contextlib.suppress(ValueError):  # called from another thread: the handler stays, it does no harm
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._installed = False


def _exit(number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second one would end the clean-up of the first
    sys.exit(0)
