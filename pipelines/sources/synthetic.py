"""``synthetic://?frames=50&width=320&height=240&fps=10``: an image that can be computed, for tests and first steps."""

from __future__ import annotations

import threading
import time
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from edgecv.errors import ConfigError
from edgecv.pipelines.sources.frames import FrameStamper
from edgecv.pipelines.uris import Uri, parse_source, read_options
from edgecv.protocols import SourceType
from edgecv.results import Frame, Image

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Side = Annotated[int, msgspec.Meta(ge=16, le=8192)]


class SyntheticOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the query may say.

    Attributes:
        frames: How many; 0 for no end.
        width: In pixels.
        height: In pixels.
        fps: Frames per second it announces.
        live: Deliver at ``fps`` and lose what nobody takes, as a camera does.
    """

    frames: _Count = 100
    width: _Side = 640
    height: _Side = 480
    fps: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 25.0
    live: bool = False


class SyntheticSource(SourceType):
    """A bright square that wanders over a gradient: the same pixels in every run."""

    Options: ClassVar[type[msgspec.Struct]] = SyntheticOptions

    def __init__(self, uri: str | Uri) -> None:
        """Read the options. Raises ``ConfigError`` for a wrong one, and when something stands before the query."""
        parsed = parse_source(uri)
        if parsed.path:
            raise ConfigError(f"{parsed.name} has no parts.", "Write synthetic://?frames=50 for example.")
        self._options = read_options(parsed, SyntheticOptions)
        self.source_id = parsed.name
        self.live = self._options.live
        self.fps = self._options.fps
        self._index = 0
        self._background = _gradient(self._options.width, self._options.height)
        self._stamper = FrameStamper(self.source_id)
        self._closed = threading.Event()
        self._start_s: float | None = None

    def read(self) -> Frame | None:
        """The next frame, or ``None`` after the last one."""
        if self.live:
            self._wait()
        options = self._options
        if self._closed.is_set() or (options.frames and self._index >= options.frames):
            return None
        image = self._background.copy()
        left, top, side = square_at(self._index, options.width, options.height)
        image[top : top + side, left : left + side] = 255
        self._index += 1
        return self._stamper.stamp(image, None if self.live else (self._index - 1) / self.fps)

    def close(self) -> None:
        """End the source; a second call does nothing."""
        self._closed.set()

    def _wait(self) -> None:
        """Until this frame is due: at most one frame's time, or until the source is closed."""
        now = time.monotonic()
        self._start_s = now if self._start_s is None else self._start_s
        due = self._start_s + self._index / self.fps
        self._closed.wait(max(0.0, due - now))


def square_at(index: int, width: int, height: int) -> tuple[int, int, int]:
    """Left, top and side of the square in frame ``index``, in pixels."""
    side = min(width, height) // 4
    return _bounce(index * 5, width - side), _bounce(index * 3, height - side), side


def _bounce(distance: int, length: int) -> int:
    turned = distance % (2 * length)
    return turned if turned <= length else 2 * length - turned


def _gradient(width: int, height: int) -> Image:
    columns = np.linspace(0, 96, width, dtype=np.uint8)
    rows = np.linspace(0, 96, height, dtype=np.uint8)
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = columns[None, :], rows[:, None]
    return image
