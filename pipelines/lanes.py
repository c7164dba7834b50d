"""Frames in work: one after the other, or several at once, always given back in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from edgecv.pipelines.capture import Captured
from edgecv.results import Result
from edgecv.timing import StageTimer

Compute = Callable[[Captured, StageTimer], Result]
MOST = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Work:
    captured: Captured
    timer: StageTimer
    future: Future[Result] | None


class Lanes:
    """Computes frames and gives the results back in the order of the frames.

    With one lane a frame is computed when its result is asked for, in the thread that asks: nothing is older than need be.
    With more, that many are computed at once, in threads: two frames that share the cores keep them busier than one that waits for
    its own slowest thread (YOLOv8n INT8, two cores: 63 frames per second, one at a time 49).

    Attributes:
        count: How many frames may be in work, 1 or 2; may be changed at any time.
    """

    def __init__(self, compute: Compute, count: int) -> None:
        self.count = count
        self._compute = compute
        self._work: deque[_Work] = deque()
        self._pool: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return len(self._work)

    @property
    def full(self) -> bool:
        """Whether as many frames are in work as there are lanes."""
        return len(self) >= self.count

    def holds(self, source_id: str) -> bool:
        """Whether a frame of this source is in work."""
        return any(work.captured.frame.source_id == source_id for work in self._work)

    def put(self, captured: Captured, timer: StageTimer) -> None:
        """Take a frame; ``timer`` goes with it."""
        future = self._submit(captured, timer) if self.count > 1 else None
        self._work.append(_Work(captured=captured, timer=timer, future=future))

    def pop(self) -> tuple[Result, StageTimer]:
        """The result of the oldest frame, and its timer; raises what computing it raised."""
        work = self._work.popleft()
        result = self._compute(work.captured, work.timer) if work.future is None else work.future.result()
        return result, work.timer

    def close(self) -> None:
        """Let what is being computed end, drop the rest; a second call does nothing."""
        self._work.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, captured: Captured, timer: StageTimer) -> Future[Result]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(MOST, thread_name_prefix="edgecv-lane")
        return self._pool.submit(self._compute, captured, timer)
