"""Frames in the model: one after the other, or several at once, always given back in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from queue import SimpleQueue
from threading import Lock, Thread

from edgecv.pipelines.loop.work import Work
from edgecv.results import Result

Compute = Callable[[Work], Result]
MOST = 2


class OrderedInference:
    """Computes frames and gives the results back in the order of the frames.

    With ``count`` 1, which may be changed at any time, a frame is computed when its result is asked for, in the thread that
    asks: nothing is older than need be. With 2, that many are computed at once, in threads: two frames that share the cores
    keep them busier than one that waits for its own slowest thread (YOLOv8n INT8, two cores: 63 frames per second, one at a
    time 49).
    """

    def __init__(self, compute: Compute, count: int) -> None:
        self.count = count
        self._compute = compute
        self._work: deque[Work] = deque()
        # Not a ThreadPoolExecutor: the interpreter shuts those down before the threads of the app have ended.
        self._todo: SimpleQueue[Work | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._changing = Lock()
        self._closed = False

    def __len__(self) -> int:
        return len(self._work)

    @property
    def full(self) -> bool:
        """Whether as many frames are in flight as may be."""
        return len(self) >= self.count

    def holds(self, source_id: str) -> bool:
        """Whether a frame of this source is in flight."""
        return any(work.frame.source_id == source_id for work in self._work)

    def put(self, work: Work) -> None:
        """Take a frame. Raises ``CancelledError`` once closed."""
        work.future = Future() if self.count > 1 else None
        with self._changing:
            if self._closed:
                raise CancelledError
            self._work.append(work)
            if work.future is not None:
                self._start()
                self._todo.put(work)

    def pop(self) -> Result:
        """The result of the oldest frame; raises what computing it raised, and ``CancelledError`` once closed."""
        try:
            work = self._work.popleft()
        except IndexError:
            raise CancelledError from None
        return self._compute(work) if work.future is None else work.future.result()

    def close(self) -> None:
        """Let what is being computed end, drop the rest; a second call does nothing."""
        with self._changing:
            self._closed = True
            for work in tuple(self._work):
                if work.future is not None:
                    work.future.cancel()
            self._work.clear()
            threads, self._threads = self._threads, []
        for _ in threads:
            self._todo.put(None)
        for thread in threads:
            thread.join()

    def _start(self) -> None:
        for number in range(len(self._threads), MOST):
            self._threads.append(Thread(target=self._run, name=f"edgecv-inference-{number}", daemon=True))
            self._threads[-1].start()

    def _run(self) -> None:
        while (work := self._todo.get()) is not None:
            assert work.future is not None
            if not work.future.set_running_or_notify_cancel():
                continue
            try:
                work.future.set_result(self._compute(work))
            except BaseException as error:  # noqa: BLE001 - the loop raises it
                work.future.set_exception(error)
            del work  # a frame is not kept until the next one comes
