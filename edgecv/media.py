"""Pictures and videos, read and written; what is damaged says so instead of yielding less in silence."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np

from edgecv.atomic import Kind, check_replaceable, file_kind
from edgecv.errors import ConfigError, SinkError, SourceError
from edgecv.extras import require
from edgecv.image_headers import check_image_size
from edgecv.image_headers import max_megapixels as limit_megapixels
from edgecv.picture_files import WAY_OUT, pictures_in, unread_format, unread_in
from edgecv.private_files import FILE_MODE, create_file, write_all
from edgecv.results import Image
from edgecv.uris import IMAGE_SUFFIXES
from edgecv.video_decoder import VideoDecoder, open_video

# Headers overcount a little (edit lists, a last packet without a picture): that much is no damage.
_MISSING_FRAMES_ALLOWED = 3
_MISSING_PART_ALLOWED = 0.01
# Durations are rounded, and sound may outlast the picture in files that do not say how long each is.
_MISSING_TIME_ALLOWED_S = 1.0
_TICKS_PER_S = 60_000  # whole ticks per frame at all common rates, 29.97 too; MPEG-4 part 2 allows up to 65,535
_FRAGMENT_S = 1.0  # a killed recording loses at most about this much
# By suffix: the muxer and its options. Fragments and clusters are cut by time too: key frames come late from a slow source.
_MUXERS: Mapping[str, tuple[str, Mapping[str, str]]] = MappingProxyType(
    {
        ".mp4": (
            "mp4",
            {
                "movflags": "frag_keyframe+empty_moov+default_base_moof",
                "frag_duration": str(round(_FRAGMENT_S * 1e6)),
                "flush_packets": "1",
            },
        ),
        ".mkv": ("matroska", {"cluster_time_limit": str(round(_FRAGMENT_S * 1e3)), "flush_packets": "1"}),
    }
)
_VIDEO = file_kind("a video (.mp4, .mkv)", r"....(ftyp|moov|mdat|free|skip|wide)|\x1a\x45\xdf\xa3")  # MP4 or Matroska
_MOST_BYTES_PER_PIXEL = 8  # of a picture's file: four channels of 16 bits, not compressed
_USUAL_FPS = 25.0  # for a file that says neither times nor rate
_LONGEST_GOP = 250  # x264's own default: some files announce 90,000 frames per second


def read_image(path: str | Path, max_megapixels: float | None = None) -> Image:
    """Read a picture.

    Args:
        path: PNG, JPEG, BMP, WebP, TIFF, PNM or GIF.
        max_megapixels: Largest picture that is decoded, in millions of pixels; by default the limit of the process: 64, or
            what ``edgecv.image_headers.set_max_megapixels`` says.

    Returns:
        ``(H, W, 3)`` uint8, BGR, turned upright as its EXIF data say.

    Raises:
        SourceError: the file is missing, empty, cut short, no picture or one above the limit.
        MissingDependency: OpenCV is not installed.
    """
    data = _file_bytes(Path(path), max_megapixels)
    if _is_cut_jpeg(data):  # OpenCV 4 pads it with grey and says nothing
        raise SourceError(f"{path} ends in the middle of the picture.", "Copy it again.", code="codec")
    unread = unread_format(data)
    if unread:
        name = Path(path)
        raise SourceError(
            f"{path} is a picture in the format {unread}, which is not read.",
            WAY_OUT.format(name=name.name, stem=name.stem),
            code="codec",
        )
    check_image_size(data, str(path), max_megapixels)
    cv2 = _cv2()
    try:
        image: Image | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise SourceError(f"{path} cannot be decoded: {error}.", "Is it a picture?", code="codec") from error
    except MemoryError as error:
        raise SourceError(f"{path} needs more memory than there is.", "Use a smaller picture.", code="codec") from error
    if image is None:
        raise SourceError(f"{path} cannot be decoded as a picture.", "It is damaged or no picture.", code="codec")
    return image


def write_image(path: str | Path, image: Image) -> None:
    """Write a ``(H, W, 3)`` uint8 BGR picture in the format that the suffix names.

    Raises:
        SinkError: it cannot be written.
        MissingDependency: OpenCV is not installed.
    """
    cv2 = _cv2()
    try:
        _, data = cv2.imencode(Path(path).suffix, image)
        with open_target(path, overwrite=True) as file:
            write_all(file.fileno(), data.tobytes())
    except cv2.error as error:
        raise SinkError(f"{path} is no picture format.", "Use .jpg or .png.") from error
    except OSError as error:
        raise SinkError(f"{path} cannot be written: {error.strerror}.", "Is there space, and may you write?") from error


def list_images(folder: str | Path) -> list[Path]:
    """The pictures directly in a folder, by suffix, in the order in which a person counts: 1, 2, 10.

    Hidden files, such as the ``._NAME.jpg`` of macOS, are left out.

    Raises:
        SourceError: it is not a folder, or holds no picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder.", "Give a folder of pictures.", code="missing")
    found = pictures_in(folder)
    if not found:
        suffixes, left_out = ", ".join(sorted(IMAGE_SUFFIXES)), unread_in(folder)
        but = f" that is read, but {left_out}" if left_out else ""
        hint = "Convert them to JPEG or PNG." if left_out else f"Read are: {suffixes}."
        raise SourceError(f"There is no picture in {folder}{but}.", hint, code="missing")
    return found


