"""A video file read by OpenCV, for devices without PyAV: see ``video_decoder``."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from edgecv._internal.extras import opencv
from edgecv.errors import SourceError
from edgecv.media.file_capture import FileCapture
from edgecv.media.video_files import DecodedImage

# Containers whose header counts the frames; elsewhere OpenCV estimates them from duration and frame rate.
_COUNTED_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".avi"})
_MOST_BLACK = 250  # frames at the beginning, ten seconds of most videos


class OpenCvVideo:
    """A file read by OpenCV; see ``VideoDecoder``.

    OpenCV gives black images, and says nothing, where it cannot convert what was decoded (interlaced video). So a video that
    begins with many black images, or has no others, is refused.
    """

    def __init__(self, path: Path, max_megapixels: float | None = None) -> None:
        """Open the file.

        Raises:
            SourceError: it is no video that can be read, gives black images only, or announces frames above the limit.
        """
        self._cv2: Any = opencv()
        self._path = path
        self._capture = FileCapture(path, max_megapixels)
        if not self._capture.opened:
            raise SourceError(
                f"{path} cannot be read as a video.",
                "It is cut short, no video, or in a format that this OpenCV does not know (try: ffmpeg -i FILE).",
                code="codec",
            )
        self.fps = max(0.0, self._capture.get(self._cv2.CAP_PROP_FPS))
        self.frame_count = max(0, int(self._capture.get(self._cv2.CAP_PROP_FRAME_COUNT)))
        self.is_counted = path.suffix.lower() in _COUNTED_SUFFIXES
        self.unreadable = 0  # OpenCV does not say: it stops there
        self._last_s = 0.0
        self._ahead: deque[DecodedImage] = deque()
        try:
            self._look_ahead()
        except BaseException:
            self.close()
            raise

    def read(self) -> DecodedImage | None:
        image = self._ahead.popleft() if self._ahead else self._taken()
        if image is not None:
            self._last_s = image.time_s or 0.0
        return image

    def skip(self) -> bool:
        return self.read() is not None if self._ahead else self._capture.grab()

    def seek(self, index: int) -> bool:
        """Bring the frame ``index`` next, by OpenCV's count."""
        self._ahead.clear()
        self._capture.set(self._cv2.CAP_PROP_POS_FRAMES, index)
        return round(self._capture.get(self._cv2.CAP_PROP_POS_FRAMES)) == index

    def missing_s(self) -> float:
        """Seconds between the last frame that was read and the last one announced."""
        return max(0.0, (self.frame_count - 1.5) / self.fps - self._last_s) if self.fps else 0.0

    def close(self) -> None:
        self._ahead.clear()
        self._capture.release()

    def _taken(self) -> DecodedImage | None:
        taken, image = self._capture.read()
        if not taken:
            return None
        return DecodedImage(image, self._capture.get(self._cv2.CAP_PROP_POS_MSEC) / 1e3, False)

    def _look_ahead(self) -> None:
        """Read until an image shows something."""
        black = None
        while len(self._ahead) < _MOST_BLACK:
            image = self._taken()
            if image is None:
                break
            if image.image.any():
                self._ahead.append(image)
                return
            if black is None or black.shape != image.image.shape:
                black = image.image
            self._ahead.append(DecodedImage(black, image.time_s, False))  # one array for all, lest they fill the memory
        if self._ahead:
            raise SourceError(
                f"{self._path} gives {len(self._ahead)} images that are black to the last pixel.",
                "OpenCV cannot convert interlaced video, and says nothing. PyAV can: pip install 'edgecv[video]'",
                code="codec",
            )
