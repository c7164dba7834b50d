"""Documents that wait to be sent, bounded in number and bytes."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

_MOST_BATCH_BYTES = 1_000_000
_LONGEST_WAIT_S = 10.0  # `put` and `close` wake the one who waits


class Waiting:
    """A queue that gives up its oldest documents (``pushed_out``) for new ones, and hands them out in batches.

    It holds ``most`` documents with ``most_bytes`` together; a batch has ``most_batch`` documents and a megabyte at most,
    or one.
    """

    def __init__(self, most: int, most_bytes: int, most_batch: int) -> None:
        self._most, self._most_bytes, self._most_batch = most, most_bytes, most_batch
        self._documents: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closed = False
        self.pushed_out = 0

    def put(self, document: bytes) -> bool:
        """Append a document; ``False`` when it alone is too large."""
        if len(document) > self._most_bytes:
            return False
        with self._changed:
            while len(self._documents) >= self._most or self._bytes + len(document) > self._most_bytes:
                self._pop()
                self.pushed_out += 1
            self._documents.append((time.monotonic(), document))
            self._bytes += len(document)
            self._changed.notify_all()
        return True

    def take(self, linger_s: float) -> list[bytes]:
        """The next batch: full, or after its first document waited for ``linger_s``; empty when closed and nothing is left."""
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
            self._documents.clear()
            self._bytes = 0

    def _is_due(self, linger_s: float) -> bool:
        if self._closed or len(self._documents) >= self._most_batch:
            return True
        return bool(self._documents) and time.monotonic() - self._documents[0][0] >= linger_s

    def _until_due_s(self, linger_s: float) -> float:
        if not self._documents:
            return _LONGEST_WAIT_S
        return max(0.0, self._documents[0][0] + linger_s - time.monotonic())

    def _batch(self) -> list[bytes]:
        batch: list[bytes] = []
        size = 0
        while self._documents and len(batch) < self._most_batch:
            size += len(self._documents[0][1])
            if batch and size > _MOST_BATCH_BYTES:
                break
            batch.append(self._pop())
        return batch

    def _pop(self) -> bytes:
        document = self._documents.popleft()[1]
        self._bytes -= len(document)
        return document
