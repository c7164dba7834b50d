"""A recording that is read: its frames, and what was found in them in place of a model."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from edgecv.errors import ConfigError, SourceError
from edgecv.media.images import read_image
from edgecv.pipelines.recording.layout import RESULTS, Header, image_path, inside, read_header
from edgecv.pipelines.recording.records import Extent, Record, damaged, measure, read_records, restore
from edgecv.results import Classification, Detections, Frame, Image

log = logging.getLogger("edgecv.pipelines")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedFrame(Frame):
    """A frame of a recording, with its original times and index.

    ``found`` is what the model found in it then, ``place`` its position among the frames of all sources.
    """

    found: Detections | Classification
    place: int

    def with_image(self, image: Image) -> RecordedFrame:
        """The same with another image; what was found and its place stay."""
        return replace(self, image=image)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A recording on disk, with what it says about itself; ``Recording.open`` reads it through once."""

    path: Path
    header: Header
    extent: Extent

    @classmethod
    def open(cls, path: str | Path) -> Recording:
        """Find out what a folder holds; a record that was being written when its process died is left out, and logged.

        Raises ``SourceError`` when it is no recording, damaged, empty, not all there, or of a newer EdgeCV.
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
        """All records in the order in which they were written. Raises ``SourceError``: one is damaged."""
        for record in read_records(inside(self.path, RESULTS), self.extent.whole_bytes):
            if not 0 <= record.source < len(self.header.sources):
                raise damaged(self.path, "a frame has no source")
            yield record

    def frame(self, record: Record, place: int) -> RecordedFrame:
        """The frame of a record, which stands at ``place`` in the file, with its image.

        Raises ``SourceError`` when the image is missing, damaged or another one.
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

        Raises ``ConfigError`` when there is none of that name, or several and no name.
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


class RecordedModel:
    """In place of a model: says about each frame of a recording what the recorded model said."""

    def __init__(self, header: Header) -> None:
        self.name = header.model
        self.labels = header.labels
        self.task = header.task

    def recall(self, frame: Frame) -> Detections | Classification:
        """What was found in this frame. Raises ``SourceError``: it is no frame of a recording."""
        if isinstance(frame, RecordedFrame):
            return frame.found
        raise SourceError(
            f"Nothing is known about frame {frame.index} of {frame.source_id}: it was not recorded.",
            "Give a model for frames of other sources.",
        )


def _check_complete(recording: Recording) -> None:
    names = [source.name for source in recording.header.sources]
    if len(set(names)) < len(names):
        raise damaged(recording.path, "a source stands there twice")
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
        raise damaged(recording.path, "it names no source")
