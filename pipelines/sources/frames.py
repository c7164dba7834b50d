"""What the sources share: stamping pictures as frames."""

from __future__ import annotations

import time

from edgecv.results import Frame, Image


class FrameStamper:
    """Numbers the pictures of one source and notes when each was captured."""

    def __init__(self, source_id: str) -> None:
        self._source_id = source_id
        self._index = 0

    def stamp(self, image: Image, position_s: float | None = None, *, is_damaged: bool = False) -> Frame:
        """The picture as the next frame, captured now; ``position_s`` is its place in a file that has a time of its own."""
        frame = Frame(
            image=image,
            index=self._index,
            source_id=self._source_id,
            captured_ns=time.time_ns(),
            monotonic_ns=time.monotonic_ns(),
            position_ns=None if position_s is None else round(position_s * 1e9),
            is_damaged=is_damaged,
        )
        self._index += 1
        return frame
