"""How fast a pipeline goes at this moment: frames per second, and the speed of the model against its best."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from statistics import fmean, median
from typing import NamedTuple

from edgecv.results import Result

_WINDOW_S = 20.0
_FEWEST = 10  # frames that make a median
_RECENT = 2 * _FEWEST  # frames: a model that computed none of the last ones was replaced


class _Seen(NamedTuple):
    """A frame that was done."""

    at: float
    model: str
    inference_ms: float


class FrameWatch:
    """Give ``on_result`` to a pipeline; the rest may be asked from any thread.

    Several models may run in turn, as where cameras have input shapes of their own: the times of one say nothing of another.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._frames: deque[_Seen] = deque()
        self._best_ms: dict[str, float] = {}  # of each model

    def on_result(self, result: Result) -> None:
        """Count a frame, and remember how long its inference took."""
        with self._lock:
            self._frames.append(_Seen(self._clock(), result.model, result.timings_ms.get("inference", 0.0)))
            self._forget_old()

    def fps(self) -> float:
        """Frames per second over the last 20 s; 0 where fewer than two came."""
        with self._lock:
            self._forget_old()
            if len(self._frames) < 2:
                return 0.0
            return (len(self._frames) - 1) / max(1e-9, self._frames[-1].at - self._frames[0].at)

    def speed(self) -> float | None:
        """Best inference time over that of the last 20 s, so 1 is full speed; ``None`` where too few frames came."""
        with self._lock:
            self._forget_old()
            running = {frame.model for frame in islice(reversed(self._frames), _RECENT)}
            speeds = [self._speed_of(model) for model in running]
        known = [speed for speed in speeds if speed is not None]
        return fmean(known) if known else None

    def _speed_of(self, model: str) -> float | None:
        times = [frame.inference_ms for frame in self._frames if frame.model == model and frame.inference_ms > 0]
        if len(times) < _FEWEST:
            return None
        now_ms = median(times)
        best_ms = self._best_ms[model] = min(now_ms, self._best_ms.get(model, now_ms))
        return best_ms / now_ms

    def _forget_old(self) -> None:
        while self._frames and self._clock() - self._frames[0].at > _WINDOW_S:
            self._frames.popleft()