def unreadable(errors: Sequence[SourceError], pictures: int) -> SourceError:
    """One error for every picture of a set that could not be read: how many, which, and why; each on a line."""
    if pictures == 1:
        return errors[0]
    named = "\n".join(error.message for error in errors)
    hint = "All the others were read. Remove or replace these." if len(errors) < pictures else errors[0].hint
    return SourceError(f"{len(errors)} of {pictures} pictures cannot be read:\n{named}", hint, code=errors[0].code)


def open_target(
    path: str | Path, *, overwrite: bool = False, private: bool = False, kind: Kind | None = None
) -> BinaryIO:
    """Open a new file for unbuffered writing; never through a link, which others may have put there.

    Args:
        path: The file.
        overwrite: Replace an existing one.
        private: Only its owner may read it, whatever the umask is.
        kind: Replace only a file of this kind; any file by default.

    Raises:
        ConfigError: it exists and ``overwrite`` is not set, it is of another kind, or it is a link.
        SinkError: it cannot be written there.
    """
    try:
        if overwrite and kind is not None:
            check_replaceable(Path(path), kind)
        descriptor = create_file(path, FILE_MODE if private else 0o666, overwrite=overwrite)
        return os.fdopen(descriptor, "wb", buffering=0)
    except FileExistsError as error:
        raise ConfigError(
            f"{path} exists.",
            "Choose another name, or overwrite it: ?overwrite=1 or --force. jsonl: and csv: also take ?append=1.",
        ) from error
    except OSError as error:
        raise not_opened(path, error) from error


def not_opened(path: str | Path, error: OSError) -> ConfigError | SinkError:
    """Why a file could not be opened for writing, with the next step."""
    if error.errno == errno.ELOOP:
        return ConfigError(
            f"{path} is a link, and is not written through.", "Name the file itself, or delete the link."
        )
    return SinkError(f"{path} cannot be written: {error.strerror}.", "Does the folder exist, and may you write there?")


