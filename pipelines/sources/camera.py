"""``0``, ``usb://0``, ``usb:///dev/video2``: a camera that the operating system knows by number or device file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec

from edgecv.errors import ConfigError, SourceError
from edgecv.extras import require
from edgecv.pipelines.sources.frames import FrameStamper
from edgecv.results import Frame
from edgecv.uris import Uri, parse_source, read_options

_Side = Annotated[int, msgspec.Meta(ge=0, le=16384)]
_FPS_TOLERANCE = 1.0  # drivers say 29.97 or 30.00003 for 30


class CameraOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask the camera for; 0 leaves it to the camera.

    Attributes:
        width: In pixels.
        height: In pixels.
        fps: Frames per second.
    """

    width: _Side = 0
    height: _Side = 0
    fps: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0


class UsbSource:
    """A camera; frames that nobody takes are lost.

    Attributes:
        source_id: ``usb://0``.
        live: ``True``.
        fps: Frames per second the driver announces, 0.0 when it does not.
    """

    live = True

    def __init__(self, uri: str | Uri) -> None:
        """Open the camera.

        Raises:
            SourceError: there is no such camera (``missing``), or it cannot be opened (``refused``).
            ConfigError: an option does not exist, or the camera cannot do what it asks for.
            MissingDependency: OpenCV is not installed.
        """
        parsed = parse_source(uri)
        options = read_options(parsed, CameraOptions)
        self.source_id = parsed.name
        self._cv2 = require("cv2", "vision")
        self._capture: Any = _open(self._cv2, parsed)
        try:
            self._configure(options)
        except ConfigError:
            self.close()
            raise
        self.fps = max(0.0, float(self._capture.get(self._cv2.CAP_PROP_FPS)))
        self._stamper = FrameStamper(self.source_id)

    def read(self) -> Frame | None:
        """The next frame, or ``None`` when the camera was closed.

        Raises:
            SourceError: the camera sends no more.
        """
        if self._capture is None:
            return None
        taken, image = self._capture.read()
        if not taken:
            raise SourceError(f"{self.source_id} sends no more frames.", "Is it still plugged in?", code="stale")
        return self._stamper.stamp(image)

    def close(self) -> None:
        """Release the camera; a second call does nothing."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _configure(self, options: CameraOptions) -> None:
        cv2 = self._cv2
        wanted = {
            "width": (cv2.CAP_PROP_FRAME_WIDTH, options.width, 0.5),
            "height": (cv2.CAP_PROP_FRAME_HEIGHT, options.height, 0.5),
            "fps": (cv2.CAP_PROP_FPS, options.fps, _FPS_TOLERANCE),
        }
        chosen = {name: row for name, row in wanted.items() if row[1]}
        for prop, value, _ in chosen.values():
            self._capture.set(prop, value)
        for name, (prop, value, tolerance) in chosen.items():  # the last one set can change the first
            given = float(self._capture.get(prop))
            if abs(given - value) > tolerance:
                raise ConfigError(
                    f"{self.source_id} gives {name} {given:g}, not {value:g}.",
                    "See what it can do with: v4l2-ctl --list-formats-ext",
                )


def _open(cv2: Any, uri: Uri) -> Any:
    device = uri.path if uri.path.startswith("/dev/") else int(uri.path) if uri.path.isdecimal() else None
    if device is None:
        raise ConfigError(f"{uri.name} names no camera.", "Write usb://0 or usb:///dev/video0.")
    on_linux = sys.platform.startswith("linux")
    if on_linux and not Path(f"/dev/video{device}" if isinstance(device, int) else device).exists():
        raise _missing(uri)
    capture = cv2.VideoCapture(device, cv2.CAP_V4L2 if on_linux else cv2.CAP_ANY)
    if capture.isOpened():
        return capture
    if not on_linux:
        raise _missing(uri)
    raise SourceError(
        f"{uri.name} cannot be opened as a camera.",
        "Does another program use it? Are you in the group 'video'? Not every /dev/video is a camera.",
        code="refused",
    )


def _missing(uri: Uri) -> SourceError:
    there = sorted(path.name.removeprefix("video") for path in Path("/dev").glob("video[0-9]*"))
    known = f"Video devices here: {', '.join(there)}." if there else "This machine shows no video device."
    return SourceError(f"There is no camera {uri.name}.", known + " Is it plugged in?", code="missing")
