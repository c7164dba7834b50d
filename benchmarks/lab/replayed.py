"""Sources for long measurements: a video over and over, as a file and as a camera."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from edgecv.errors import SourceError
from edgecv.media.video_reader import VideoReader
from edgecv.pipelines.sources.frames import FrameStamper
from edgecv.results import Frame, Image


class EndlessVideo:
    """A video file that begins again at its end; every frame is decoded anew.

    Its frames carry no position in the file: that would go back.

    Attributes:
        source_id: The path.
        live: ``False``: the source waits.
        fps: Of the file.
    """

    live = False

    def __init__(self, path: str | Path) -> None:
        """Open the file.

        Raises:
            SourceError: it is missing, empty or no video that can be read.
        """
        self._path = Path(path)
        self._reader = VideoReader(self._path)
        self.source_id = str(path)
        self.fps = self._reader.fps
        self._stamper = FrameStamper(self.source_id)

    def read(self) -> Frame | None:
        """The next frame; never the end.

        Raises:
            SourceError: the file is damaged.
        """
        image = self._reader.read()
        if image is None:
            self._reader.close()
            self._reader = VideoReader(self._path)
            image = self._reader.read()
        return None if image is None else self._stamper.stamp(image)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._reader.close()


class ReplayedCamera:
    """Images from memory, over and over, at a rate: what nobody takes is lost, as at a camera.

    Attributes:
        source_id: The name.
        live: ``True``.
        fps: The rate.
    """

    live = True

    def __init__(self, name: str, images: Sequence[Image], fps: float) -> None:
        self.source_id = name
        self.fps = fps
        self._images = cycle(images)
        self._stamper = FrameStamper(name)
        self._closed = threading.Event()
        self._due_s: float | None = None

    def read(self) -> Frame | None:
        """The next image when it is due; ``None`` once closed. A reader that comes late gets no backlog."""
        now_s = time.monotonic()
        self._due_s = now_s if self._due_s is None else max(self._due_s + 1 / self.fps, now_s - 1 / self.fps)
        if self._closed.wait(max(0.0, self._due_s - now_s)):
            return None
        return self._stamper.stamp(next(self._images).copy())

    def close(self) -> None:
        """End; a second call does nothing."""
        self._closed.set()


def first_images(video: str | Path, count: int) -> list[Image]:
    """The first images of a video.

    Raises:
        SourceError: it cannot be read, or has fewer.
    """
    reader = VideoReader(video)
    try:
        images = [image for _ in range(count) if (image := reader.read()) is not None]
    finally:
        reader.close()
    if len(images) < count:
        raise SourceError(f"{video} has {len(images)} frames of {count}.", "Ask for fewer frames.", code="eof")
    return images
