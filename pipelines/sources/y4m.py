"""Raw images from a pipe, as GStreamer's ``y4menc ! multipartmux`` writes them.

YUV4MPEG2 (https://wiki.multimedia.cx/index.php/YUV4MPEG2) says how large the images are, but only once; the parts of the
multipart stream (RFC 2046, section 5.1) say how long each is. So an image whose size changed is never taken for another.
"""

from __future__ import annotations

from io import BufferedIOBase
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv.errors import SourceError
from edgecv.pipelines.sources.live import LiveOptions, check_size
from edgecv.results import Image

BOUNDARY = "edgecv"
_FRAME = b"FRAME\n"
_HEADER = b"YUV4MPEG2 "
_LONGEST_LINE = 256
_MOST_LINES = 8  # of the head of a part; GStreamer writes five
_MOST_FPS = 1000.0
_PADDING = 8  # a row or column more, at most: GStreamer rounds the sides of its buffers up to a multiple of 4


class Y4mReader:
    """BGR images out of a stream of parts; ``fps`` is what the stream announces, 0.0 when unknown."""

    def __init__(self, stream: BufferedIOBase, name: str, options: LiveOptions) -> None:
        """Read from ``stream``, which ``name`` calls in errors; ``options`` say how large the images may be."""
        self._cv2 = require("cv2", "vision")
        self._stream, self._name, self._options = stream, name, options
        self._size_wh = (0, 0)
        self.fps = 0.0

    def read(self) -> Image | None:
        """The next image, ``(H, W, 3)`` uint8 BGR, or ``None`` at the end.

        Raises:
            SourceError: the bytes are something else (``codec``), stop within an image, or the size of the images changed
                (``eof``): then the program has to be started anew.
        """
        length = self._part_length()
        if length is None:
            return None
        line = self._stream.readline(min(length, _LONGEST_LINE))
        length -= len(line)
        if line.startswith(_HEADER):
            self._read_header(line)
            line = self._stream.readline(min(length, len(_FRAME)))
            length -= len(line)
        if line != _FRAME or not self._size_wh[0]:
            raise _broken()
        width, height = self._size_wh
        if length > (width + _PADDING) * (height + _PADDING) * 2:
            raise _resized()
        return self._bgr(self._whole(length))

    def _part_length(self) -> int | None:
        """Bytes of the next part, after its head; ``None`` at the end."""
        length, begun = None, False
        for _ in range(_MOST_LINES):
            line = self._stream.readline(_LONGEST_LINE)
            if not line and not begun:
                return None
            begun = begun or bool(line.strip())  # the line break that ends a part may be the last of all
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length" and value.strip().isdigit():
                length = int(value)
            if line == b"\r\n" and length is not None:
                return length
        raise _broken()

    def _read_header(self, line: bytes) -> None:
        fields = {word[:1]: word[1:] for word in line.decode("ascii", "replace").split()[1:]}
        try:
            self._size_wh = (int(fields["W"]), int(fields["H"]))
            top, _, bottom = fields.get("F", "0:1").partition(":")
            fps = int(top) / int(bottom)
        except (KeyError, ValueError, ArithmeticError):
            raise _broken() from None
        if min(self._size_wh) < 1:
            raise _broken()
        self.fps = fps if 0 < fps <= _MOST_FPS else 0.0
        check_size(*self._size_wh, self._name, self._options)

    def _bgr(self, data: Image) -> Image:
        """OpenCV wants even sides: an odd image is taken out of one that is a pixel larger."""
        width, height = self._size_wh
        columns, rows = _up(width, 2), _up(height, 2)
        luma, chroma = self._planes(data)
        if luma.shape == (rows, columns):
            planes = np.concatenate([luma.ravel(), chroma.ravel()]) if data.size != rows * columns * 3 // 2 else data
        else:
            whole = np.pad(luma, ((0, rows - height), (0, columns - width)), mode="edge")
            planes = np.concatenate([whole.ravel(), chroma.ravel()])
        image: Any = self._cv2.cvtColor(planes.reshape(-1, columns), self._cv2.COLOR_YUV2BGR_I420)
        return np.ascontiguousarray(image[:height, :width])

    def _planes(self, data: Image) -> tuple[Image, Image]:
        """Brightness ``(H, W)`` and both colours ``(2 * ceil(H / 2), ceil(W / 2))``.

        Rows are packed as the format asks for; GStreamer before 1.24 leaves the padding of its buffers in.
        """
        width, height = self._size_wh
        half, rows = (width + 1) // 2, _up(height, 2)
        for luma_stride, chroma_stride, luma_rows in ((width, half, height), (_up(width, 4), _up(half, 4), rows)):
            luma_bytes = luma_stride * luma_rows
            if data.size == luma_bytes + chroma_stride * rows:
                luma = data[:luma_bytes].reshape(luma_rows, luma_stride)[:height, :width]
                return luma, data[luma_bytes:].reshape(rows, chroma_stride)[:, :half]
        raise _resized()

    def _whole(self, count: int) -> Image:
        data: Image = np.empty(count, np.uint8)
        target, done = data.data, 0
        while done < count:
            more = self._stream.readinto(target[done:])
            if not more:
                raise SourceError("The stream stopped within an image.", "See what ended it.", code="eof")
            done += more
        return data


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


def _resized() -> SourceError:
    return SourceError("The images in the pipe changed their size.", "They are read anew.", code="eof")


def _broken() -> SourceError:
    return SourceError("The images in the pipe cannot be read.", "Does the pipeline end with raw video?", code="codec")
