"""A recording that is read: its frames as a source, and what was found in them in place of a model."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec

from edgecv.errors import ConfigError, SourceError
from edgecv.media.images import read_image
from edgecv.pipelines.recording.layout import RESULTS, Header, image_path, inside, read_header
from edgecv.pipelines.recording.records import Extent, Record, measure, read_records, restore
from edgecv.pipelines.uris import Uri, parse_source, read_options
from edgecv.protocols import Clock, SourceType
from edgecv.results import Classification, Detections, Frame
from edgecv.status import SourceHealth, SourceState

_LONGEST_WAIT_S = 3600.0  # threads refuse to wait for centuries, which a damaged time may ask for

log = logging.getLogger("edgecv.pipelines")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedFrame(Frame):
    """A frame of a recording, with its original times and index.

    Attributes:
        found: What the model found in it when it was recorded.
        place: Its position among the frames of all sources.
    """

    found: Detections | Classification
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A recording on disk; ``Recording.open`` reads it through once.

    Attributes:
        path: The folder.
        header: What it says about itself.
        extent: How many frames it holds.
    """

    path: Path
    header: Header
    extent: Extent

    @classmethod
    def open(cls, path: str | Path) -> Recording:
        """Find out what a folder holds; a record that was being written when its process died is left out, and logged.

        Raises:
            SourceError: it is no recording, damaged, empty, not all of it is there, or a newer EdgeCV wrote it.
        """
        folder = Path(path)
        header = read_header(folder)
        recording = cls(path=folder, header=header, extent=measure(inside(folder, RESULTS)))
        _check_complete(recording)
        for line in recording.notes:
            log.warning("%s: %s", folder, line)
        return recording

    @property
    def notes(self) -> tuple[str, ...]:
        """What is unusual about it, in words."""
        if self.header.frames is not None:
            return ()
        torn = self.extent.torn_bytes
        cut = f", and the last {torn} bytes, an unfinished record, are ignored" if torn else ""
        return (
            f"It was not closed, the recording program was killed or still runs: {self.extent.records} frames{cut}.",
        )

    def records(self) -> Iterator[Record]:
        """All records in the order in which they were written.

        Raises:
            SourceError: one is damaged.
        """
        for record in read_records(inside(self.path, RESULTS), self.extent.whole_bytes):
            if not 0 <= record.source < len(self.header.sources):
                raise _damaged(self.path, "a frame has no source")
            yield record

    def frame(self, record: Record, place: int) -> RecordedFrame:
        """The frame of a record, which stands at ``place`` in the file, with its image.

        Raises:
            SourceError: the image is missing, damaged or another one.
        """
        path = inside(self.path, image_path(self.header, record.source, record.image))
        image = read_image(path)
        if image.shape[:2] != (record.height, record.width):
            raise SourceError(
                f"{path} is {image.shape[1]} x {image.shape[0]}, recorded was {record.width} x {record.height}.",
                "Restore it from a copy.",
                code="codec",
            )
        return RecordedFrame(
            image=image,
            index=record.index,
            source_id=self.header.sources[record.source].name,
            captured_ns=record.captured_ns,
            monotonic_ns=record.monotonic_ns,
            position_ns=record.position_ns,
            found=restore(record, self.path / RESULTS),
            place=place,
        )

    def number_of(self, name: str) -> int:
        """Position of a source by its name, or by that number as text; empty for the only one.

        Raises:
            ConfigError: there is none of that name, or several and no name.
        """
        names = [source.name for source in self.header.sources]
        if name in names:
            return names.index(name)
        if name.isdecimal() and int(name) < len(names):
            return int(name)
        if not name and len(names) == 1:
            return 0
        raise ConfigError(
            f"{self.path} has no source '{name}'." if name else f"{self.path} has {len(names)} sources.",
            f"Choose by name or number with ?source=0. It has: {', '.join(names)}.",
        )


class RecordedSource:
    """The frames of one source of a recording, with their original index and times.

    Their ages are meaningless: they were captured long ago, perhaps on another machine. Use no ``max_age_ms`` with it.

    Attributes:
        source_id: The name that the source had.
        live: ``False``: it waits.
        fps: What the source announced.
        on_change: Called when an image or record turns out to be damaged.
        place: Says where a frame stands among those of all sources; ``None`` where ``speed`` decides.
    """

    live = False

    def __init__(
        self, recording: Recording, number: int, *, speed: float = 0.0, clock: Clock = time.monotonic_ns
    ) -> None:
        """One source of an open recording.

        Args:
            recording: The recording.
            number: Position of the source in its header.
            speed: 0 as fast as frames are taken; 1 as fast as they were captured, 2 twice as fast ...
            clock: Monotonic nanoseconds.
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

        Raises:
            SourceError: an image or a record is damaged; the message names it.
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
        """Wait until it is; ``False`` when it was interrupted."""
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
    """What the query of ``recording://`` may say.

    Attributes:
        source: Which one, by name or number; needed where there are several.
        speed: See ``RecordedSource``.
    """

    source: str = ""
    speed: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0


class RecordingSource(RecordedSource, SourceType):
    """``recording://door.rec?source=0``: the frames of a recording as a source for any model."""

    Options: ClassVar[type[msgspec.Struct]] = RecordingOptions

    def __init__(self, uri: str | Uri) -> None:
        """Open the recording.

        Raises:
            SourceError: see ``Recording.open``.
            ConfigError: there is no such source or option.
        """
        parsed = parse_source(uri)
        options = read_options(parsed, RecordingOptions)
        recording = Recording.open(parsed.path)
        super().__init__(recording, recording.number_of(options.source), speed=options.speed)


class RecordedModel:
    """In place of a model: says about each frame of a recording what the recorded model said.

    Attributes:
        name: The recorded model and variant.
        labels: Its classes.
        task: What it did.
    """

    def __init__(self, header: Header) -> None:
        self.name = header.model
        self.labels = header.labels
        self.task = header.task

    def recall(self, frame: Frame) -> Detections | Classification:
        """What was found in this frame.

        Raises:
            SourceError: it is no frame of a recording.
        """
        if isinstance(frame, RecordedFrame):
            return frame.found
        raise SourceError(
            f"Nothing is known about frame {frame.index} of {frame.source_id}: it was not recorded.",
            "Give a model for frames of other sources.",
        )


def _check_complete(recording: Recording) -> None:
    names = [source.name for source in recording.header.sources]
    if len(set(names)) < len(names):
        raise _damaged(recording.path, "a source stands there twice")
    expected, found = recording.header.frames, recording.extent.records
    if expected is not None and expected != found:
        raise SourceError(
            f"{recording.path} holds {found} of {expected} frames.",
            "Was it copied to its end? Copy it again.",
            code="eof",
        )
    if not found:
        raise SourceError(
            f"{recording.path} holds no frames.", "Record again, until the first frames are reported.", code="eof"
        )
    if not names:
        raise _damaged(recording.path, "it names no source")


def _damaged(folder: Path, what: str) -> SourceError:
    return SourceError(f"{folder} is damaged: {what}.", "Restore it from a copy.", code="codec")
