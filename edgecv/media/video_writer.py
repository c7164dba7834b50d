"""Writes a video file in fragments, so that a killed process loses about one second."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np

from edgecv._internal.atomic import file_kind
from edgecv._internal.extras import opencv, require
from edgecv._internal.output_files import open_target
from edgecv.errors import ConfigError, SinkError
from edgecv.results import Image

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
_LONGEST_GOP = 250  # x264's own default: some files announce 90,000 frames per second


class VideoWriter:
    """An MP4 or MKV that stays readable when the process is killed: it is written in fragments of about a second.

    The first image sets the size; later ones of another size are fitted into it, with black borders.
    """

    def __init__(self, path: str | Path, fps: float, *, overwrite: bool = False, private: bool = False) -> None:
        """Reserve the file, an ``.mp4`` or ``.mkv``; a ``private`` one only its owner may read, whatever the umask is.

        Raises:
            ConfigError: the file exists (without ``overwrite``), its suffix is another, or ``fps`` is not positive.
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
        opencv()
        # Kept open: by its name it could be another file by the time of the first image.
        self._file = open_target(self._path, overwrite=overwrite, private=private, kind=_VIDEO)
        self._container: Any = None
        self._stream: Any = None
        self._last_tick = -1
        self._closed = False

    def write(self, image: Image, time_s: float) -> None:
        """Append a ``(H, W, 3)`` uint8 BGR image, shown at ``time_s`` from the start; a time that does not grow is moved on.

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
        """Write what the encoder holds; a video without images leaves no file. A second call does nothing.

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
    """The image in ``size_wh``: resized without distortion when it must be, black where it does not reach."""
    (width, height), (rows, columns) = size_wh, image.shape[:2]
    if (columns, rows) == size_wh:
        return np.ascontiguousarray(image)
    canvas: Image = np.zeros((height, width, 3), np.uint8)
    if not (0 <= width - columns <= 1 and 0 <= height - rows <= 1):  # one pixel is the even side, no reason to resample
        scale = min(width / columns, height / rows)
        columns, rows = max(1, int(columns * scale)), max(1, int(rows * scale))
        image = opencv().resize(image, (columns, rows))
    canvas[:rows, :columns] = image
    return canvas
