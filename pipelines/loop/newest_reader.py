"""Taking the newest frame of a source that keeps it itself."""

from __future__ import annotations

import time

from edgecv.errors import SourceError
from edgecv.pipelines.loop.source_reader import SourceReader
from edgecv.pipelines.loop.work import Work
from edgecv.protocols import KeepsNewest


class NewestReader(SourceReader):
    """Takes the newest frame of a source when the loop wants one, in the thread of the loop.

    There is no thread and no buffer beside those of the source, and a frame that is dropped is never copied.
    """

    source: KeepsNewest

    def start(self) -> None:
        """Be told of frames from now on."""
        self.source.wants, self.source.on_frame = self._is_chosen, self._slot.notify

    def poll(self) -> Work | None:
        """The newest frame, or ``None`` when there is none now; raises as that of ``SourceReader``."""
        self._slot.peek()  # raises once it is closed
        health = self.source.health()  # asked first: what came before the end is still taken
        try:
            frame = self.source.newest()
            if frame is not None:
                self._check(frame)
                if (work := self._admitted(frame)) is not None:
                    return work
        except Exception as error:  # noqa: BLE001 - a frame that cannot be used ends its source, and no other
            self._fail(error)
            self.begin_close()
        if health.state == "failed":
            self.error = self.error or SourceError(health.error, health.hint, code=health.code)
        if health.state in ("failed", "ended"):
            self._slot.close()
        self._slot.peek()
        return None

    def begin_close(self) -> None:
        """Stop; ``join`` waits for it."""
        self._slot.give_up()
        self.source.begin_close()

    def join(self, deadline_s: float) -> bool:
        """Wait, until ``time.monotonic()`` is ``deadline_s``, for the source to be released."""
        self.source.begin_close()
        return self.source.wait_closed(max(0.0, deadline_s - time.monotonic()))
