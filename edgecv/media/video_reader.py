"""Reads a video file frame by frame; missing frames are reported."""

from __future__ import annotations

from pathlib import Path

from edgecv.errors import SourceError
from edgecv.media.images import check_file
from edgecv.media.video_decoder import VideoDecoder, open_video
from edgecv.results import Image

# Headers overcount a little (edit lists, a last packet without an image): that much is no damage.
MISSING_FRAMES_ALLOWED = 3
MISSING_PART_ALLOWED = 0.01
# Durations are rounded, and sound may outlast the frames in files that do not say how long each is.
MISSING_TIME_ALLOWED_S = 1.0
_USUAL_FPS = 25.0  # for a file that says neither times nor rate


class VideoReader:
    """A video file, frame by frame. What is damaged in its middle is passed: reading goes on behind it.

    Attributes:
        fps: Announced frames per second; 0.0 when the file does not say.
        frame_count: Announced frames, exact or estimated by container; 0 when unknown.
        position_s: When the frame that was read last is shown, from the start of the file; always grows.
        is_damaged: Whether the decoder made up a part of the frame that was read last.
        unreadable: Frames so far that could not be decoded.
    """

    def __init__(self, path: str | Path, max_megapixels: float | None = None, *, repeatable: bool = False) -> None:
        """Open the file; ``max_megapixels`` is as in ``read_image``, ``repeatable`` as in ``open_video``.

        Raises:
            SourceError: it is missing, empty, no video that can be read, or announces frames above the limit.
            MissingDependency: neither PyAV nor OpenCV is installed.
        """
        self._path = Path(path)
        check_file(self._path)
        self._video: VideoDecoder | None = open_video(self._path, max_megapixels, repeatable=repeatable)
        self.fps, self.frame_count = self._video.fps, self._video.frame_count
        self.position_s = -1.0
        self.is_damaged = False
        self.unreadable = 0
        self._delivered = self._before_first = 0

    def read(self) -> Image | None:
        """The next frame, ``(H, W, 3)`` uint8 BGR, or ``None`` at the end.

        Raises:
            SourceError: the file broke off (``eof``) or held frames that could not be decoded or are above the limit
                (``codec``). It is raised once, after everything that could be read.
        """
        if self._video is None:
            return None
        try:
            image = self._video.read()
        except SourceError:
            self.close()
            raise
        self.unreadable = self._video.unreadable
        if image is None:
            video, self._video = self._video, None
            try:
                self._check_complete(video)
            finally:
                video.close()
            return None
        if not self._delivered:
            self._before_first = self.unreadable
        self._delivered += 1
        self.position_s = self._position_s(image.time_s)
        self.is_damaged = image.is_damaged
        return image.image

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._video is not None:
            self._video.close()
            self._video = None

    def _position_s(self, said: float | None) -> float:
        """As the file says, else by the frame rate: some files say nothing but zero."""
        if said is not None and said > self.position_s:
            return said
        return self.position_s + 1 / (self.fps or _USUAL_FPS) if self._delivered > 1 else 0.0

    def _check_complete(self, video: VideoDecoder) -> None:
        """Headers count a little too much, and a recording of a stream may begin between two key frames: no damage."""
        allowed = max(MISSING_FRAMES_ALLOWED, video.frame_count * MISSING_PART_ALLOWED)
        if video.is_counted:
            lost = video.frame_count - self._delivered
            # An AVI counts frames that the camera dropped, too; then its times reach the end all the same.
            spacing_s = max(self.position_s / max(1, self._delivered), 1 / (self.fps or _USUAL_FPS))
            broke_off = lost - self.unreadable > allowed and video.missing_s() > allowed * spacing_s
        else:
            lost = self.unreadable - self._before_first
            duration_s = self.frame_count / self.fps if self.fps else 0.0
            broke_off = video.missing_s() > max(MISSING_TIME_ALLOWED_S, duration_s * MISSING_PART_ALLOWED)
        if self._delivered and not broke_off and (lost <= allowed or not self.unreadable):
            return
        announced = f"{video.frame_count} announced frames" if video.is_counted else f"about {video.frame_count} frames"
        what = f"{self._path} gave {self._delivered} of {announced}"
        if self.unreadable and not broke_off:
            raise SourceError(
                f"{what}: {self.unreadable} could not be decoded.",
                "The file is damaged. All the others were delivered.",
                code="codec",
            )
        raise SourceError(
            f"{what} and then broke off.",
            "The file is damaged or was not written to its end. What could be read was delivered.",
            code="eof",
        )
