"""Frames in work: one after the other, or several at once, always given back in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from edgecv.pipelines.capture import Captured
from edgecv.results import Result
from edgecv.timing import StageTimer

Compute = Callable[[Captured, StageTimer], Result]


class Lanes:
    """Computes frames and gives the results back in the order of the frames.

    With one lane a frame is computed when its result is asked for, in the thread that asks: nothing is older than need be.
    With more, that many are computed at once, in threads: two frames that share the cores keep them busier than one that waits for
    its own slowest thread (YOLOv8n INT8, two cores: 63 frames per second, one at a time 49).
    """

    def __init__(self, compute: Compute, count: int) -> None:
        self._compute = compute
        self._count = count
        self._waiting: deque[tuple[Captured, StageTimer]] = deque()
        self._working: deque[tuple[Future[Result], StageTimer]] = deque()
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="edgecv-lane") if count > 1 else None

    def __len__(self) -> int:
        return len(self._waiting) + len(self._working)

    @property
    def full(self) -> bool:
        """Whether as many frames are in work as there are lanes."""
        return len(self) >= self._count

    def put(self, captured: Captured, timer: StageTimer) -> None:
        """Take a frame; ``timer`` goes with it."""
        if self._pool is None:
            self._waiting.append((captured, timer))
        else:
            self._working.append((self._pool.submit(self._compute, captured, timer), timer))

    def pop(self) -> tuple[Result, StageTimer]:
        """The result of the oldest frame, and its timer; raises what computing it raised."""
        if self._waiting:
            captured, timer = self._waiting.popleft()
            return self._compute(captured, timer), timer
        future, timer = self._working.popleft()
        return future.result(), timer

    def close(self) -> None:
        """Let what is being computed end, drop the rest; a second call does nothing."""
        self._waiting.clear()
        self._working.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
