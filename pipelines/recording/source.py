"""The frames of a recording as a source."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Annotated, ClassVar

import msgspec

from edgecv.errors import SourceError
from edgecv.pipelines.recording.recording import RecordedFrame, Recording
from edgecv.pipelines.recording.records import Record
from edgecv.pipelines.uris import Uri, parse_source, read_options
from edgecv.protocols import Clock, SourceType
from edgecv.results import Frame
from edgecv.status import SourceHealth, SourceState

_LONGEST_WAIT_S = 3600.0  # threads refuse to wait for centuries, which a damaged time may ask for


class RecordedSource:
    """The frames of one source of a recording, with their original index and times; it waits for who takes them.

    Their ages are meaningless: they were captured long ago, perhaps on another machine. Use no ``max_age_ms`` with it.

    Attributes:
        on_change: Called when an image or record turns out to be damaged.
        place: Says where a frame stands among those of all sources; ``None`` where ``speed`` decides.
    """

    live = False

    def __init__(
        self, recording: Recording, number: int, *, speed: float = 0.0, clock: Clock = time.monotonic_ns
    ) -> None:
        """The source at position ``number`` in the header.

        ``speed`` 0 is as fast as frames are taken, 1 as fast as they were captured, 2 twice as fast ... ``clock`` gives
        nanoseconds.
        """
        self._recording = recording
        self._number = number
        self._speed = speed
        self._clock = clock
        self.source_id = recording.header.sources[number].name
        self.fps = recording.header.sources[number].fps
        self.on_change: Callable[[SourceHealth], None] | None = None
        # With a speed each source keeps its own time: waiting for the next frame of another would delay this one's.
        self.place: Callable[[Frame], int] | None = None if speed else _place
        self._records = recording.records()
        self._at = 0
        self._stopped = threading.Event()
        self._start_ns = self._origin_ns = 0
        self._health = SourceHealth(state="connecting", since_ns=clock())

    def read(self) -> Frame | None:
        """The next frame, or ``None`` after the last.

        Raises ``SourceError`` when an image or a record is damaged; the message names it.
        """
        try:
            frame = self._next()
        except SourceError as error:
            self._become("failed", error)
            self.close()
            raise
        self._become("ended" if frame is None else "live")
        return frame

    def close(self) -> None:
        """Read no more; a second call does nothing."""
        self._stopped.set()
        self._records.close()  # type: ignore[attr-defined]  # a generator

    def health(self) -> SourceHealth:
        """The state of the replay at this moment."""
        return self._health

    def interrupt(self) -> None:
        """Wait for no frame's time any more."""
        self._stopped.set()

    def _next(self) -> Frame | None:
        if self._stopped.is_set():
            return None
        for record in self._records:
            place, self._at = self._at, self._at + 1
            self._origin_ns = self._origin_ns or record.monotonic_ns  # of the first frame of any source: they keep step
            if record.source == self._number:
                frame = self._recording.frame(record, place)
                return frame if self._is_due(record) else None
        return None

    def _is_due(self, record: Record) -> bool:
        if not self._speed:
            return True
        self._start_ns = self._start_ns or self._clock()
        due_ns = self._start_ns + (record.monotonic_ns - self._origin_ns) / self._speed
        while not self._stopped.is_set() and (left_s := (due_ns - self._clock()) / 1e9) > 0:
            self._stopped.wait(min(left_s, _LONGEST_WAIT_S))
        return not self._stopped.is_set()

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


def _place(frame: Frame) -> int:
    assert isinstance(frame, RecordedFrame)
    return frame.place


class RecordingOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the query of ``recording://`` may say: a source, by name or number, needed where there are several, and a speed."""

    source: str = ""
    speed: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0


class RecordingSource(RecordedSource, SourceType):
    """``recording://door.rec?source=0``: the frames of a recording as a source for any model."""

    Options: ClassVar[type[msgspec.Struct]] = RecordingOptions

    def __init__(self, uri: str | Uri) -> None:
        """Open the recording; errors as of ``Recording.open``, and ``ConfigError`` when there is no such source or option."""
        parsed = parse_source(uri)
        options = read_options(parsed, RecordingOptions)
        recording = Recording.open(parsed.path)
        super().__init__(recording, recording.number_of(options.source), speed=options.speed)
