"""Frames of a video or of a recording as image files, so that a calibration set is always a list of paths."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecv._internal.extras import opencv
from edgecv._internal.progress import Progress, silent
from edgecv.errors import CalibrationError, SourceError
from edgecv.media.image_headers import check_pixels
from edgecv.media.video_decoder import VideoDecoder, open_video
from edgecv.media.video_reader import (
    MISSING_FRAMES_ALLOWED,
    MISSING_PART_ALLOWED,
    MISSING_TIME_ALLOWED_S,
    VideoReader,
)
from edgecv.results import Image

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".ts", ".mpg", ".mpeg", ".mjpeg"})
ARRAY_SUFFIX = ".npy"
FRAMES = 200  # within the 100 to 300 images that calibration asks for
_SEEK_FRAMES = 300  # longer gaps are jumped: a seek decodes from the last key frame, at most 250 back (x264's default)
# Lossless at every level. 768 x 576 (vtest.avi): 28 ms and 0.54 MB at level 1; BMP would take 0.2 ms and 1.3 MB, but /tmp may be
# small or in memory.
_PNG_COMPRESSION = 1


@dataclass(frozen=True, eq=False)  # no slots: a weak reference ends the folder's life
class FrameFolder:
    """Lossless images in a temporary folder that goes when this value does."""

    folder: Path
    paths: tuple[Path, ...]  # the images, in order of time

    def __post_init__(self) -> None:
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


def spread(total: int, count: int) -> list[int]:
    """At most ``count`` indices spread evenly over ``total`` items, each in the middle of its part.

    >>> spread(10, 2)
    [2, 7]
    """
    count = min(total, count)
    return [(2 * part + 1) * total // (2 * count) for part in range(count)]


def video_frames(path: Path, count: int = FRAMES, progress: Progress = silent) -> FrameFolder:
    """Frames of a video, spread evenly over its frames, which at a constant rate is over its time; all where it has fewer.

    Raises:
        CalibrationError: it cannot be read, or breaks off before its announced end.
    """
    reader = _opened(path)
    total, tolerated = reader.frame_count, _tolerated(reader)
    reader.close()
    total = total or sum(1 for _ in _frames(path, None))
    wanted = spread(total, count)

    def frames(jump: bool) -> Iterator[tuple[str, Image]]:
        for done, (index, image) in enumerate(_frames(path, wanted, jump)):
            progress(f"Reading {path.name}", done, len(wanted))
            yield f"{path.stem}-{index:08d}", image

    found = _kept(frames(jump=True))
    if len(found.paths) < len(wanted):  # containers without an index cannot be jumped in
        found = _kept(frames(jump=False))
    if any(index < total - tolerated for index in wanted[len(found.paths) :]) or not found.paths:
        raise CalibrationError(
            f"{path} gave {len(found.paths)} of the {len(wanted)} frames that were asked for and then broke off.",
            "The file is damaged or was not written to its end: use another, or a folder of images.",
        )
    progress(f"Reading {path.name}", len(wanted), len(wanted))
    return found


def array_frames(paths: Sequence[Path]) -> FrameFolder:
    """Recorded frames, each ``(H, W, 3)`` uint8 BGR in a ``.npy`` file, as images.

    Raises:
        CalibrationError: a file is damaged or holds something else.
    """
    return _kept((f"{number:08d}-{path.stem}", _array(path)) for number, path in enumerate(paths))


def _array(path: Path) -> Image:
    try:
        # Mapped, not read: a header may claim a thousand times what the file holds.
        image = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, OverflowError) as error:
        raise CalibrationError(f"{path} cannot be read: {error}.", "Remove or replace the file.") from error
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        shape = f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else "an archive"
        raise CalibrationError(f"{path} holds {shape}, not a frame.", "Frames are (H, W, 3) uint8, BGR.")
    if image.size == 0:
        raise CalibrationError(f"{path} holds a frame without pixels.", "Remove the file.")
    check_pixels(image.shape[1], image.shape[0], str(path))
    return np.array(image)


def _opened(path: Path) -> VideoReader:
    try:
        return VideoReader(path)
    except SourceError as error:
        raise CalibrationError(error.message, error.hint) from error


def _tolerated(reader: VideoReader) -> int:
    """How many frames at the end may be announced and missing."""
    in_time = MISSING_TIME_ALLOWED_S * reader.fps
    return round(max(MISSING_FRAMES_ALLOWED, reader.frame_count * MISSING_PART_ALLOWED, in_time))


def _frames(path: Path, wanted: Sequence[int] | None, jump: bool = False) -> Iterator[tuple[int, Image]]:
    """Frames by ascending index (all for ``None``), until one cannot be had; those between are decoded, not converted."""
    video = open_video(path)
    try:
        at = 0
        for index in wanted if wanted is not None else range(2**31):
            if not _advance(video, at, index, jump):
                return
            image = video.read()
            if image is None:
                return
            at = index + 1
            yield index, image.image
    finally:
        video.close()


def _advance(video: VideoDecoder, at: int, index: int, jump: bool) -> bool:
    """Bring frame ``index`` next, where frame ``at`` is next; whether that was possible."""
    if jump and index - at > _SEEK_FRAMES:
        return video.seek(index)
    return all(video.skip() for _ in range(at, index))


def _kept(frames: Iterator[tuple[str, Image]]) -> FrameFolder:
    """Write named frames into a new temporary folder, one at a time."""
    cv2 = opencv()
    folder = Path(tempfile.mkdtemp(prefix="edgecv-frames-"))
    paths = []
    try:
        for name, image in frames:
            _, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_COMPRESSION])
            paths.append(folder / f"{name}.png")
            paths[-1].write_bytes(data.tobytes())
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise CalibrationError(
            f"Frames cannot be kept in {folder}: {error.strerror}.", "Free some space, or set TMPDIR to another disk."
        ) from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return FrameFolder(folder, tuple(paths))
