"""Ctrl-C, SIGTERM and SIGHUP as a clean end."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_PATIENCE_S = 5.0  # after that a second signal does not wait any more: something hangs
_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """While installed, a signal that arrives inside the pipeline stops it, and takes effect once everything is written.

    An exception raised by a handler in the middle of the loop could leave a lock taken or results unwritten. So there the
    handler only notes the signal and calls ``stop``; ``deliver`` does what the signal asked for. Outside, in the code of the
    app, it takes effect at once: Ctrl-C raises ``KeyboardInterrupt``, SIGTERM and SIGHUP (the terminal is gone)
    ``SystemExit(0)``. It steps in only where nobody else handles a signal, or ignores it as ``nohup`` does with SIGHUP, and
    only in the main thread: elsewhere Python allows no handler.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._previous: dict[int, Any] = {}
        self._noted: int | None = None
        self._noted_s = 0.0
        self._depth = 0

    def install(self) -> None:
        """Handle the signals that nobody handles, or whose handler leaves them to pipelines (``for_pipelines``)."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _NUMBERS:
            handler: Any = signal.getsignal(number)
            if handler in (signal.SIG_DFL, signal.default_int_handler) or getattr(handler, "for_pipelines", False):
                if getattr(handler, "asked", None) is not None:
                    handler.end()  # a signal came before this pipeline began, and what it raised was lost
                self._previous[number] = handler
                signal.signal(number, self._note)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Hold signals back while the block runs."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def restore(self) -> None:
        """Undo ``install``; a second call does nothing."""
        for number, handler in self._previous.items():
            with contextlib.suppress(ValueError):  # called from another thread: the handler stays, it does no harm
                if signal.getsignal(number) == self._note:
                    signal.signal(number, handler)

    def deliver(self) -> None:
        """Do what a signal asked for that was noted; call it in the main thread, outside ``inside``."""
        number, self._noted = self._noted, None
        if number is not None and threading.current_thread() is threading.main_thread():
            self._act(number, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._stop()
        if not self._depth or (self._noted is not None and time.monotonic() - self._noted_s > _PATIENCE_S):
            self._act(number, frame)
        elif self._noted is None:
            self._noted, self._noted_s = number, time.monotonic()

    def _act(self, number: int, frame: FrameType | None) -> None:
        handler = self._previous.get(number)
        if callable(handler):
            handler(number, frame)
        else:
            sys.exit(0)
