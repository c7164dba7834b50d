"""The moment a frame is captured, on both clocks."""

from __future__ import annotations

from time import monotonic_ns, time_ns

from edgecv.results import Frame, Image


def stamped(image: Image, index: int, source_id: str) -> Frame:
    """A frame captured now; ``image`` is ``(H, W, 3)`` uint8 BGR."""
    return Frame(image=image, index=index, source_id=source_id, captured_ns=time_ns(), monotonic_ns=monotonic_ns())
