"""``video:out.mp4``: the frames with what was found drawn on them."""

from __future__ import annotations

from pathlib import Path

from edgecv.drawing import annotate
from edgecv.media import VideoWriter
from edgecv.pipelines.sinks.options import FileSinkOptions
from edgecv.results import Frame, Result
from edgecv.uris import Uri, read_options

_NOMINAL_FPS = 25.0  # only paces the key frames when the real times come from the capture clock


class VideoSink:
    """Writes an annotated MP4 that stays readable when the process is killed.

    Frames that were dropped leave a gap of their length: the video runs at the speed of the scene.
    """

    def __init__(self, path: str | Path, *, fps: float = 0.0, overwrite: bool = False) -> None:
        """Reserve the file.

        Args:
            path: An ``.mp4``.
            fps: Frames per second of the source; 0.0 takes the times of capture instead (cameras).
            overwrite: Replace an existing file.

        Raises:
            ConfigError: the file exists and ``overwrite`` is not set, or is no ``.mp4``.
            SinkError: it cannot be written there.
            MissingDependency: PyAV or OpenCV is not installed.
        """
        self._fps = fps
        self._first: Frame | None = None
        self._writer = VideoWriter(path, fps or _NOMINAL_FPS, overwrite=overwrite)

    @classmethod
    def from_uri(cls, uri: Uri, *, fps: float = 0.0, overwrite: bool = False) -> VideoSink:
        """Open ``video:FILE.mp4``; errors as in the constructor."""
        options = read_options(uri, FileSinkOptions)
        return cls(uri.path, fps=fps, overwrite=overwrite or options.overwrite)

    def emit(self, result: Result) -> None:
        """Append one annotated frame.

        Raises:
            SinkError: it cannot be written.
        """
        self._writer.write(annotate(result.frame.image, result), self._time_s(result.frame))

    def close(self) -> None:
        """Finish the file; a video without frames leaves none. A second call does nothing.

        Raises:
            SinkError: the end could not be written.
        """
        self._writer.close()

    def _time_s(self, frame: Frame) -> float:
        first = self._first = self._first or frame
        if self._fps:
            return (frame.index - first.index) / self._fps
        return (frame.monotonic_ns - first.monotonic_ns) / 1e9
