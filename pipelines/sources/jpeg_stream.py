"""JPEG images out of a stream of bytes: multipart over HTTP, ``rpicam-vid``, or one image after the other.

Each image is found by its own markers (ITU-T T.81, annex B), whatever stands between them: boundaries, heads of parts, nothing.
A stream is foreign: an image that never ends, or bytes in which none begins, end the reading before they fill the memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from edgecv.errors import SourceError

_LARGEST_IMAGE = 32 << 20  # bytes; one of 64 megapixels in camera quality takes about 20 MB
_MOST_BETWEEN = 256 << 10  # bytes between two images; boundary and head of a part take some hundred
_SMALLEST_CUT = 1 << 10  # what a cut image counts for at least: finding its end costs time, however small it is
_CHUNK = 64 << 10
_START = b"\xff\xd8\xff"
# A marker that says something. 0xFF before 0x00 is image data, D0 to D7 are restarts within it, 01 and 0xFF mean nothing.
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
_SOI, _EOI = 0xD8, 0xD9


class JpegStream:
    """The images of one stream, still encoded."""

    def __init__(self, read: Callable[[int], bytes], name: str, most_pixels: int) -> None:
        """Read with ``read``, which gives at most so many bytes, as soon as there are any, and none at the end.

        ``name`` is for errors. The images that will be decoded have ``most_pixels`` at most: their bytes are bounded, too.
        """
        self._read = read
        self._name = name
        self._largest = max(_LARGEST_IMAGE, most_pixels // 2)
        self._data = bytearray()

    def next(self) -> bytes | None:
        """The next whole image, or ``None`` at the end; one that is cut short by the next is passed over.

        Raises ``SourceError`` when an image or what stands between two is too long (code ``codec``).
        """
        passed_over = 0
        while self._skip_to_start():
            end = self._end()
            if end is None:
                return None
            image = bytes(self._data[:end])
            del self._data[:end]
            if image.endswith(b"\xff\xd9"):
                return image
            passed_over += max(end, _SMALLEST_CUT)
            self._check(passed_over, self._largest, "bytes of images without their ends")
        return None

    def _skip_to_start(self) -> bool:
        """Drop what stands before the next image; ``False`` when there is none."""
        skipped = 0
        while (start := self._data.find(_START)) < 0:
            kept = max(0, len(self._data) - len(_START) + 1)
            skipped += kept
            del self._data[:kept]
            self._check(skipped, _MOST_BETWEEN, "bytes without a JPEG image")
            if not self._more():
                return False
        del self._data[:start]
        self._check(skipped + start, _MOST_BETWEEN, "bytes without a JPEG image")
        return True

    def _end(self) -> int | None:
        """Where the image at the beginning ends: after its end mark, or where another begins; ``None`` at the end of all."""
        at = 2
        while True:
            found = _MARKER.search(self._data, at)
            if found is None:
                at = max(at, len(self._data) - 1)
            elif self._data[found.start() + 1] == _EOI:
                return found.end()
            elif self._data[found.start() + 1] == _SOI:
                return found.start()
            elif len(self._data) >= found.end() + 2:
                at = found.end() + max(2, int.from_bytes(self._data[found.end() : found.end() + 2], "big"))
                continue
            else:
                at = found.start()
            self._check(len(self._data), self._largest, "bytes of an image without its end")
            if not self._more():
                return None

    def _more(self) -> bool:
        data = self._read(_CHUNK)
        self._data += data
        return bool(data)

    def _check(self, count: int, most: int, what: str) -> None:
        if count > most:
            raise SourceError(
                f"{self._name} sent more than {most >> 10} KiB: {what}.",
                "It is no MJPEG camera, or is damaged. Does the path lead to the video?",
                code="codec",
            )
