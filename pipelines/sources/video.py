"""``clip.mp4``: a video file."""

from __future__ import annotations

import msgspec

from edgecv.media import VideoReader
from edgecv.pipelines.sources.frames import FrameStamper
from edgecv.results import Frame
from edgecv.uris import Uri, parse_source, read_options


class VideoOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A video file has no options."""


class VideoSource:
    """Every frame of a video file, as fast as they are taken.

    Attributes:
        source_id: The path as it was given.
        live: ``False``.
        fps: Frames per second the file announces, 0.0 when it does not.
    """

    live = False

    def __init__(self, uri: str | Uri) -> None:
        """Open the file.

        Raises:
            SourceError: it is missing, empty or no video that can be read.
            ConfigError: an option was given.
        """
        parsed = parse_source(uri)
        read_options(parsed, VideoOptions)
        self.source_id = parsed.name
        self._reader = VideoReader(parsed.path)
        self.fps = self._reader.fps
        self._stamper = FrameStamper(self.source_id)

    def read(self) -> Frame | None:
        """The next frame, or ``None`` at the end.

        Raises:
            SourceError: the file broke off or is damaged, after everything that could be read.
        """
        image = self._reader.read()
        return None if image is None else self._stamper.stamp(image, self._reader.position_s)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._reader.close()
