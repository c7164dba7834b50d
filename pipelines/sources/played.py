"""``clip.mp4?speed=1&loop=1``: files that play at their own pace, once or over and over, as a camera would show them."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import msgspec

from edgecv.errors import SourceError
from edgecv.events import Event
from edgecv.protocols import Clock, CountsUnreadable, Source
from edgecv.results import Frame
from edgecv.status import SourceHealth, SourceState

_LONGEST_WAIT_S = 3600.0  # threads refuse to wait for centuries, which a damaged time may ask for
_CATCHES_UP_NS = 250_000_000  # a frame later than this moves all later ones: nothing is played in fast motion
_USUAL_FPS = 25.0  # of a file of one frame that says neither times nor rate


class PlayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the query of a file, a folder or a recording may say.

    Attributes:
        speed: 0: every frame, as fast as they are taken. 1: at its own pace, 2 twice as fast ...: as a camera, so that frames
            for which there is no time are lost.
        loop: Begin anew after the last frame, for ever.
    """

    speed: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0
    loop: bool = False


class TellsHealth(ABC):
    """A source that says how it is, and whose waiting can be cut short: ``Supervised`` of ``edgecv.protocols``."""

    def __init__(self, clock: Clock) -> None:
        self.on_change: Callable[[SourceHealth], None] | None = None
        self._clock = clock
        self._stopped = threading.Event()
        self._health = SourceHealth(state="connecting", since_ns=clock())

    def health(self) -> SourceHealth:
        """The state at this moment."""
        return self._health

    def interrupt(self) -> None:
        """Wait for no frame's time any more."""
        self._stopped.set()

    def read(self) -> Frame | None:
        """The next frame when its time has come, or ``None`` at the end.

        Raises ``SourceError``: it broke; the message names what is damaged.
        """
        try:
            frame = self._next()
        except SourceError as error:
            self._become("failed", error)
            self.close()
            raise
        self._become("ended" if frame is None else "live")
        return frame

    @abstractmethod
    def close(self) -> None:
        """Read no more; a second call does nothing."""

    @abstractmethod
    def _next(self) -> Frame | None:
        """The next frame, or ``None`` at the end; errors as of ``read``."""

    def _become(self, state: SourceState, error: SourceError | None = None) -> None:
        if state == self._health.state:
            return
        self._health = SourceHealth(
            state=state,
            since_ns=self._clock(),
            code="" if error is None else error.code,
            error="" if error is None else error.message,
            hint="" if error is None else error.hint,
        )
        if state == "failed" and self.on_change is not None:
            self.on_change(self._health)

    def _wait_until(self, due_ns: float) -> bool:
        """Whether the moment came; ``False`` when waiting was cut short."""
        while not self._stopped.is_set() and (left_s := (due_ns - self._clock()) / 1e9) > 0:
            self._stopped.wait(min(left_s, _LONGEST_WAIT_S))
        return not self._stopped.is_set()


class PlayedSource(TellsHealth):
    """Plays what ``make`` opens. Its frames have the time at which they were shown, and a scene that always goes forward.

    ``position_ns`` stays that of the file. One that breaks, or gives no frame, is not begun anew.

    Attributes:
        on_event: Called with ``source.looped`` whenever it begins anew, from the thread that reads.
    """

    def __init__(self, make: Callable[[], Source], options: PlayOptions, clock: Clock = time.monotonic_ns) -> None:
        super().__init__(clock)
        self._make, self._options = make, options
        self._source = make()
        self.source_id = self._source.source_id
        self.fps = self._source.fps * (options.speed or 1.0)
        self.live = options.speed > 0
        self.on_event: Callable[[Event], None] | None = None
        self._passes = 0
        self._unreadable = 0  # in the passes before
        self._next_index = self._first_index = 0
        self._pass = _Pass(0)
        self._start_ns: float | None = None  # the moment of scene 0 at this pace

    @property
    def unreadable(self) -> int:
        """Frames so far that could not be decoded; they were passed."""
        return self._unreadable + (self._source.unreadable if isinstance(self._source, CountsUnreadable) else 0)

    def close(self) -> None:
        """Read no more; a second call does nothing."""
        self._stopped.set()
        self._source.close()

    def _next(self) -> Frame | None:
        while not self._stopped.is_set():
            frame = self._source.read()
            if frame is not None:
                return self._played(frame)
            if not self._options.loop or not self._pass.frames:
                return None
            self._begin_anew()
        return None

    def _played(self, frame: Frame) -> Frame | None:
        scene_ns = self._pass.see(frame.scene_ns)
        if self.live and not self._wait_until(self._due_ns(scene_ns)):
            return None
        self._next_index = self._first_index + frame.index + 1
        return replace(
            frame,
            index=self._next_index - 1,
            captured_ns=time.time_ns(),
            monotonic_ns=self._clock(),
            scene_time_ns=scene_ns,
        )

    def _due_ns(self, scene_ns: int) -> float:
        now_ns, after_ns = self._clock(), scene_ns / self._options.speed
        if self._start_ns is None or now_ns - (self._start_ns + after_ns) > _CATCHES_UP_NS:
            self._start_ns = now_ns - after_ns
        return self._start_ns + after_ns

    def _begin_anew(self) -> None:
        self._source.close()
        self._unreadable = self.unreadable
        fps = self._source.fps or _USUAL_FPS
        self._source = self._make()
        self._pass, self._first_index = _Pass(self._pass.end_ns(fps)), self._next_index
        self._passes += 1
        if self.on_event is not None:
            data = {"passes": self._passes}
            self.on_event(Event(kind="source.looped", time_ns=time.time_ns(), source_id=self.source_id, data=data))


class _Pass:
    """Once through the file: its times of the scene, moved to where the pass before ended."""

    def __init__(self, begin_ns: int) -> None:
        self.frames = 0
        self._begin_ns = self._last_ns = begin_ns
        self._first_ns: int | None = None

    def see(self, scene_ns: int) -> int:
        """The time of a frame, by its own time in the file; it never goes back."""
        self._first_ns = scene_ns if self._first_ns is None else self._first_ns
        self.frames += 1
        self._last_ns = max(self._last_ns, self._begin_ns + scene_ns - self._first_ns)
        return self._last_ns

    def end_ns(self, fps: float) -> int:
        """When the next pass begins: after the last frame was shown as long as the others were."""
        lasted_ns = self._last_ns - self._begin_ns
        return self._last_ns + (lasted_ns // (self.frames - 1) if lasted_ns else round(1e9 / fps))
