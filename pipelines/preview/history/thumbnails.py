"""Small pictures for the list of events: a phone must not load a page of large ones."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

from edgecv._internal.extras import opencv
from edgecv.errors import EdgeCVError
from edgecv.media.image_headers import check_image_size
from edgecv.pipelines.preview.history.media import MediaFile

WIDTH = 160  # pixels
_KEPT = 300  # about 5 kB each
_MOST_BYTES = 16 << 20


class Thumbnails:
    """Makes small pictures and remembers the latest; from any thread."""

    def __init__(self) -> None:
        self._made: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, file: MediaFile) -> bytes | None:
        """A JPEG of an open picture; ``None`` of what is none."""
        with self._lock:
            if file.tag in self._made:
                self._made.move_to_end(file.tag)
                return self._made[file.tag]
        jpeg = _shrunk(file)
        if jpeg is not None:
            with self._lock:
                self._made[file.tag] = jpeg
                while len(self._made) > _KEPT:
                    self._made.popitem(last=False)
        return jpeg


def _shrunk(file: MediaFile) -> bytes | None:
    if file.size_bytes > _MOST_BYTES or not file.content_type.startswith("image/"):
        return None
    import numpy as np

    cv2 = opencv()
    try:
        data = os.pread(file.descriptor, file.size_bytes, 0)
        width, _ = check_image_size(data, "a snapshot")
    except (EdgeCVError, OSError):
        return None
    flags = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
    reduced = next((flag for by, flag in flags.items() if width // by >= WIDTH), cv2.IMREAD_COLOR)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), reduced)
    if image is None:
        return None
    if image.shape[1] > WIDTH:
        height = max(1, round(image.shape[0] * WIDTH / image.shape[1]))
        image = cv2.resize(image, (WIDTH, height), interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 75])[1])
