"""How fast a pipeline goes at this moment: frames per second, and the speed of the model against its best."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from statistics import median

from edgecv.results import Result

_WINDOW_S = 20.0
_FEWEST = 10  # frames that make a median


class FrameWatch:
    """Give ``on_result`` to a pipeline; the rest may be asked from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._frames: deque[tuple[float, float]] = deque()  # when a frame was done, and milliseconds of its inference
        self._best_ms: float | None = None
        self._model = ""

    def on_result(self, result: Result) -> None:
        """Count a frame, and remember how long its inference took."""
        with self._lock:
            if result.model != self._model:  # the times of another model say nothing of this one
                self._model, self._best_ms = result.model, None
                self._frames.clear()
            self._frames.append((self._clock(), result.timings_ms.get("inference", 0.0)))
            self._forget_old()

    def fps(self) -> float:
        """Frames per second over the last 20 s; 0 where fewer than two came."""
        with self._lock:
            self._forget_old()
            if len(self._frames) < 2:
                return 0.0
            return (len(self._frames) - 1) / max(1e-9, self._frames[-1][0] - self._frames[0][0])

    def speed(self) -> float | None:
        """Best inference time over that of the last 20 s, so 1 is full speed; ``None`` where too few frames came."""
        with self._lock:
            self._forget_old()
            times = [ms for _, ms in self._frames if ms > 0]
            if len(times) < _FEWEST:
                return None
            now_ms = median(times)
            self._best_ms = now_ms if self._best_ms is None else min(self._best_ms, now_ms)
            return self._best_ms / now_ms

    def _forget_old(self) -> None:
        while self._frames and self._clock() - self._frames[0][0] > _WINDOW_S:
            self._frames.popleft()
