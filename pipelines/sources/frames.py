"""What the sources share: stamping images as frames."""

from __future__ import annotations

import time

from edgecv._internal.printable import short
from edgecv.errors import PluginError
from edgecv.results import Frame, Image


def check_frame(given: object, name: str) -> None:
    """Raise ``PluginError`` unless ``given``, which the source ``name`` gave, is a ``Frame``."""
    if not isinstance(given, Frame):
        raise PluginError(
            f"The source {name} gave {short(given)}, not a Frame.",
            "Its read() returns an edgecv.Frame (FrameStamper makes one of an image), or None at its end.",
        )


class FrameStamper:
    """Numbers the images of one source and notes when each was captured."""

    def __init__(self, source_id: str) -> None:
        self._source_id = source_id
        self._index = 0

    def stamp(
        self, image: Image, position_s: float | None = None, path: str = "", *, is_damaged: bool = False
    ) -> Frame:
        """The image, ``(H, W, 3)`` uint8, BGR, as the next frame, captured now.

        ``position_s`` is its place in a file that has a time of its own, ``path`` the file that it is.
        """
        frame = Frame(
            image=image,
            index=self._index,
            source_id=self._source_id,
            captured_ns=time.time_ns(),
            monotonic_ns=time.monotonic_ns(),
            position_ns=None if position_s is None else round(position_s * 1e9),
            path=path,
            is_damaged=is_damaged,
        )
        self._index += 1
        return frame
