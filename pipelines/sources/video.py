"""Reads a video file, such as ``clip.mp4``, as a source."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from edgecv.media.video_reader import VideoReader
from edgecv.pipelines.sources.frames import FrameStamper
from edgecv.pipelines.sources.played import PlayOptions
from edgecv.pipelines.uris import Uri, parse_source, read_options
from edgecv.protocols import SourceType
from edgecv.results import Frame


class VideoOptions(PlayOptions, frozen=True, kw_only=True):
    """What the query may say.

    Attributes:
        max_megapixels: Largest frame that is decoded; 0 for the limit of the process, which is 64.
    """

    max_megapixels: Annotated[float, msgspec.Meta(ge=0, le=1024)] = 0.0


class VideoSource(SourceType):
    """Every frame of a video file, as fast as they are taken."""

    live = False
    Options: ClassVar[type[msgspec.Struct]] = VideoOptions

    def __init__(self, uri: str | Uri) -> None:
        """Open the file. Raises ``SourceError`` when it is missing, empty or no video that can be read."""
        parsed = parse_source(uri)
        options = read_options(parsed, VideoOptions)
        self.source_id = parsed.name
        self._reader = VideoReader(parsed.path, options.max_megapixels or None)
        self.fps = self._reader.fps
        self._stamper = FrameStamper(self.source_id)

    def read(self) -> Frame | None:
        """The next frame, or ``None`` at the end.

        Raises ``SourceError``: the file broke off or is damaged, after everything that could be read.
        """
        image = self._reader.read()
        if image is None:
            return None
        return self._stamper.stamp(image, self._reader.position_s, is_damaged=self._reader.is_damaged)

    @property
    def unreadable(self) -> int:
        """Frames so far that could not be decoded; they were passed."""
        return self._reader.unreadable

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._reader.close()
