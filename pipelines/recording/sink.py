"""``record:NAME.rec``: frames, their times and what was found in them."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec
from msgspec.structs import replace

from edgecv._internal.atomic import check_replaceable, is_empty, remove_abandoned, write_private
from edgecv._internal.extras import require
from edgecv._internal.file_locks import is_locked, try_lock
from edgecv._internal.output_files import open_target
from edgecv._internal.private_files import make_private_folder, write_all
from edgecv.errors import ConfigError, SinkError
from edgecv.pipelines.recording.layout import (
    HEADER,
    RECORDING,
    RESULTS,
    SUFFIXES,
    Header,
    ImageFormat,
    RecordedFrom,
    cannot_write,
    image_path,
    write_header,
)
from edgecv.pipelines.recording.records import Record, encode_record, store
from edgecv.pipelines.uris import Uri, read_options
from edgecv.protocols import Clock, SinkType
from edgecv.results import Detections, Frame, Image, Result
from edgecv.version import __version__

MAX_GB = 20.0  # fits a 32 GB card; 1080p at 25 frames per second and 310 kB each (vtest.avi, enlarged): 40 minutes
_JPEG_QUALITY = 90
_PNG_LEVEL = 1  # vtest.avi: 36 ms per frame; level 3 takes 51 ms for files 4 % smaller, JPEG 2 ms


class RecordOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the query of ``record:`` may say; see ``RecordSink``."""

    frames: ImageFormat = "jpeg"
    overwrite: bool = False
    max_gb: Annotated[float, msgspec.Meta(gt=0)] = MAX_GB
    max_minutes: Annotated[float, msgspec.Meta(gt=0)] | None = None


