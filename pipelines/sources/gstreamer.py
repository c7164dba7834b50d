"""``gst:videotestsrc is-live=true ! video/x-raw,width=320``: a pipeline that ``gst-launch-1.0`` runs.

OpenCV's wheels are built without GStreamer; this needs only the program. The pipeline ends with raw video; the conversion to
images on a pipe is added here. It is an argument of ``gst-launch-1.0``, so other users of the machine see it: a camera with a
password belongs under ``rtsp://``.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence

from edgecv._internal.extras import require
from edgecv.errors import ConfigError, SourceError
from edgecv.pipelines.sources.frames import FrameStamper
from edgecv.pipelines.sources.live import LiveOptions, LiveSource, Unrecoverable, need
from edgecv.pipelines.sources.pace import Pace
from edgecv.pipelines.sources.program import Program
from edgecv.pipelines.sources.y4m import BOUNDARY, Y4mReader
from edgecv.pipelines.uris import Uri, parse_source, read_options, scrub
from edgecv.results import Frame

_INSTALL = "Install it: sudo apt install gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
_WORDS = 400  # of what the program said, in the message
# BT.601, because that is what OpenCV converts from; `sync=false`: no image waits for a clock.
_OUTPUT = (
    *("!", "video/x-raw,format=I420,colorimetry=bt601", "!", "y4menc"),
    *("!", "multipartmux", f"boundary={BOUNDARY}", "!", "fdsink", "fd={pipe}", "sync=false"),
)
# What gst-launch-1.0 says, the class it stands for, and whether trying again is no use. It has no other way to tell.
_SAYINGS: tuple[tuple[str, str, bool, str], ...] = (
    ("Unauthorized", "auth", True, "Check user and password."),
    ("Not authorized", "auth", True, "Check user and password."),
    ("erroneous pipeline", "codec", True, "Try the pipeline with gst-launch-1.0 first; it ends with raw video."),
    ("not-negotiated", "codec", True, "Its elements do not fit together; it ends with raw video."),
    ("missing a plug-in", "codec", True, "Install the GStreamer plug-in that it names."),
    (
        "failed to allocate",
        "memory",
        False,
        "It needs more memory than it may have. If you trust what it reads: max_memory_mb=",
    ),
    ("resolve", "dns", False, "Check the spelling of the host, or give the IP address."),
    ("refused", "refused", False, "Nothing listens there. Is the service on, and the port right?"),
    ("No such file", "missing", False, "Check the path."),
    ("not exist", "missing", False, "Check the path."),
    ("Not found", "missing", False, "Check the path."),
)


class GstSource(LiveSource):
    """What a GStreamer pipeline gives.

    One that is not live (a file, a test image) runs at the rate it announces; one that is, as it comes.
    """

    @staticmethod
    def check(uri: Uri) -> None:
        """Refuse what can never work, without starting anything; errors as of ``open_source``."""
        _words(uri)
        need("cv2", "vision")

    def __init__(self, uri: str | Uri) -> None:
        """Start the pipeline, and wait for its first image.

        Raises ``SourceError`` when it cannot run; the ``code`` says why.
        """
        self._uri = parse_source(uri)
        self.source_id = self._uri.name
        options = read_options(self._uri, LiveOptions)
        self._stream = GstStream([*_words(self._uri), "!", *_scaling(options)], self._uri, options)
        self.fps = self._stream.fps

    def read(self) -> Frame | None:
        """The next frame, or ``None`` when the pipeline came to its end or was closed.

        Raises ``SourceError`` when it broke.
        """
        return self._stream.read()

    def close(self) -> None:
        """End the pipeline; a second call does nothing."""
        self._stream.close()


class GstStream:
    """A running ``gst-launch-1.0`` as frames."""

    def __init__(self, elements: Sequence[str], uri: Uri, options: LiveOptions) -> None:
        """Start ``elements``, which end with raw video; ``options`` say how large its images may be.

        Raises ``SourceError`` when it cannot run; the ``code`` says why.
        """
        require("cv2", "vision")
        self._uri = uri
        self._stamper = FrameStamper(uri.name)
        program = ["gst-launch-1.0", "-q", *elements, *_OUTPUT]
        self._program: Program | None = Program(program, _INSTALL)
        self._images = Y4mReader(self._program.output, uri.name, options)
        try:
            self._first = self._read_one()
        except BaseException:
            self.close()
            raise
        self.fps = self._images.fps
        self._pace = Pace(self.fps)

    def read(self) -> Frame | None:
        """The next frame, or ``None`` at the end. Raises ``SourceError``: the pipeline broke."""
        if self._program is None:
            return None
        time.sleep(self._pace.wait_s(time.monotonic()))
        first, self._first = self._first, None
        return first or self._read_one()

    def close(self) -> None:
        """End the program; a second call does nothing."""
        if self._program is not None:
            self._program.close()
            self._program = None

    def _read_one(self) -> Frame | None:
        assert self._program is not None
        try:
            image = self._images.read()
        except Unrecoverable:
            raise
        except SourceError as error:
            raise self._failure() or SourceError(f"{self._uri.name}: {error}", error.hint, code=error.code) from error
        if image is not None:
            return self._stamper.stamp(image)
        failure = self._failure()
        if failure is not None:
            raise failure
        return None

    def _failure(self) -> SourceError | None:
        """Why the program ended, or ``None`` when it came to its end in peace or is still at work."""
        assert self._program is not None
        code, said = self._program.outcome()
        if not code:
            return None
        for saying, name, final, hint in _SAYINGS:
            if saying in said:
                return (Unrecoverable if final else SourceError)(self._message(said), hint, code=name)
        return SourceError(self._message(said), "Try the pipeline with gst-launch-1.0 first.", code="eof")

    def _message(self, said: str) -> str:
        lines = [line for line in said.splitlines() if line.startswith(("ERROR", "WARNING"))] or said.splitlines()
        return f"{self._uri.name} broke: {scrub(' '.join(lines), self._uri)[:_WORDS] or 'it does not say why'}."


def _words(uri: Uri) -> list[str]:
    """The pipeline, taken apart as a shell would."""
    try:
        words = shlex.split(uri.path)
    except ValueError as error:
        raise ConfigError(f"{uri.name}: its quotes do not match.") from error
    if not words:
        raise ConfigError("The GStreamer pipeline is empty.", "Write for example: gst:videotestsrc is-live=true")
    return words


def _scaling(options: LiveOptions) -> list[str]:
    """Elements that convert, and resize when asked to; one side alone keeps the proportions."""
    sides = [f"{name}={value}" for name, value in (("width", options.width), ("height", options.height)) if value]
    if not sides:
        return ["videoconvert"]
    square = ["pixel-aspect-ratio=1/1"]
    return [
        "videoconvert",
        "!",
        "videoscale",
        "add-borders=false",
        "!",
        ",".join(["video/x-raw", *sides, *square]),
        "!",
        "videoconvert",
    ]
