"""What the sources share: stamping pictures as frames."""

from __future__ import annotations

import time

from edgecv.results import Frame, Image


class FrameStamper:
    """Numbers the pictures of one source and notes when each was captured."""

    def __init__(self, source_id: str) -> None:
        self._source_id = source_id
        self._index = 0

    def stamp(self, image: Image) -> Frame:
        """The picture as the next frame, captured now."""
        frame = Frame(
            image=image,
            index=self._index,
            source_id=self._source_id,
            captured_ns=time.time_ns(),
            monotonic_ns=time.monotonic_ns(),
        )
        self._index += 1
        return frame
