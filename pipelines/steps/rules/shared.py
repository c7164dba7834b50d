"""What several rules compute of the same frame is computed once: they follow one another in the same thread."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from edgecv.results import FloatArray

_Made = TypeVar("_Made")


class _OfOneFrame(threading.local):
    """What was made of the boxes of the newest frame of this thread. The boxes themselves are not kept alive by it."""

    def __init__(self) -> None:
        self.boxes: Callable[[], Any] = lambda: None
        self.made: dict[Hashable, Any] = {}


_newest = _OfOneFrame()


def shared(xyxy: FloatArray, key: Hashable, make: Callable[[], _Made]) -> _Made:
    """What ``make`` gives, or gave for the same ``key`` and the very same array of boxes. Treat it as read-only."""
    if _newest.boxes() is not xyxy:
        _newest.boxes, _newest.made = weakref.ref(xyxy), {}
    made: _Made | None = _newest.made.get(key)
    if made is None:
        made = _newest.made[key] = make()
    return made
