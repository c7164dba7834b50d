"""Images of a video file, one after the other, as its decoder gives them.

PyAV decodes, as it does for network cameras. OpenCV takes its place only where PyAV is not installed: it gives black images for
interlaced video and stops at the first damage (``opencv_video``).

FFmpeg takes memory for every frame as large as the stream says, and a stream may change its mind: frames above the limit are
refused by the decoder, before anything of their size is made. A file that only names others is not read (``video_files``).
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgecv._internal.extras import require
from edgecv.errors import SourceError
from edgecv.media.image_headers import check_pixels, max_megapixels, too_many_pixels
from edgecv.media.video_files import FILE_FORMATS, DecodedImage, check_no_text
from edgecv.results import Image

_FULL_RANGE = 2  # AVCOL_RANGE_JPEG: BGR goes from 0 to 255 whatever the range of the video is
_UNREADABLE_EXPLAINED = 20  # frames that are looked at again to say why they cannot be decoded
_FAILED_READS_ALLOWED = 100  # in a row, of a container that is damaged
_SEEK_BACK_S = 1.0


class VideoDecoder(Protocol):
    """What reads a video file."""

    fps: float  # announced frames per second; 0.0 when the file does not say
    frame_count: int  # announced frames; 0 when unknown
    is_counted: bool  # whether `frame_count` is exact; else it is estimated from the duration
    unreadable: int  # frames so far that could not be decoded

    def read(self) -> DecodedImage | None:
        """The next frame, or ``None`` at the end.

        Raises:
            SourceError: it is above the limit.
        """

    def skip(self) -> bool:
        """Decode the next frame without making an image of it; ``False`` at the end."""

    def seek(self, index: int) -> bool:
        """Bring the frame ``index`` next; ``False`` when that is not possible for sure, and the decoder is of no more use."""

    def missing_s(self) -> float:
        """Seconds of the announced duration that nothing was read of, once the end was reached."""

    def close(self) -> None:
        """Close the file; a second call does nothing."""


def open_video(path: Path, max_megapixels: float | None = None, *, repeatable: bool = False) -> VideoDecoder:
    """Open a file with PyAV, or with OpenCV where PyAV is not installed.

    ``repeatable`` makes PyAV decode in one thread: damaged frames, too, then look the same each time.

    Raises:
        SourceError: it is no video that can be read, holds no images, or announces frames above ``max_megapixels`` (default:
            ``image_headers.max_megapixels()``).
        MissingDependency: neither is installed.
    """
    if importlib.util.find_spec("av") is None and importlib.util.find_spec("cv2") is not None:
        from edgecv.media.opencv_video import OpenCvVideo

        return OpenCvVideo(path, max_megapixels)
    return AvVideo(path, max_megapixels, repeatable=repeatable)


class AvVideo:
    """A file read by PyAV; see ``VideoDecoder``.

    What cannot be decoded is passed and counted: decoding goes on behind it, as FFmpeg's own programs do.
    """

    def __init__(self, path: Path, max_megapixels: float | None = None, *, repeatable: bool = False) -> None:
        """Open the file; arguments and errors as in ``open_video``."""
        self._av = require("av", "video")
        self._repeatable = repeatable
        self._path, self._max_megapixels = path, max_megapixels
        self.unreadable = 0
        self._key: Any = None  # the last packet that needs no other
        self._seen_s = 0.0  # how far any stream of the file was read
        self._container = self._opened()
        try:
            self._stream = self._video_stream()
            self._prepare_decoder()
        except BaseException:
            self._container.close()
            raise
        self._announce()
        self._reformatter = self._av.video.reformatter.VideoReformatter()
        self._frames = self._decoded()

    def read(self) -> DecodedImage | None:
        frame = next(self._frames, None)
        if frame is None:
            return None
        self._check(frame.width, frame.height)
        made = self._reformatter.reformat(frame, format="bgr24", dst_color_range=_FULL_RANGE, **self._threads)
        # Not `frame.side_data`: the frame would keep what refers to it, and its memory until the next garbage collection.
        upright = _upright(made.to_ndarray(), self._av.sidedata.sidedata.SideDataContainer(frame))
        return DecodedImage(upright, self._time_s(frame), bool(frame.is_corrupt))

    def skip(self) -> bool:
        return next(self._frames, None) is not None

    def seek(self, index: int) -> bool:
        """Bring the frame ``index`` next, by its time; ``False`` when no frame stands there, as in a video of uneven rate."""
        if not self.fps:
            return False
        wanted_s, half_s = index / self.fps, 0.5 / self.fps
        base = self._stream.time_base
        start = 0 if self._stream.start_time is None else self._stream.start_time
        try:
            target = start + int(max(0.0, wanted_s - _SEEK_BACK_S) / base)
            self._container.seek(target, stream=self._stream, backward=True)
        except self._av.error.FFmpegError:
            return False
        first_s = float(start * base)
        for frame in self._decoded():
            at_s = None if frame.pts is None else float(frame.pts * frame.time_base) - first_s
            if at_s is None or at_s > wanted_s + half_s:
                return False
            if at_s > wanted_s - half_s:
                self._frames = self._again(frame)
                return True
        return False

    def missing_s(self) -> float:
        """Seconds of the announced duration that nothing was read of: neither images nor sound."""
        counted_s = self.frame_count / self.fps if self.is_counted and self.fps else 0.0
        return max(0.0, max(self._container_duration_s or 0.0, counted_s) - self._seen_s)

    def close(self) -> None:
        self._frames = iter(())
        self._container.close()

    def _opened(self) -> Any:
        check_no_text(self._path)
        options = {"protocol_whitelist": "file", "format_whitelist": FILE_FORMATS, **self._limit()}
        try:
            # Absolute: FFmpeg would take a name like "concat:a" for a protocol.
            return self._av.open(str(self._path.absolute()), options=options)
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise SourceError(
                f"{self._path} cannot be read as a video.",
                "It is cut short, no video, or in a format that is not read (try: ffmpeg -i FILE).",
                code="codec",
            ) from error

    def _limit(self) -> dict[str, str]:
        """For libav's decoders, which round sides up before they compare: what lies between is refused once it is decoded."""
        most = max_megapixels() if self._max_megapixels is None else self._max_megapixels
        return {"max_pixels": str(round(2e6 * most))}

    def _video_stream(self) -> Any:
        """The stream that is shown by default; images of an album's cover are none."""
        shown = [stream for stream in self._container.streams.video if not _is_cover(stream)]
        if not shown:
            raise SourceError(f"{self._path} has no video, only sound.", "Give another file.", code="codec")
        usable = [stream for stream in shown if getattr(stream, "codec_context", None) is not None]
        if not usable:
            raise SourceError(
                f"{self._path} is in a format that this PyAV cannot decode.",
                "Convert it: ffmpeg -i FILE out.mp4",
                code="codec",
            )
        return next((stream for stream in usable if _disposition(stream, "default")), usable[0])

    def _prepare_decoder(self) -> None:
        decoder = self._stream.codec_context
        self._check(decoder.width, decoder.height)
        decoder.options = self._limit()  # its size may change in mid-stream
        if self._repeatable:
            decoder.thread_count = 1
        else:
            self._stream.thread_type = "AUTO"
        # PyAV 17 and later convert with a thread per core by default, which takes longer for one image than it saves.
        self._threads = {"threads": 1} if int(self._av.__version__.split(".")[0]) >= 17 else {}

    def _announce(self) -> None:
        stream, container = self._stream, self._container
        base = stream.time_base
        self.fps = float(stream.average_rate or stream.guessed_rate or 0.0)
        self._container_duration_s = container.duration / 1e6 if container.duration else None
        duration_s = float(stream.duration * base) if stream.duration else _tagged_duration_s(stream)
        duration_s = duration_s or self._container_duration_s or 0.0
        self.is_counted = bool(stream.frames)
        self.frame_count = stream.frames or round(duration_s * self.fps)
        starts = [start / 1e6 for start in (container.start_time,) if start is not None]
        starts += [float(stream.start_time * base)] if stream.start_time is not None else []
        self._start_s: float | None = starts[0] if starts else None

    def _again(self, frame: Any) -> Iterator[Any]:
        yield frame
        yield from self._decoded()

    def _decoded(self) -> Iterator[Any]:
        for packet in self._packets():
            if packet.stream.index != self._stream.index:  # of an empty packet, only the stream is right
                continue
            if getattr(packet, "is_discard", False) and self.is_counted:  # cut off by an edit list
                self.frame_count -= 1
            self._key = packet if packet.is_keyframe else self._key
            try:
                frames = packet.decode()
            except self._av.error.FFmpegError:
                if packet.size:
                    self._pass()
                continue
            yield from frames

    def _packets(self) -> Iterator[Any]:
        """All packets, of sound too, and last an empty one for each stream that brings what its decoder holds."""
        failed = 0
        while failed < _FAILED_READS_ALLOWED:
            try:
                for packet in self._container.demux():
                    failed = 0
                    self._note_time(packet)
                    yield packet
            except self._av.error.FFmpegError:
                failed += 1
            else:
                return
        empty = self._av.Packet()
        empty.stream = self._stream
        yield empty

    def _note_time(self, packet: Any) -> None:
        if packet.pts is not None and packet.time_base:
            end = packet.pts + (packet.duration or 0)
            self._seen_s = max(self._seen_s, float(end * packet.time_base) - (self._start_s or 0.0))

    def _pass(self) -> None:
        """Count a frame that cannot be decoded; refuse the video when the last key frame is above the limit.

        Sizes change at key frames. The error itself comes late, with a packet behind it: several threads decode.
        libav names the reason in its log alone. PyAV's capture of that log is not used: its level belongs to the whole process, and
        changing it while the threads of some decoder write to the log ends the process.
        """
        self.unreadable += 1
        if self._key is None or self.unreadable > _UNREADABLE_EXPLAINED:
            return
        codec = self._stream.codec_context
        decoder = self._av.CodecContext.create(codec.name, "r")  # another one: this one goes on with the next packet
        decoder.options, decoder.extradata = self._limit(), codec.extradata
        decoder.thread_count = 1
        try:
            decoder.decode(self._key)
        except self._av.error.ArgumentError as error:
            self._check(decoder.width, decoder.height)
            # Most decoders refuse a size with this error, and do not keep it. Damage gives other errors.
            raise too_many_pixels(f"A frame of {self._path}", self._max_megapixels) from error
        except (self._av.error.FFmpegError, ValueError, MemoryError):
            self._check(decoder.width, decoder.height)

    def _time_s(self, frame: Any) -> float | None:
        if frame.pts is None or not frame.time_base:
            return None
        at_s = float(frame.pts * frame.time_base)
        if self._start_s is None:
            self._start_s = at_s
        return at_s - self._start_s

    def _check(self, width: int, height: int) -> None:
        check_pixels(width, height, f"A frame of {self._path}", self._max_megapixels)


def _is_cover(stream: Any) -> bool:
    return _disposition(stream, "attached_pic") or _disposition(stream, "timed_thumbnails")


def _disposition(stream: Any, name: str) -> bool:
    given = getattr(stream, "disposition", None)
    return given is not None and bool(given & getattr(type(given), name, 0))


def _tagged_duration_s(stream: Any) -> float | None:
    """What Matroska's writers say about a track in a tag: ``00:00:06.023000000``."""
    found = re.fullmatch(r"(\d{1,6}):(\d\d):(\d\d(?:\.\d{1,9})?)", stream.metadata.get("DURATION", ""))
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else None


def _upright(image: Image, side_data: Any) -> Image:
    """The image as the display matrix of its frame turns and mirrors it (libavutil/display.h), by quarter turns."""
    matrix = side_data.get("DISPLAYMATRIX") if len(side_data) else None
    if matrix is None:
        return image
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32, 5).tolist()
    if abs(b) > abs(a):
        image = image.transpose(1, 0, 2)
        flip_x, flip_y = c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return np.ascontiguousarray(image[:: -1 if flip_y else 1, :: -1 if flip_x else 1])
