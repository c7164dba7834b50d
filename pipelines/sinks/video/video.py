"""``video:out.mp4``: the frames with what was found drawn on them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import msgspec

from edgecv.errors import SinkError
from edgecv.media.video_writer import VideoWriter
from edgecv.pipelines.sinks.options import FileSinkOptions
from edgecv.pipelines.sinks.video.scene_clock import SceneClock
from edgecv.pipelines.uris import Uri, read_options
from edgecv.protocols import SinkType
from edgecv.results import Frame, Result

NOMINAL_FPS = 25.0  # only paces the key frames when the real times come from the capture clock


class VideoSink(SinkType):
    """Writes an annotated MP4 or MKV of one source that stays readable when the process is killed.

    Frames that were dropped leave a gap of their length: the video runs at the speed of the scene.
    """

    Options: ClassVar[type[msgspec.Struct]] = FileSinkOptions
    one_source: ClassVar[bool] = True

    def __init__(self, path: str | Path, *, fps: float = 0.0, overwrite: bool = False) -> None:
        """Reserve the file, an ``.mp4`` or ``.mkv``.

        Args:
            fps: Frames per second of the source; 0.0 takes the times of capture instead (cameras).

        Raises:
            ConfigError: the file exists and ``overwrite`` is not set, or has another suffix.
            SinkError: it cannot be written there.
        """
        self._fps = fps
        self._source_id = ""
        self._clock: SceneClock | None = None
        self._writer = VideoWriter(path, fps or NOMINAL_FPS, overwrite=overwrite)

    @classmethod
    def from_uri(cls, uri: Uri, *, fps: float = 0.0, overwrite: bool = False) -> VideoSink:
        """Open ``video:FILE.mp4``; errors as in the constructor."""
        options = read_options(uri, FileSinkOptions)
        return cls(uri.path, fps=fps, overwrite=overwrite or options.overwrite)

    def emit(self, result: Result) -> None:
        """Append one annotated frame.

        Raises ``SinkError`` when it cannot be written, or comes from another source than the first one did.
        """
        time_s = self._time_s(result.frame)
        self._writer.write(result.plot(), time_s)

    def close(self) -> None:
        """Finish the file; a video without frames leaves none. A second call does nothing.

        Raises ``SinkError`` when the end could not be written.
        """
        self._writer.close()

    def _time_s(self, frame: Frame) -> float:
        if self._clock is None:
            self._clock, self._source_id = SceneClock.start(frame, self._fps), frame.source_id
        if frame.source_id != self._source_id:
            raise SinkError(
                f"A video holds one source: this one is {self._source_id}, not {frame.source_id}.",
                "Record several sources into a folder: segments:DIR",
            )
        return self._clock.time_s(frame)
