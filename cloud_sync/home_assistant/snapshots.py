"""The last picture of each source in which something happened, as JPEG."""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Any

from edgecv._internal.extras import require
from edgecv.results import Image, Result

MAX_IMAGE_BYTES = 60 * 1024
_LONGEST_PX = 960
_QUALITIES = (80, 60, 40)


class Snapshots:
    """Keeps the newest frame of each source until it is due, one at most; it is encoded on the thread that takes it."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._cv2 = require("cv2", "vision")
        self._lock = threading.Lock()
        self._waiting: dict[str, Result] = {}
        self._taken_s: dict[str, float] = {}

    def offer(self, result: Result) -> None:
        """Keep a frame instead of the one that waits."""
        with self._lock:
            self._waiting[result.frame.source_id] = result

    def due(self, now_s: float) -> dict[str, bytes]:
        """The pictures to send now, by source; an image that does not become small enough is left out."""
        with self._lock:
            names = [name for name in self._waiting if now_s - self._taken_s.get(name, float("-inf")) >= self._every_s]
            results = {name: self._waiting.pop(name) for name in names}
            self._taken_s |= dict.fromkeys(names, now_s)
        pictures = {name: self._jpeg(result.frame.image) for name, result in results.items()}
        return {name: picture for name, picture in pictures.items() if picture}

    def forget(self, sources: Collection[str]) -> None:
        """Drop what is known of all sources but these."""
        with self._lock:
            for name in (self._waiting.keys() | self._taken_s.keys()) - set(sources):
                self._waiting.pop(name, None)
                self._taken_s.pop(name, None)

    def _jpeg(self, image: Image) -> bytes:
        longest = _LONGEST_PX
        while longest >= 64:
            small = self._within(image, longest)
            for quality in _QUALITIES:
                data = self._encoded(small, quality)
                if len(data) <= MAX_IMAGE_BYTES:
                    return data
            longest //= 2
        return b""

    def _within(self, image: Image, longest: int) -> Image:
        height, width = image.shape[:2]
        share = longest / max(height, width)
        if share >= 1:
            return image
        size = (max(1, round(width * share)), max(1, round(height * share)))
        small: Image = self._cv2.resize(image, size, interpolation=self._cv2.INTER_AREA)
        return small

    def _encoded(self, image: Image, quality: int) -> bytes:
        encoded: Any = self._cv2.imencode(".jpg", image, [self._cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return bytes(encoded.tobytes())
