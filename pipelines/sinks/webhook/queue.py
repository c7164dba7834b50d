"""What waits to be sent, bounded in number and bytes."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence, Sized
from typing import Generic, TypeVar

_MOST_BATCH_BYTES = 1_000_000
_LONGEST_WAIT_S = 10.0  # `put` and `close` wake the one who waits


_Item = TypeVar("_Item", bound=Sized)


class Waiting(Generic[_Item]):
    """A queue that gives up its oldest items (``pushed_out``) for new ones, and hands them out in batches.

    It holds ``most`` items with ``most_bytes`` (their ``len``) together; a batch has ``most_batch`` items and a megabyte at
    most, or one. ``give_up`` is told of each item that goes for a new one.
    """

    def __init__(self, most: int, most_bytes: int, most_batch: int, give_up: Callable[[_Item], object] = id) -> None:
        self._most, self._most_bytes, self._most_batch = most, most_bytes, most_batch
        self._give_up = give_up
        self._items: deque[tuple[float, _Item]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closed = False
        self.pushed_out = 0

    def put(self, item: _Item) -> bool:
        """Append an item; ``False`` when it alone is too large."""
        if len(item) > self._most_bytes:
            return False
        with self._changed:
            while len(self._items) >= self._most or self._bytes + len(item) > self._most_bytes:
                self._give_up(self._pop())
                self.pushed_out += 1
            self._items.append((time.monotonic(), item))
            self._bytes += len(item)
            self._changed.notify_all()
        return True

    def take(self, linger_s: float) -> Sequence[_Item]:
        """The next batch: full, or after its first item waited for ``linger_s``; empty when closed and nothing is left."""
        with self._changed:
            while not self._is_due(linger_s):
                self._changed.wait(self._until_due_s(linger_s))
            return self._batch()

    def pause(self, seconds: float, until: Callable[[], float]) -> None:
        """Wait, but not past the monotonic moment ``until``, which ``close`` may bring nearer."""
        end = time.monotonic() + seconds
        with self._changed:
            while (left_s := min(end, until()) - time.monotonic()) > 0:
                self._changed.wait(left_s)

    def close(self) -> None:
        """Nothing more comes; who waits goes on at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def discard(self) -> None:
        """Give up what is left."""
        with self._changed:
            while self._items:
                self._give_up(self._pop())

    def _is_due(self, linger_s: float) -> bool:
        if self._closed or len(self._items) >= self._most_batch:
            return True
        return bool(self._items) and time.monotonic() - self._items[0][0] >= linger_s

    def _until_due_s(self, linger_s: float) -> float:
        if not self._items:
            return _LONGEST_WAIT_S
        return max(0.0, self._items[0][0] + linger_s - time.monotonic())

    def _batch(self) -> list[_Item]:
        batch: list[_Item] = []
        size = 0
        while self._items and len(batch) < self._most_batch:
            size += len(self._items[0][1])
            if batch and size > _MOST_BATCH_BYTES:
                break
            batch.append(self._pop())
        return batch

    def _pop(self) -> _Item:
        item = self._items.popleft()[1]
        self._bytes -= len(item)
        return item
