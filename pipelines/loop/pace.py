"""At most so many frames a second through the model; may be changed while a pipeline runs."""

from __future__ import annotations

import time
from collections.abc import Callable

from edgecv._internal.strict import check_number

_SLOWEST_FPS = 0.01


class Pace:
    """Set from any thread; asked by the loop alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._fps: float | None = None
        self._last = float("-inf")  # when the last frame went, or should have gone: so the rate is kept on average

    @property
    def fps(self) -> float | None:
        """Frames per second; ``None`` for as many as there are. ``ConfigError`` for what is no rate."""
        return self._fps

    @fps.setter
    def fps(self, fps: float | None) -> None:
        if fps is not None:
            check_number("pace", fps, _SLOWEST_FPS, hint="Frames per second; None for as many as there are.")
        self._fps = fps

    def wait_s(self) -> float:
        """Seconds until the next frame may go; 0 when it may go now."""
        fps = self._fps
        return 0.0 if fps is None else max(0.0, self._last + 1 / fps - self._clock())

    def took(self) -> None:
        """Remember that a frame goes through the model now."""
        now, fps = self._clock(), self._fps
        on_time = fps is not None and now - self._last < 2 / fps
        self._last = self._last + 1 / fps if fps is not None and on_time else now
