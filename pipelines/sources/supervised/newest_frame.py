"""The newest frame that a worker gave, in shared memory until somebody takes it."""

from __future__ import annotations

import threading
from typing import TypeAlias

from edgecv.pipelines.sources.supervised.ring import RingReader
from edgecv.pipelines.sources.supervised.wire import ImageMessage
from edgecv.pipelines.sources.supervised.worker_process import WorkerProcess
from edgecv.results import Frame

_Waiting: TypeAlias = tuple[WorkerProcess, RingReader, ImageMessage, int]


class NewestFrame:
    """Holds one frame; a newer one takes its place, and each is taken at most once.

    ``dropped`` counts those that never were.
    """

    def __init__(self, source_id: str, changed: threading.Condition) -> None:
        """Nothing yet; ``changed`` is notified of every frame."""
        self._source_id, self._changed = source_id, changed
        self._waiting: _Waiting | None = None
        self.dropped = self.next_index = 0

    @property
    def is_there(self) -> bool:
        """Whether a frame waits."""
        return self._waiting is not None

    def put(self, worker: WorkerProcess, image: ImageMessage, index: int, is_wanted: bool) -> None:
        """A frame came; one that is not wanted goes back to its worker at once."""
        assert worker.ring is not None
        with self._changed:
            self.dropped += index - self.next_index
            self.next_index = index + 1
            unused: _Waiting | None = (worker, worker.ring, image, index)
            if is_wanted:
                unused, self._waiting = self._waiting, unused
                self.dropped += unused is not None
            self._changed.notify_all()
        if unused is not None:
            unused[0].give_back(unused[2])

    def take(self) -> Frame | None:
        """A copy of the frame that waits; never waits itself."""
        with self._changed:
            waiting, self._waiting = self._waiting, None
        if waiting is None:
            return None
        worker, ring, message, index = waiting
        try:
            image = ring.copy(message)
        finally:
            worker.give_back(message)
        return Frame(
            image=image,
            index=index,
            source_id=self._source_id,
            captured_ns=message.captured_ns,
            monotonic_ns=message.monotonic_ns,
        )

    def clear(self) -> None:
        """Let go of the shared memory."""
        self._waiting = None
