"""``csi://0``: the ribbon-cable camera of a Raspberry Pi or a Jetson, through the program that the board brings.

Nothing of it is imported: picamera2 lives in the system's Python, bound to the system's numpy.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv.errors import ConfigError, SourceError
from edgecv.media.image_headers import image_size
from edgecv.pipelines.sources.frames import FrameStamper
from edgecv.pipelines.sources.gstreamer import GstStream
from edgecv.pipelines.sources.jpeg_stream import JpegStream
from edgecv.pipelines.sources.live import LiveOptions, LiveSource, Unrecoverable, check_size, need
from edgecv.pipelines.sources.packets import JpegPackets
from edgecv.pipelines.sources.program import Program
from edgecv.pipelines.uris import Uri, parse_source, read_options, scrub
from edgecv.results import Frame

_RPICAM = ("rpicam-vid", "libcamera-vid")  # the second is its name before Raspberry Pi OS 12
_JETSON = Path("/etc/nv_tegra_release")
_WORDS = 400
_INSTALL = (
    "On a Raspberry Pi: sudo apt install rpicam-apps. On a Jetson: gstreamer1.0-tools. Other boards: gst:libcamerasrc."
)


class CsiSource(LiveSource):
    """A camera of the board; frames that nobody takes are lost."""

    @staticmethod
    def check(uri: Uri) -> None:
        """Refuse what can never work, without touching the camera; errors as of ``open_source``."""
        _number(uri)
        need("cv2", "vision")

    def __init__(self, uri: str | Uri) -> None:
        """Start the board's program.

        Raises ``SourceError`` when there is no such program (``missing``), or it cannot use the camera.
        """
        parsed = parse_source(uri)
        options = read_options(parsed, LiveOptions)
        self.source_id = parsed.name
        self._packets = JpegPackets()
        self._stream: _JpegStream | GstStream = _open(parsed, options, self._keep)
        self.fps = self._stream.fps or options.fps

    def read(self) -> Frame | None:
        """The next frame, or ``None`` when the camera was closed. Raises ``SourceError``: the program ended."""
        return self._stream.read()

    def close(self) -> None:
        """End the program, which gives the camera back; a second call does nothing."""
        self._stream.close()

    def _keep(self, data: bytes) -> None:
        if self.on_packet is not None:
            self.on_packet(self._packets.made(data, image_size(data)))


class _JpegStream:
    """A running ``rpicam-vid`` as frames: images of any size, each marked where it begins and ends."""

    fps = 0.0

    def __init__(self, program: str, uri: Uri, options: LiveOptions, keep: Callable[[bytes], None]) -> None:
        self._cv2 = require("cv2", "vision")
        self._keep = keep
        self._uri = uri
        self._stamper = FrameStamper(uri.name)
        self._options = options
        self._program: Program | None = Program(rpicam_arguments(program, _number(uri), options), _INSTALL)
        self._images = JpegStream(self._program.output.read1, uri.name, options.most_pixels)

    def read(self) -> Frame | None:
        if self._program is None:
            return None
        image = None
        while image is None:  # one that was cut is passed over
            data = self._next()
            image = self._decoded(data)
        self._keep(data)
        return self._stamper.stamp(image)

    def close(self) -> None:
        if self._program is not None:
            self._program.close()
            self._program = None

    def _next(self) -> bytes:
        assert self._program is not None
        image = self._images.next()
        if image is None:
            raise self._failure(*self._program.outcome())
        return image

    def _decoded(self, data: bytes) -> Any:
        check_size(*image_size(data), self._uri.name, self._options)
        return self._cv2.imdecode(np.frombuffer(data, np.uint8), self._cv2.IMREAD_COLOR)

    def _failure(self, code: int | None, said: str) -> SourceError:
        last = scrub(said, self._uri)[-_WORDS:] or ("it hangs" if code is None else f"exit code {code}")
        absent = "no cameras available" in said.lower() or "does not exist" in said
        return SourceError(
            f"{self._uri.name} gives no more images: {last}",
            "Is the ribbon cable in, and does another program use the camera? rpicam-hello --list-cameras",
            code="missing" if absent else "eof",
        )


def _open(uri: Uri, options: LiveOptions, keep: Callable[[bytes], None]) -> _JpegStream | GstStream:
    number = _number(uri)
    program = next(filter(shutil.which, _RPICAM), None)
    if program is not None:
        return _JpegStream(program, uri, options, keep)
    if _JETSON.exists():
        return GstStream(jetson_elements(number, options), uri, options)
    raise Unrecoverable(f"{uri.name}: this board has no program for its camera.", _INSTALL, code="missing")


def rpicam_arguments(program: str, number: int, options: LiveOptions) -> list[str]:
    """The command that sends camera ``number`` as JPEG images without end.

    JPEG rather than raw: the rows of raw images are padded in a way that differs by board and is not announced.
    Source: https://www.raspberrypi.com/documentation/computers/camera_software.html
    """
    wanted = {"--width": options.width, "--height": options.height, "--framerate": options.fps}
    sizes = [word for name, value in wanted.items() if value for word in (name, f"{value:g}")]
    fixed = ["--timeout", "0", "--nopreview", "--codec", "mjpeg", "--quality", "90", "--flush"]
    return [program, "--camera", str(number), *fixed, *sizes, "--output", "/dev/fd/{pipe}"]


def jetson_elements(number: int, options: LiveOptions) -> list[str]:
    """The pipeline from camera ``number`` of a Jetson to raw video in the processor's memory.

    Source: https://docs.nvidia.com/jetson/archives/r36.3/DeveloperGuide/SD/CameraDevelopment.html
    """
    size = ",".join(
        f"{name}={value}" for name, value in (("width", options.width), ("height", options.height)) if value
    )
    rate = f"framerate={round(options.fps * 1000)}/1000" if options.fps else ""
    memory = ",".join(filter(None, ("video/x-raw(memory:NVMM)", rate)))
    output = ",".join(filter(None, ("video/x-raw,format=I420", size)))
    return ["nvarguscamerasrc", f"sensor-id={number}", "!", memory, "!", "nvvidconv", "!", output, "!", "videoconvert"]


def _number(uri: Uri) -> int:
    if not uri.path.isdecimal():
        raise ConfigError(f"{uri.name} names no camera.", "Write csi://0.")
    return int(uri.path)
