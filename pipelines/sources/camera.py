"""``0``, ``usb://0``, ``usb:///dev/video2``: a camera that the operating system knows by number or device file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from edgecv._internal.extras import require
from edgecv.errors import ConfigError, SourceError
from edgecv.pipelines.sources.frames import FrameStamper
from edgecv.pipelines.sources.live import LiveOptions, LiveSource, Unrecoverable, need
from edgecv.pipelines.uris import Uri, parse_source, read_options
from edgecv.results import Frame

_FPS_TOLERANCE = 1.0  # drivers say 29.97 or 30.00003 for 30


class UsbSource(LiveSource):
    """A camera; frames that nobody takes are lost."""

    @staticmethod
    def check(uri: Uri) -> None:
        """Refuse what can never work, without touching the camera; errors as of ``open_source``."""
        _device(uri)
        need("cv2", "vision")

    def __init__(self, uri: str | Uri) -> None:
        """Open the camera.

        Raises:
            SourceError: there is no such camera (``missing``), it cannot be opened (``refused``), or it cannot do what an
                option asks for (``codec``).
        """
        parsed = parse_source(uri)
        options = read_options(parsed, LiveOptions)
        self.source_id = parsed.name
        self._cv2 = require("cv2", "vision")
        self._capture: Any = _open(self._cv2, parsed)
        try:
            self._configure(options)
        except SourceError:
            self.close()
            raise
        self.fps = max(0.0, float(self._capture.get(self._cv2.CAP_PROP_FPS)))
        self._stamper = FrameStamper(self.source_id)

    def read(self) -> Frame | None:
        """The next frame, or ``None`` when the camera was closed. Raises ``SourceError``: the camera sends no more."""
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

    def _configure(self, options: LiveOptions) -> None:
        cv2 = self._cv2
        wanted = {
            "width": (cv2.CAP_PROP_FRAME_WIDTH, options.width),
            "height": (cv2.CAP_PROP_FRAME_HEIGHT, options.height),
            "fps": (cv2.CAP_PROP_FPS, options.fps),
        }
        chosen = {name: row for name, row in wanted.items() if row[1]}
        for prop, value in chosen.values():
            self._capture.set(prop, value)
        for name, (prop, value) in chosen.items():  # the last one set can change the first
            given = float(self._capture.get(prop))
            # More frames than asked for are passed over later; fewer cannot be mended.
            if given < value - _FPS_TOLERANCE if name == "fps" else given != value:
                raise Unrecoverable(
                    f"{self.source_id} gives {name} {given:g}, not {value:g}.",
                    "See what it can do with: v4l2-ctl --list-formats-ext",
                    code="codec",
                )


def _device(uri: Uri) -> int | str:
    if uri.path.startswith("/dev/"):
        return uri.path
    if uri.path.isdecimal():
        return int(uri.path)
    raise ConfigError(f"{uri.name} names no camera.", "Write usb://0 or usb:///dev/video0.")


def _open(cv2: Any, uri: Uri) -> Any:
    device = _device(uri)
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
