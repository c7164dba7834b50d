"""The newest image of each source, painted only when somebody looks."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256

from edgecv._internal.extras import opencv
from edgecv.results import Image, Result

log = logging.getLogger("edgecv.pipelines")

_CHANNELS = 64  # sources; of more the one that was silent for longest is forgotten
_JPEG_QUALITY = 75


@dataclass(frozen=True, slots=True, kw_only=True)
class PaintedImage:
    """A painted result: its number, counted from 1 for each source, and the image with boxes."""

    number: int
    jpeg: bytes


class Channel:
    """One source: a reference to its newest result, and the image of one that was looked at."""

    def __init__(self, source_id: str) -> None:
        self.source_id = source_id
        self.key = channel_key(source_id)
        self.newest: tuple[int, Result] | None = None
        self.image: PaintedImage | None = None
        self.tried = 0  # number of the newest result that was painted or could not be
        self.painted_s = float("-inf")


class PaintedImages:
    """Takes results at no cost, and paints the newest one when it is asked for.

    However many watch, a result is painted once, and a source no more than ``fps`` times a second. One thread paints for
    all sources: watching never takes more than one core. It does not exist until somebody watches.
    """

    def __init__(self, fps: float, width: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Prepare to paint so many images per second and source, so many pixels wide; smaller frames stay as they are."""
        self.fps = fps
        self._width = width
        self._clock_s = clock_s
        self._channels: dict[str, Channel] = {}
        self._lock = threading.Lock()
        self._painter = ThreadPoolExecutor(1, thread_name_prefix="edgecv-preview-painter")
        self._painted = 0
        self._complained = False

    @property
    def painted(self) -> int:
        """Images encoded so far, of all sources."""
        return self._painted

    def offer(self, result: Result) -> None:
        """Keep a reference to a result until the next one of its source."""
        source_id = result.frame.source_id
        with self._lock:
            # The order of the table is that of the last results.
            channel = self._channels.pop(source_id, None) or Channel(source_id)
            number = 1 if channel.newest is None else channel.newest[0] + 1
            channel.newest = (number, result)
            self._channels[source_id] = channel
            if len(self._channels) > _CHANNELS:
                del self._channels[next(iter(self._channels))]

    def channels(self) -> tuple[Channel, ...]:
        """Every source that gave a result, by name."""
        with self._lock:
            return tuple(sorted(self._channels.values(), key=lambda channel: channel.source_id))

    def find(self, key: str) -> Channel | None:
        """The source with that key."""
        return next((channel for channel in self.channels() if channel.key == key), None)

    def holds(self, channel: Channel) -> bool:
        """Whether that source is not forgotten."""
        return self._channels.get(channel.source_id) is channel

    async def current(self, channel: Channel) -> PaintedImage | None:
        """The newest image that the limit on images per second allows; ``None`` when there is none yet."""
        if self._is_due(channel):
            await asyncio.get_running_loop().run_in_executor(self._painter, self._paint, channel)
        return channel.image

    def close(self) -> None:
        """Let go of results and the thread; a second call does nothing."""
        with self._lock:
            self._channels.clear()
        self._painter.shutdown(wait=False, cancel_futures=True)

    def _is_due(self, channel: Channel) -> bool:
        newest = channel.newest
        return newest is not None and newest[0] != channel.tried and self._clock_s() - channel.painted_s >= 1 / self.fps

    def _paint(self, channel: Channel) -> None:
        newest = channel.newest
        if newest is None or not self._is_due(channel):  # another watcher asked first
            return
        begin_s = self._clock_s()
        try:
            channel.image = PaintedImage(number=newest[0], jpeg=encode(newest[1], self._width))
            self._painted += 1
        except Exception as error:  # noqa: BLE001 - one odd frame must not end the page; it is said once
            self._complain(channel, error)
        # Last: until then others who ask line up behind this and get its image.
        channel.tried, channel.painted_s = newest[0], begin_s

    def _complain(self, channel: Channel, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            log.warning("A frame of %s cannot be shown on the preview: %s", channel.source_id, error)


def channel_key(source_id: str) -> str:
    """A short name for URLs; the same after a restart, and it says nothing about the source."""
    return sha256(source_id.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def encode(result: Result, width: int) -> bytes:
    """The frame with what was found, as a JPEG of at most ``width`` pixels; errors as of ``Result.plot``."""
    cv2 = opencv()
    shown = _fit(result.plot(), width)
    return bytes(cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1])


def _fit(image: Image, width: int) -> Image:
    if image.shape[1] <= width:
        return image
    cv2 = opencv()
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    fitted: Image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return fitted