class VideoReader:
    """A video file, frame by frame. What is damaged in its middle is passed: reading goes on behind it.

    Attributes:
        fps: Announced frames per second; 0.0 when the file does not say.
        frame_count: Announced frames, exact or estimated by container; 0 when unknown.
        position_s: When the frame that was read last is shown, from the start of the file; always grows.
        is_damaged: Whether the decoder made up a part of the frame that was read last.
        unreadable: Frames so far that could not be decoded.
    """

    def __init__(self, path: str | Path, max_megapixels: float | None = None) -> None:
        """Open the file.

        Args:
            path: The video.
            max_megapixels: Largest frame that is decoded, as in ``read_image``.

        Raises:
            SourceError: it is missing, empty, no video that can be read, or announces frames above the limit.
            MissingDependency: neither PyAV nor OpenCV is installed.
        """
        self._path = Path(path)
        _check_file(self._path)
        self._video: VideoDecoder | None = open_video(self._path, max_megapixels)
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
            picture = self._video.read()
        except SourceError:
            self.close()
            raise
        self.unreadable = self._video.unreadable
        if picture is None:
            video, self._video = self._video, None
            try:
                self._check_complete(video)
            finally:
                video.close()
            return None
        if not self._delivered:
            self._before_first = self.unreadable
        self._delivered += 1
        self.position_s = self._position_s(picture.time_s)
        self.is_damaged = picture.is_damaged
        return picture.image

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
        """Headers count a little too much, and a recording of a stream may begin within a group of pictures: no damage."""
        allowed = max(_MISSING_FRAMES_ALLOWED, video.frame_count * _MISSING_PART_ALLOWED)
        if video.is_counted:
            lost = video.frame_count - self._delivered
            # An AVI counts frames that the camera dropped, too; then its times reach the end all the same.
            spacing_s = max(self.position_s / max(1, self._delivered), 1 / (self.fps or _USUAL_FPS))
            broke_off = lost - self.unreadable > allowed and video.missing_s() > allowed * spacing_s
        else:
            lost = self.unreadable - self._before_first
            broke_off = video.missing_s() > max(_MISSING_TIME_ALLOWED_S, self._duration_s() * _MISSING_PART_ALLOWED)
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

    def _duration_s(self) -> float:
        return self.frame_count / self.fps if self.fps else 0.0


