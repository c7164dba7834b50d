"""An anonymised copy of a video, a folder of images or a recording: whole, or not there at all."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgecv._internal.atomic import check_target, new_path
from edgecv._internal.progress import Progress, silent
from edgecv.errors import ConfigError, SourceError
from edgecv.media.image_files import IMAGE_SUFFIXES
from edgecv.media.images import list_images, read_image, write_image
from edgecv.media.video_reader import VideoReader
from edgecv.media.video_writer import VideoWriter
from edgecv.pipelines.privacy.finder import BoxFinder
from edgecv.pipelines.privacy.mosaic import mosaic
from edgecv.pipelines.recording.layout import is_recording
from edgecv.pipelines.recording.recording import RecordedFrame, Recording
from edgecv.pipelines.recording.sink import RecordSink
from edgecv.results import Classification, Detections, FloatArray, Frame, Result

HOLD = 5  # frames before and after: a fifth of a second, in which a detector may miss somebody
_USUAL_FPS = 25.0
_NO_LIMIT_GB = 1e9
_WRITTEN = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})  # as the suffix says; others as JPEG


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export did.

    Attributes:
        frames: Images that were written.
        boxes: Boxes that the models found in all of them.
        hidden: Images in which something is hidden.
        covered: Images that are a mosaic as a whole, because their file is damaged there.
    """

    frames: int
    boxes: int
    hidden: int
    covered: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What is to be hidden in one frame, and how its image is known again."""

    source_id: str
    boxes: FloatArray
    checksum: int
    is_damaged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """A kind of input: its frames, as often as they are asked for, what writes them, and how long a box is held."""

    frames: Callable[[], Iterator[Frame]]
    write: Callable[[Path, Iterator[Frame]], None]
    hold: int


def export(
    source: Path, target: Path, finder: BoxFinder, *, hold: int | None = None, progress: Progress = silent
) -> Exported:
    """Write a copy of ``source`` as ``target``, in which what ``finder`` finds is a mosaic.

    The input is read twice. First every frame is searched; only when that is done, anything is written. A box is hidden in
    the ``hold`` frames before and after it, too: by default 5, and 0 in a folder of images.

    Raises:
        ConfigError: the target exists, has no name of its kind, or the input is of no kind that can be exported.
        SourceError: a frame cannot be read, or the input changed in between.
        SessionError: a model failed at a frame.
        SinkError: the target cannot be written. In all cases nothing is left under its name.
    """
    kind = _kind(source, target)
    check_target(target, force=False)
    found = _searched(kind, finder, progress)
    if not found:
        raise SourceError(f"{source} holds no frames.", "There is nothing to export.", code="eof")
    held = _held(found, kind.hold if hold is None else hold)
    with new_path(target) as work:
        kind.write(work, _hidden(kind, found, held, progress))
    return Exported(
        frames=len(found),
        boxes=sum(len(one.boxes) for one in found),
        hidden=sum(bool(len(boxes)) for boxes in held),
        covered=sum(one.is_damaged for one in found),
    )


def _searched(kind: _Kind, finder: BoxFinder, progress: Progress) -> list[_Found]:
    found = []
    for number, frame in enumerate(kind.frames()):
        progress("search", number, number + 1)
        found.append(
            _Found(
                source_id=frame.source_id,
                boxes=finder.find(frame.image),
                checksum=_checksum(frame),
                is_damaged=frame.is_damaged,
            )
        )
    return found


def _held(found: Sequence[_Found], hold: int) -> list[FloatArray]:
    """The boxes of each frame, with those of its neighbours from the same source."""
    held: list[FloatArray] = [one.boxes for one in found]
    for source_id in {one.source_id for one in found}:
        places = [at for at, one in enumerate(found) if one.source_id == source_id]
        for at, place in enumerate(places):
            near = places[max(0, at - hold) : at + hold + 1]
            held[place] = np.concatenate([found[other].boxes for other in near])
    return held


def _hidden(kind: _Kind, found: Sequence[_Found], held: Sequence[FloatArray], progress: Progress) -> Iterator[Frame]:
    """The frames once more, with what was found in them hidden."""
    number = -1
    for number, frame in enumerate(kind.frames()):
        if number >= len(found) or _checksum(frame) != found[number].checksum:
            raise _changed()
        progress("write", number, len(found))
        boxes = _whole(frame) if found[number].is_damaged else held[number]
        yield frame.with_image(mosaic(frame.image, boxes))
    if number + 1 != len(found):
        raise _changed()


def _whole(frame: Frame) -> FloatArray:
    height, width = frame.image.shape[:2]
    return np.array([[0, 0, width, height]], np.float32)


def _checksum(frame: Frame) -> int:
    return zlib.crc32(np.ascontiguousarray(frame.image).data)


def _changed() -> SourceError:
    return SourceError("The input changed while it was exported.", "Export it once more.", code="codec")


def _kind(source: Path, target: Path) -> _Kind:
    if source.is_dir() and is_recording(source):
        recording = Recording.open(source)
        return _Kind(
            frames=lambda: _recorded(recording), write=lambda path, frames: _record(recording, path, frames), hold=HOLD
        )
    if source.is_dir():
        return _Kind(frames=lambda: _images(source), write=_write_images, hold=0)
    if source.suffix.lower() in IMAGE_SUFFIXES:
        raise ConfigError(f"{source} is one image.", "Give the folder that it lies in, or a folder of its own.")
    if target.suffix.lower() not in (".mp4", ".mkv"):
        raise ConfigError(f"A video is written as .mp4 or .mkv, not '{target.name}'.", "Name it out.mp4 for example.")
    return _Kind(frames=lambda: _video(source), write=_write_video, hold=HOLD)


def _recorded(recording: Recording) -> Iterator[Frame]:
    for place, record in enumerate(recording.records()):
        yield recording.frame(record, place)


def _images(folder: Path) -> Iterator[Frame]:
    for path in list_images(folder):
        yield Frame(image=read_image(path), path=str(path))


def _video(path: Path) -> Iterator[Frame]:
    with closing(VideoReader(path, repeatable=True)) as reader:  # it is read twice
        while (image := reader.read()) is not None:
            position_ns = round(reader.position_s * 1e9)
            yield Frame(image=image, position_ns=position_ns, is_damaged=reader.is_damaged)


def _write_images(folder: Path, frames: Iterator[Frame]) -> None:
    folder.mkdir()
    for frame in frames:
        path = Path(frame.path)
        name = path.name if path.suffix.lower() in _WRITTEN else f"{path.name}.jpg"
        write_image(folder / name, frame.image, overwrite=False)


def _write_video(path: Path, frames: Iterator[Frame]) -> None:
    with closing(VideoWriter(path, _USUAL_FPS)) as writer:
        for frame in frames:
            writer.write(frame.image, frame.scene_ns / 1e9)


def _record(recording: Recording, folder: Path, frames: Iterator[Frame]) -> None:
    header = recording.header
    sink = RecordSink(
        folder,
        images=header.images,
        max_gb=_NO_LIMIT_GB,
        fps={source.name: source.fps for source in header.sources},
        task=header.task,
        confidence=header.confidence,
        iou=header.iou,
        classes=header.classes,
    )
    with closing(sink):
        for frame in frames:
            assert isinstance(frame, RecordedFrame)
            sink.emit(_result(recording, frame))


def _result(recording: Recording, frame: RecordedFrame) -> Result:
    """What was found then, without the shapes of people: a mask is an outline, and key points are a pose."""
    found = frame.found
    header = recording.header
    return Result(
        frame=frame,
        labels=header.labels,
        detections=replace(found, mask=None, keypoints=None) if isinstance(found, Detections) else None,
        classification=found if isinstance(found, Classification) else None,
        model=header.model,
    )
