"""OpenCV's reader of video files, for devices without PyAV, held to the size that a file announces.

FFmpeg takes memory for every frame as large as the stream says, and a stream may change its mind: an AVI of 640 x 480 whose later
frames are 16,000 x 16,000 took 3 GB. OpenCV hands no option of the decoder through, so the largest single block of FFmpeg's
memory (``av_max_alloc``) is limited to what the announced size needs. The limit belongs to the library, that is to the process:
the largest file that is open sets it.

A file that only names others, a playlist, is none that is read, whatever it is called: see ``video_files``.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgecv._internal.extras import opencv
from edgecv.errors import SourceError
from edgecv.media.image_files import utf8_name
from edgecv.media.image_headers import check_pixels
from edgecv.media.video_files import FILE_FORMATS, check_no_text
from edgecv.results import Image

_BYTES_PER_PIXEL = 5  # a block of a frame: BGR has 3, one plane of 16 bits has 2; with room for FFmpeg's borders
_FEWEST_PIXELS = 3840 * 2160  # always allowed, whatever is announced: a stream may honestly grow to 4K
_LIBRARY = "libavutil"
_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_ENVIRONMENT = threading.Lock()
_MAPS = Path("/proc/self/maps")


class FileCapture:
    """``cv2.VideoCapture`` of a file: the same methods, but no frame above the limit in megapixels is decoded."""

    def __init__(self, path: str | Path, max_megapixels: float | None = None) -> None:
        """Open the file; ``opened`` says whether it is a video.

        Raises:
            SourceError: it announces frames above ``max_megapixels`` (default: ``image_headers.max_megapixels()``), or is a
                text.
            MissingDependency: OpenCV is not installed.
        """
        cv2 = opencv()
        self._path, self._max_megapixels = path, max_megapixels
        self._memory = _FrameMemory.shared()
        self._memory.hold(self, 0)
        try:
            self._capture = _opened(cv2, Path(path))
        except BaseException:
            self._memory.give_back(self)
            raise
        self.opened = bool(self._capture.isOpened())
        width, height = (int(self._capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        try:
            self._check(width, height)
        except SourceError:
            self.release()
            raise
        self._memory.hold(self, width * height)

    def read(self) -> tuple[bool, Image]:
        """Whether there was a frame, and the frame, ``(H, W, 3)`` uint8 BGR.

        Raises:
            SourceError: it is above the limit.
        """
        taken, image = self._capture.read()
        if taken:
            self._check(image.shape[1], image.shape[0])
        return bool(taken), image

    def grab(self) -> bool:
        """Decode a frame without converting it."""
        return bool(self._capture.grab())

    def get(self, property_id: int) -> float:
        """A property by OpenCV's number."""
        return float(self._capture.get(property_id))

    def set(self, property_id: int, value: float) -> None:
        """Set a property by OpenCV's number."""
        self._capture.set(property_id, value)

    def release(self) -> None:
        """Close the file; a second call does nothing."""
        self._capture.release()
        self._memory.give_back(self)

    def __del__(self) -> None:
        if hasattr(self, "_memory"):
            self._memory.give_back(self)

    def _check(self, width: int, height: int) -> None:
        check_pixels(width, height, f"A frame of {self._path}", self._max_megapixels)


class _FrameMemory:
    """How large a block FFmpeg may take in this process: what the largest open file needs."""

    def __init__(self, libraries: Sequence[Any]) -> None:
        self._libraries = libraries
        self._pixels: dict[int, int] = {}
        self._lock = threading.RLock()  # give_back may run in the garbage collector, inside hold

    @staticmethod
    @functools.cache
    def shared() -> _FrameMemory:
        """The one of this process; OpenCV has been imported by then, so its libraries are loaded."""
        return _FrameMemory(_loaded())

    def hold(self, owner: object, pixels: int) -> None:
        """Allow frames of so many pixels until ``owner`` gives them back."""
        with self._lock:
            self._pixels[id(owner)] = pixels
            self._apply()

    def give_back(self, owner: object) -> None:
        """Allow only what the other owners need."""
        with self._lock:
            if self._pixels.pop(id(owner), None) is not None:
                self._apply()

    def _apply(self) -> None:
        most = max((_FEWEST_PIXELS, *self._pixels.values()))
        for library in self._libraries:
            library.av_max_alloc(ctypes.c_size_t(most * _BYTES_PER_PIXEL))


def _opened(cv2: Any, path: Path) -> Any:
    """OpenCV's capture. Its FFmpeg takes options from the environment only; what the user set there stays."""
    name = utf8_name(path.absolute(), SourceError)
    check_no_text(path)
    backend = cv2.CAP_FFMPEG if cv2.CAP_FFMPEG in cv2.videoio_registry.getStreamBackends() else cv2.CAP_ANY
    with _ENVIRONMENT:
        given = os.environ.get(_OPTIONS)
        os.environ[_OPTIONS] = "|".join(
            filter(None, (given, f"protocol_whitelist;file|format_whitelist;{FILE_FORMATS}"))
        )
        try:
            # Absolute: FFmpeg would take a name like "concat:a" for a protocol.
            return cv2.VideoCapture(name, backend)
        finally:
            if given is None:
                del os.environ[_OPTIONS]
            else:
                os.environ[_OPTIONS] = given


def _loaded() -> list[Any]:
    """FFmpeg's memory functions as OpenCV loaded them; none where they cannot be found: then frames are checked once decoded."""
    try:
        lines = _MAPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    paths = {line.split(maxsplit=5)[5] for line in lines if _LIBRARY in line and len(line.split(maxsplit=5)) > 5}
    # PyAV brings a copy of its own; its decoders are limited one by one (``video_decoder``).
    found = [ctypes.CDLL(path) for path in sorted(paths) if "/av.libs/" not in path]
    return [library for library in found if hasattr(library, "av_max_alloc")]
