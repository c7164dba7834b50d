"""Reading a source in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from edgecv.pipelines.slot import FrameSlot, SlotClosed, SlotPolicy
from edgecv.protocols import Source, Tensors
from edgecv.results import Frame
from edgecv.vision.geometry import ImageTransform

POLL_S = 0.05  # how soon a waiting thread notices that it shall stop
# OpenCV waits up to 10 s for a camera that stopped sending; until then its thread cannot end.
CLOSE_TIMEOUT_S = 12.0
_AHEAD = 2  # prepared frames in waiting: one hides a slow read, more would only hold memory


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """A frame as the model wants it.

    Attributes:
        feeds: Input tensors by name.
        transform: The way back to frame pixels.
        elapsed_ms: How long it took.
    """

    feeds: Tensors
    transform: ImageTransform
    elapsed_ms: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Captured:
    """A frame, and what the capture thread has already made of it (``None``: nothing yet)."""

    frame: Frame
    prepared: Prepared | None


class Capture:
    """Reads ``source`` until its end, an error or ``close``; the thread that reads is the one that closes the source.

    With the policy ``lossless`` frames are prepared here, while the model computes the one before. With ``latest`` that
    would be wasted on every frame that is dropped: there the loop prepares what it takes.
    """

    def __init__(
        self,
        source: Source,
        policy: SlotPolicy,
        prepare: Callable[[Frame], Prepared],
        max_frames: int | None = None,
    ) -> None:
        self._source = source
        self._prepare = prepare if policy == "lossless" else None
        self._left = max_frames if policy == "lossless" else None
        self._slot: FrameSlot[Captured] = FrameSlot(_AHEAD if policy == "lossless" else 1, policy)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"edgecv-capture-{source.source_id}", daemon=True)

    @property
    def dropped(self) -> int:
        """Frames given up for newer ones."""
        return self._slot.dropped

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def take(self, timeout_s: float) -> Captured | None:
        """The next frame, or ``None`` when none came until the deadline.

        Raises:
            SlotClosed: the source came to its end.
            SourceError: the source broke; everything before that was taken.
        """
        try:
            return self._slot.get(timeout_s)
        except SlotClosed:
            if self._error is None:
                raise
        raise self._error

    def close(self) -> bool:
        """Stop and release the source; ``False`` when its thread hangs in a read and had to be left behind."""
        self._slot.close(discard=True)
        if self._thread.ident is None:
            self._source.close()
            return True
        self._thread.join(CLOSE_TIMEOUT_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            try:
                self._pump()
            finally:
                self._source.close()
        except SlotClosed:
            pass
        except Exception as error:  # noqa: BLE001 - last resort of a thread: `take` raises it where the app can see it
            self._error = error
        finally:
            self._slot.close()

    def _pump(self) -> None:
        while self._left is None or self._left > 0:
            frame = self._source.read()
            if frame is None:
                return
            prepared = self._prepare(frame) if self._prepare else None
            item = Captured(frame=frame, prepared=prepared)
            while not self._slot.put(item, POLL_S):
                pass
            self._left = None if self._left is None else self._left - 1
