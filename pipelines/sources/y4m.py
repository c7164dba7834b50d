"""Raw pictures from a pipe in the YUV4MPEG2 format, as GStreamer's ``y4menc`` writes it.

Format: https://wiki.multimedia.cx/index.php/YUV4MPEG2. A new header in mid-stream begins pictures of another size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgecv.errors import SourceError
from edgecv.extras import require
from edgecv.results import Image

_MARK = 6  # bytes: the length of `FRAME\n`, and enough to know a header
_FRAME = b"FRAME\n"
_HEADER = b"YUV4MP"
_LONGEST_HEADER = 256
_LARGEST_SIDE = 16384


class Y4mReader:
    """BGR pictures out of a stream of bytes."""

    def __init__(self, read_into: Callable[[memoryview], int]) -> None:
        """Read through ``read_into``, which fills a buffer and returns less than its length only at the end.

        Raises:
            MissingDependency: OpenCV is not installed.
        """
        self._cv2 = require("cv2", "vision")
        self._read_into = read_into
        self._ahead = b""  # read already: the mark of the next picture
        self._size_wh = (0, 0)
        self._padded: bool | None = None
        self.fps = 0.0

    def read(self) -> Image | None:
        """The next picture, ``(H, W, 3)`` uint8 BGR, or ``None`` at the end.

        Raises:
            SourceError: the bytes are no YUV4MPEG2, or stop within a picture.
        """
        mark = self._ahead or self._bytes(_MARK)
        self._ahead = b""
        if mark == _HEADER:
            self._read_header()
            mark = self._bytes(_MARK)
        if not mark:
            return None
        if mark != _FRAME or not self._size_wh[0]:
            raise _broken()
        return self._picture()

    def _read_header(self) -> None:
        line = bytearray()
        while not line.endswith(b"\n"):
            byte = self._bytes(1)
            if not byte or len(line) > _LONGEST_HEADER:
                raise _broken()
            line += byte
        fields = {word[:1]: word[1:] for word in line.decode("ascii", "replace").split()[1:]}
        try:
            self._size_wh = (int(fields["W"]), int(fields["H"]))
            top, _, bottom = fields.get("F", "0:1").partition(":")
            self.fps = int(top) / int(bottom)
        except (KeyError, ValueError, ZeroDivisionError):
            raise _broken() from None
        if not 0 < min(self._size_wh) <= max(self._size_wh) <= _LARGEST_SIDE:
            raise _broken()
        self._padded = None

    def _picture(self) -> Image:
        width, height = self._size_wh
        packed = _i420_bytes(width, (width + 1) // 2, height)
        padded = _i420_bytes(_up(width, 4), _up((width + 1) // 2, 4), _up(height, 2))
        if self._padded is None and packed == padded:
            self._padded = False
        if self._padded is None:
            return self._first_picture(packed, padded)
        data = self._whole(padded if self._padded else packed)
        return self._bgr(data, self._padded)

    def _first_picture(self, packed: int, padded: int) -> Image:
        """GStreamer before 1.24 leaves the padding of its rows in; only what follows the picture tells which it is."""
        data = self._whole(packed)
        following = self._bytes(_MARK)
        self._padded = following not in (b"", _FRAME, _HEADER)
        if self._padded:
            rest = self._whole(padded - packed - len(following))
            data = np.concatenate([data, np.frombuffer(following, np.uint8), rest])
        else:
            self._ahead = following
        return self._bgr(data, self._padded)

    def _bgr(self, data: Image, padded: bool) -> Image:
        """OpenCV wants even sides: the picture is taken out of one that is a pixel larger."""
        width, height = self._size_wh
        columns, rows = _up(width, 2), _up(height, 2)
        luma_stride, chroma_stride = (_up(width, 4), _up((width + 1) // 2, 4)) if padded else (width, (width + 1) // 2)
        luma_rows = rows if padded else height
        luma = data[: luma_stride * luma_rows].reshape(luma_rows, luma_stride)[:height, :width]
        chroma = data[luma_stride * luma_rows :].reshape(rows, chroma_stride)[:, : columns // 2]
        if (columns, rows) == (width, height) and not padded:
            planes = data.reshape(rows * 3 // 2, columns)
        else:
            whole = np.pad(luma, ((0, rows - height), (0, columns - width)), mode="edge")
            planes = np.concatenate([whole.ravel(), np.ascontiguousarray(chroma).ravel()]).reshape(-1, columns)
        image: Any = self._cv2.cvtColor(planes, self._cv2.COLOR_YUV2BGR_I420)
        return np.ascontiguousarray(image[:height, :width])

    def _whole(self, count: int) -> Image:
        data: Image = np.empty(count, np.uint8)
        if self._read_into(memoryview(data)) < count:
            raise SourceError("The stream stopped within a picture.", "See what ended it.", code="eof")
        return data

    def _bytes(self, count: int) -> bytes:
        data = bytearray(count)
        return bytes(data[: self._read_into(memoryview(data))])


def _i420_bytes(luma_stride: int, chroma_stride: int, rows: int) -> int:
    return luma_stride * rows + 2 * chroma_stride * ((rows + 1) // 2)


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


def _broken() -> SourceError:
    return SourceError("The pictures in the pipe cannot be read.", "Does the pipeline end with raw video?", code="codec")
