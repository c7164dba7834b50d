"""The bounded hand-over between two threads."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

T = TypeVar("T")
Inherit = Callable[[T, "deque[T]", T], T]
SlotPolicy = Literal["lossless", "latest"]


class SlotClosed(Exception):  # not an error: how the two sides of a slot tell each other that it is over
    """Nothing more can be put, or nothing is left to get."""


class FrameSlot(Generic[T]):
    """Holds at most ``capacity`` items on their way from one thread to another.

    With the ``policy`` ``lossless`` the producer waits for room; with ``latest`` a full slot drops its oldest item and
    counts it; that may be changed at any time. Every wait has a deadline, and closing wakes both sides.
    """

    def __init__(
        self,
        capacity: int = 1,
        policy: SlotPolicy = "lossless",
        changed: threading.Condition | None = None,
        inherit: Inherit[T] | None = None,
    ) -> None:
        """Open an empty slot for at most ``capacity`` items; ``changed``, which several slots may share, is notified of
        every change.

        ``inherit`` is called with an item that is given up, those that wait (which it may replace) and the one that comes;
        it gives the one that comes. It is for what an item holds and must not go with it, and must be quick.
        """
        self._capacity = capacity
        self.policy = policy
        self._items: deque[T] = deque()
        self._changed = changed or threading.Condition()
        self._inherit = inherit
        self._closed = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """How many items were dropped from a full slot with ``latest``."""
        with self._changed:
            return self._dropped

    def put(self, item: T, timeout_s: float) -> bool:
        """Hand an item over; ``False`` when there was no room until the deadline (``lossless`` only): it was not taken.

        Raises ``SlotClosed`` when nobody will take it any more.
        """
        with self._changed:
            if self.policy == "latest":
                item = self._make_room(item)
            elif not self._wait_until(timeout_s, has_items=False):
                return False
            if self._closed:
                raise SlotClosed
            self._items.append(item)
            self._changed.notify_all()
            return True

    def put_or_leave(self, item: T) -> None:
        """Hand an item over if there is room at once; otherwise it is given up and counted. Raises as ``put``."""
        with self._changed:
            if self._closed or len(self._items) < self._capacity:
                self.put(item, 0.0)
                return
            self._dropped += 1
            if self._inherit is not None:
                self._items[-1] = self._inherit(item, deque(), self._items[-1])

    def get(self, timeout_s: float) -> T | None:
        """The oldest item, or ``None`` when none came until the deadline.

        Raises ``SlotClosed`` when none is left and none will come.
        """
        with self._changed:
            if not self._wait_until(timeout_s, has_items=True):
                return None
            if not self._items:
                raise SlotClosed
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def peek(self) -> T | None:
        """The oldest item, which stays; ``None`` when there is none now. Raises as ``get``."""
        with self._changed:
            if self._closed and not self._items:
                raise SlotClosed
            return self._items[0] if self._items else None

    def notify(self) -> None:
        """Let whoever waits for this slot look again."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Let nothing more in; what is inside may still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def give_up(self) -> list[T]:
        """Let nothing more in, and take out everything."""
        with self._changed:
            self.close()
            items = list(self._items)
            self._items.clear()
            return items

    def _make_room(self, item: T) -> T:
        while not self._closed and len(self._items) >= self._capacity:
            gone = self._items.popleft()
            self._dropped += 1
            if self._inherit is not None:
                item = self._inherit(gone, self._items, item)
        return item

    def _wait_until(self, timeout_s: float, *, has_items: bool) -> bool:
        """Wait for an item (or for room), or for the end; ``False`` when neither came until the deadline."""
        deadline = time.monotonic() + timeout_s
        while not (self._closed or (self._items if has_items else len(self._items) < self._capacity)):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            self._changed.wait(left_s)
        return True
