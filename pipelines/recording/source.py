"""The frames of a recording as a source."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import msgspec

from edgecv.pipelines.recording.recording import RecordedFrame, Recording
from edgecv.pipelines.recording.records import Record
from edgecv.pipelines.sources.played import PlayOptions, TellsHealth
from edgecv.pipelines.uris import Uri, parse_source, read_options
from edgecv.protocols import Clock, SourceType
from edgecv.results import Frame


class RecordedSource(TellsHealth):
    """The frames of one source of a recording, with their original index and times; it waits for who takes them.

    Their ages are meaningless: they were captured long ago, perhaps on another machine. Use no ``max_age_ms`` with it. With a
    speed, ages are those since a frame was shown again.

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
        super().__init__(clock)
        self._recording = recording
        self._number = number
        self._speed = speed
        self.source_id = recording.header.sources[number].name
        self.fps = recording.header.sources[number].fps
        # With a speed each source keeps its own time: waiting for the next frame of another would delay this one's.
        self.place: Callable[[Frame], int] | None = None if speed else _place
        self._records = recording.records()
        self._at = 0
        self._start_ns = self._origin_ns = 0

    def close(self) -> None:
        """Read no more; a second call does nothing."""
        self._stopped.set()
        self._records.close()  # type: ignore[attr-defined]  # a generator

    def _next(self) -> Frame | None:
        if self._stopped.is_set():
            return None
        for record in self._records:
            place, self._at = self._at, self._at + 1
            self._origin_ns = self._origin_ns or record.monotonic_ns  # of the first frame of any source: they keep step
            if record.source == self._number:
                frame = self._recording.frame(record, place)
                return self._in_time(frame, record) if self._speed else frame
        return None

    def _in_time(self, frame: RecordedFrame, record: Record) -> RecordedFrame | None:
        self._start_ns = self._start_ns or self._clock()
        if not self._wait_until(self._start_ns + (record.monotonic_ns - self._origin_ns) / self._speed):
            return None
        return replace(frame, monotonic_ns=self._clock(), scene_time_ns=frame.scene_ns)


def _place(frame: Frame) -> int:
    assert isinstance(frame, RecordedFrame)
    return frame.place


class RecordingOptions(PlayOptions, frozen=True, kw_only=True):
    """What the query of ``recording://`` may say: a source, by name or number, where there are several, and how it is played."""

    source: str = ""


class RecordingSource(RecordedSource, SourceType):
    """``recording://door.rec?source=0``: the frames of a recording as a source for any model."""

    Options: ClassVar[type[msgspec.Struct]] = RecordingOptions

    def __init__(self, uri: str | Uri) -> None:
        """Open the recording; errors as of ``Recording.open``, and ``ConfigError`` when there is no such source or option."""
        parsed = parse_source(uri)
        options = read_options(parsed, RecordingOptions)
        recording = Recording.open(parsed.path)
        super().__init__(recording, recording.number_of(options.source))