class VideoWriter:
    """An MP4 or MKV that stays readable when the process is killed: it is written in fragments of about a second.

    The first picture sets the size; later ones of another size are fitted into it, with black borders.
    """

    def __init__(self, path: str | Path, fps: float, *, overwrite: bool = False, private: bool = False) -> None:
        """Reserve the file.

        Args:
            path: Where to write; an ``.mp4`` or ``.mkv``.
            fps: Nominal frames per second.
            overwrite: Replace an existing file.
            private: Only its owner may read it, whatever the umask is.

        Raises:
            ConfigError: the file exists, its suffix is another, or ``fps`` is not positive.
            SinkError: it cannot be written there.
            MissingDependency: PyAV or OpenCV is not installed.
        """
        self._path = Path(path)
        if self._path.suffix.lower() not in _MUXERS:
            raise ConfigError(
                f"Videos are written as {' or '.join(_MUXERS)}, not '{self._path.name}'.",
                "Name it out.mp4 for example.",
            )
        if not fps > 0:
            raise ConfigError(f"The frame rate of a video must be positive, not {fps}.")
        self._av, self._fps = require("av", "video"), fps
        _cv2()
        # Kept open: by its name it could be another file by the time of the first picture.
        self._file = open_target(self._path, overwrite=overwrite, private=private, kind=_VIDEO)
        self._container: Any = None
        self._stream: Any = None
        self._last_tick = -1
        self._closed = False

    def write(self, image: Image, time_s: float) -> None:
        """Append one picture.

        Args:
            image: ``(H, W, 3)`` uint8, BGR.
            time_s: When it is shown, from the start of the video. A time that does not grow is moved on.

        Raises:
            SinkError: it cannot be written, or the writer is closed.
        """
        if self._closed:
            raise SinkError(f"{self._path} is closed.")
        tick = max(self._last_tick + 1, round(time_s * _TICKS_PER_S))
        try:
            if self._container is None:
                self._open(image)
            self._encode(self._frame(image, tick))
        except (OSError, ValueError) as error:  # PyAV's errors are either
            raise SinkError(f"{self._path} cannot be written: {_said(error)}.", "Is the disk full?") from error
        self._last_tick = tick

    def close(self) -> None:
        """Write what the encoder holds; a video without pictures leaves no file. A second call does nothing.

        Raises:
            SinkError: the end could not be written.
        """
        if self._closed:
            return
        self._closed = True
        if self._container is None:
            self._file.close()
            self._path.unlink(missing_ok=True)
            return
        try:
            try:
                self._encode(None)
            finally:
                try:
                    self._container.close()
                finally:
                    self._file.close()
        except (OSError, ValueError) as error:
            raise SinkError(
                f"The end of {self._path} cannot be written: {_said(error)}.", "Is the disk full?"
            ) from error

    def sync(self) -> None:
        """Have the system bring what was written to the disk, against a power cut; waits for the disk.

        Raises:
            SinkError: the disk refused.
        """
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)  # it covers what other descriptors of the file wrote
            finally:
                os.close(descriptor)
        except OSError as error:
            raise SinkError(f"{self._path} cannot be written: {error.strerror}.", "Is the disk gone?") from error

    def _open(self, image: Image) -> None:
        muxer, options = _MUXERS[self._path.suffix.lower()]
        self._container = self._av.open(_name_of(self._file, self._path), "w", format=muxer, options=dict(options))
        codec = self._codec_name()
        self._stream = self._container.add_stream(codec, rate=Fraction(self._fps).limit_denominator(1001))
        self._stream.width, self._stream.height = (side + side % 2 for side in (image.shape[1], image.shape[0]))
        self._stream.pix_fmt = "yuv420p"  # what every player shows; needs even sides
        context = self._stream.codec_context
        context.time_base = Fraction(1, _TICKS_PER_S)
        context.gop_size = min(_LONGEST_GOP, max(1, round(self._fps * _FRAGMENT_S)))
        context.thread_count = 1  # the other cores belong to the model
        if codec == "libx264":
            # On vtest.avi 4.9 ms per frame; veryfast takes 7.5 ms for a file a quarter smaller. zerolatency: nothing
            # waits in the encoder when the process is killed.
            context.options = {"preset": "superfast", "tune": "zerolatency", "crf": "23"}
        else:
            context.bit_rate = int(self._stream.width * self._stream.height * self._fps * 0.15)

    def _codec_name(self) -> str:
        try:
            self._av.codec.Codec("libx264", "w")
        except ValueError:  # av.codec.codec.UnknownCodecError: a build without GPL parts
            return "mpeg4"
        return "libx264"

    def _frame(self, image: Image, tick: int) -> Any:
        fitted = _fit(image, (self._stream.width, self._stream.height))
        frame = self._av.VideoFrame.from_ndarray(fitted, format="bgr24")
        frame.pts, frame.time_base = tick, Fraction(1, _TICKS_PER_S)
        return frame

    def _encode(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


def _said(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _name_of(file: BinaryIO, path: Path) -> str:
    """A name that leads to the open file, and to no other that took its name meanwhile; the path where there is none."""
    name = f"/proc/self/fd/{file.fileno()}"
    return name if os.path.lexists(name) else str(path)


def _fit(image: Image, size_wh: tuple[int, int]) -> Image:
    """The picture in ``size_wh``: resized without distortion when it must be, black where it does not reach."""
    (width, height), (rows, columns) = size_wh, image.shape[:2]
    if (columns, rows) == size_wh:
        return np.ascontiguousarray(image)
    canvas: Image = np.zeros((height, width, 3), np.uint8)
    if not (0 <= width - columns <= 1 and 0 <= height - rows <= 1):  # one pixel is the even side, no reason to resample
        scale = min(width / columns, height / rows)
        columns, rows = max(1, int(columns * scale)), max(1, int(rows * scale))
        image = _cv2().resize(image, (columns, rows))
    canvas[:rows, :columns] = image
    return canvas


def _check_file(path: Path) -> None:
    if not path.exists():
        raise SourceError(f"{path} does not exist.", "Check the name and the current folder.", code="missing")
    if not path.is_file():
        raise SourceError(f"{path} is not a file.", "Give a file; a folder of pictures ends with '/'.", code="missing")
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty.", "Was it copied or recorded to its end?", code="eof")


def _file_bytes(path: Path, megapixels: float | None) -> bytes:
    _check_file(path)
    most = int((megapixels or limit_megapixels()) * 1e6 * _MOST_BYTES_PER_PIXEL)
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.", "May you read it?", code="refused") from error
    if len(data) > most:
        raise SourceError(f"{path} is larger than a picture that is read.", "Raise --max-megapixels.", code="codec")
    return data


def _is_cut_jpeg(data: bytes) -> bool:
    """Whether a JPEG has no end mark after its picture data; thumbnails inside the header do not count.

    Source: ITU-T T.81, annex B: segments of marker and big-endian length up to the start of scan.
    """
    if not data.startswith(b"\xff\xd8"):
        return False
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        has_length = data[position + 1] != 0xFF  # fill bytes may stand before a marker
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big") if has_length else 1
    return data.find(b"\xff\xd9", position) < 0


@functools.cache
def _cv2() -> Any:
    return require("cv2", "vision")