class RecordSink(SinkType):
    """Writes a recording that stays readable, up to the last whole frame, when the process is killed; for its owner alone.

    It records what it is given: in a pipeline with steps that is what they left. A recording that shall be replayed through
    steps is made without any, as ``edgecv record`` does.

    Attributes:
        frames: How many were recorded.
        size_bytes: Images and records together.
        full: Why nothing more is recorded: ``max_gb`` or ``max_minutes`` was reached; empty before.
    """

    Options: ClassVar[type[msgspec.Struct]] = RecordOptions

    def __init__(
        self,
        path: str | Path,
        *,
        images: ImageFormat = "jpeg",
        overwrite: bool = False,
        max_gb: float = MAX_GB,
        max_minutes: float | None = None,
        fps: float | Mapping[str, float] = 0.0,
        task: str = "",
        confidence: float | None = None,
        iou: float | None = None,
        classes: Sequence[str | int] | None = None,
        clock: Clock = time.time_ns,
    ) -> None:
        """Make the folder, ``NAME.rec``; the one above it exists.

        Args:
            images: ``jpeg``, of quality 90, or ``png``, with which a model finds the same again, bit for bit.
            overwrite: Replace an existing recording.
            max_gb: Record no more than so many gigabytes, of 10^9 bytes.
            max_minutes: Record no longer than this, by the clock of the frames.
            fps: What the source announces, or each of them by its name.
            task: What the model does; otherwise only boxes and classes are told apart.
            confidence: The limit the model is run with, noted for a run that repeats this one; like ``iou`` and
                ``classes``.
            clock: UTC nanoseconds.

        Raises:
            ConfigError: the target exists and is not to be replaced, or is no recording; an argument makes no sense.
            SinkError: it cannot be written there.
        """
        if images not in SUFFIXES:
            raise ConfigError(f"Frames cannot be stored as '{images}'.", f"Known: {', '.join(SUFFIXES)}.")
        if not max_gb > 0 or (max_minutes is not None and not max_minutes > 0):
            raise ConfigError("max_gb and max_minutes must be positive.", "Leave max_minutes out for no limit.")
        self._cv2 = require("cv2", "vision")
        self.frames = self.size_bytes = 0
        self.full = ""
        self._path = Path(path)
        self._max_bytes = max_gb * 1e9
        self._max_ns = None if max_minutes is None else max_minutes * 60e9
        self._fps = fps
        self._broken = ""
        self._start_ns: int | None = None
        self._header = Header(
            edgecv=__version__,
            created=datetime.fromtimestamp(clock() / 1e9, timezone.utc).isoformat(timespec="seconds"),
            images=images,
            task=task,
            confidence=confidence,
            iou=iou,
            classes=None if classes is None else tuple(classes),
        )
        self._numbers: dict[str, int] = {}
        self._old = _make_folder(self._path, overwrite)
        self._file = open_target(self._path / RESULTS, private=True)
        with contextlib.suppress(OSError):  # a file system without locks
            try_lock(self._file)
        self._write_header()

    @classmethod
    def from_uri(cls, uri: Uri, *, fps: float = 0.0, overwrite: bool = False) -> RecordSink:
        """Open ``record:NAME.rec``; errors as in the constructor."""
        options = read_options(uri, RecordOptions)
        return cls(
            uri.path,
            images=options.frames,
            overwrite=overwrite or options.overwrite,
            max_gb=options.max_gb,
            max_minutes=options.max_minutes,
            fps=fps,
        )

    def emit(self, result: Result) -> None:
        """Record one frame: first its image, then what was found.

        Raises ``SinkError`` when it could not be written, a limit was reached, or the sink is closed.
        """
        if self.full or self._broken or self._file.closed:
            raise SinkError(self.full or f"{self._path} is {self._broken or 'closed'}.")
        image = self._encode(result.frame.image)
        self._check_limits(result.frame, len(image))
        source = self._source_number(result)
        record = encode_record(self._record(result, source))
        self._write_image(self._path / image_path(self._header, source, self.frames), image)
        self._write_record(record)
        self.frames += 1
        self.size_bytes += len(image) + len(record)
        if self._old is not None:
            shutil.rmtree(self._old, ignore_errors=True)
            self._old = None

    def close(self) -> None:
        """Note that the recording is complete; one without frames leaves no folder, and what it was to replace comes back.

        A second call does nothing. Raises ``SinkError`` when that could not be written.
        """
        if self._file.closed:
            return
        self._file.close()
        if not self.frames:
            shutil.rmtree(self._path, ignore_errors=True)
            if self._old is not None:
                self._old.rename(self._path)
        elif not self._broken:
            self._header = replace(self._header, frames=self.frames)
            self._write_header()

    def _check_limits(self, frame: Frame, size_bytes: int) -> None:
        self._start_ns = frame.monotonic_ns if self._start_ns is None else self._start_ns
        if self.size_bytes + size_bytes > self._max_bytes:
            reached = f"{self._max_bytes / 1e9:g} GB (max_gb)"
        elif self._max_ns is not None and frame.monotonic_ns - self._start_ns >= self._max_ns:
            reached = f"{self._max_ns / 60e9:g} minutes (max_minutes)"
        else:
            return
        self.full = f"{self._path} reached its limit of {reached} after {self.frames} frames; nothing more is recorded."
        raise SinkError(self.full, "Raise the limit if there is space.")

    def _source_number(self, result: Result) -> int:
        """Position of the frame's source in the header, which learns of it before its first record stands in the file."""
        name = result.frame.source_id
        if name not in self._numbers:
            fps = self._fps.get(name, 0.0) if isinstance(self._fps, Mapping) else self._fps
            self._header = replace(
                self._header,
                model=result.model,
                labels=result.labels,
                task=self._header.task or ("detect" if result.classification is None else "classify"),
                sources=(*self._header.sources, RecordedFrom(name=name, fps=fps)),
            )
            self._write_header()
            self._numbers[name] = len(self._numbers)
        return self._numbers[name]

    def _record(self, result: Result, source: int) -> Record:
        frame = result.frame
        found = result.detections if result.classification is None else result.classification
        arrays, masks = store(Detections.empty() if found is None else found)
        return Record(
            source=source,
            index=frame.index,
            captured_ns=frame.captured_ns,
            # Of a file that was played, its scene is kept: the place in the file would go back where it began anew.
            monotonic_ns=frame.monotonic_ns if frame.scene_time_ns is None else frame.scene_time_ns,
            position_ns=frame.position_ns if frame.scene_time_ns is None else None,
            width=frame.image.shape[1],
            height=frame.image.shape[0],
            image=self.frames,
            is_classification=result.classification is not None,
            arrays=arrays,
            masks=masks,
        )

    def _encode(self, image: Image) -> bytes:
        suffix = SUFFIXES[self._header.images]
        option = (
            (self._cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL)
            if self._header.images == "png"
            else (self._cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY)
        )
        try:
            data: bytes = self._cv2.imencode(suffix, image, option)[1].tobytes()
        except self._cv2.error as error:
            raise SinkError(f"An image of the shape {image.shape} cannot be stored: {error}.") from error
        return data

    def _write_image(self, path: Path, data: bytes) -> None:
        """Whole or not at all: other programs read the folder as images."""
        try:
            make_private_folder(path.parent, parents=True)
            write_private(path, data)
        except OSError as error:
            raise cannot_write(path, error) from error

    def _write_record(self, data: bytes) -> None:
        """A full disk may take a part of it, and then nothing may follow."""
        try:
            write_all(self._file.fileno(), data)
        except OSError as error:
            self._broken = f"broken: {error.strerror}"
            raise cannot_write(self._path / RESULTS, error) from error

    def _write_header(self) -> None:
        try:
            write_header(self._path, self._header)
        except OSError as error:
            raise cannot_write(self._path / HEADER, error) from error


def _make_folder(path: Path, overwrite: bool) -> Path | None:
    """Make the folder; where the recording that it replaces waits until there is something to replace it with."""
    old = path.parent.resolve() / f".{path.name}.old-{os.getpid()}"
    try:
        waits = overwrite and _set_aside(path, old)
        make_private_folder(path, exist_ok=False)
    except FileExistsError as error:
        raise ConfigError(
            f"{path} exists.", "Choose another name, or overwrite it: ?overwrite=1 or --force."
        ) from error
    except OSError as error:
        raise cannot_write(path, error) from error
    return old if waits else None


def _set_aside(path: Path, old: Path) -> bool:
    """Take a recording out of the way of a new one; whether there was any. Nothing else is ever touched."""
    remove_abandoned(path.parent.resolve() / path.name)
    check_replaceable(path, RECORDING)
    if path.is_symlink() or is_empty(path):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        return False
    if not path.is_dir():
        return False
    if is_locked(path / RESULTS):  # by a sink of this or another process
        raise ConfigError(f"{path} is being recorded at this moment.", "Stop that first, or choose another name.")
    path.rename(old)
    return True
