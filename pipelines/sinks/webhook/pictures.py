"""A JPEG of the frame with which an event came."""

from __future__ import annotations

from typing import Any

from edgecv._internal.extras import require
from edgecv.errors import SinkError
from edgecv.results import Result


class Pictures:
    """Makes a JPEG of a frame, painted or clean, with a limit for its longer side."""

    def __init__(self, *, draw: bool, max_side: int, quality: int) -> None:
        """``draw`` paints what was found, lines and zones. Raises ``MissingDependency``: OpenCV is not installed."""
        self._cv2 = require("cv2", "vision")
        self._draw, self._max_side, self._quality = draw, max_side, quality

    def of(self, result: Result) -> bytes:
        """The picture of a result's frame. Raises ``SinkError`` when it cannot be made."""
        image = result.plot() if self._draw else result.frame.image
        height, width = image.shape[:2]
        scale = self._max_side / max(height, width)
        try:
            if scale < 1:
                size_wh = (max(round(width * scale), 1), max(round(height * scale), 1))
                image = self._cv2.resize(image, size_wh, interpolation=self._cv2.INTER_AREA)
            done: Any = self._cv2.imencode(".jpg", image, [self._cv2.IMWRITE_JPEG_QUALITY, self._quality])[1]
        except self._cv2.error as error:
            raise SinkError(f"A picture of {result.frame.source_id} could not be made: {error}.") from error
        return bytes(done.tobytes())
