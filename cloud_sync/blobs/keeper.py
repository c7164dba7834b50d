"""Writes pictures to disk in a thread of its own, so that a disk that stalls holds up no event."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from edgecv.cloud_sync.blobs.folder import BlobFolder

_MOST_BYTES = 16 * 2**20  # in memory, waiting for the disk


class BlobKeeper:
    """Pictures on their way to the disk, bounded in bytes; ``stored`` is called after each that was written."""

    def __init__(self, folder: BlobFolder, stored: Callable[[], None]) -> None:
        self._folder = folder
        self._stored = stored
        self._changed = threading.Condition()
        self._pictures: deque[tuple[str, bytes]] = deque()
        self._bytes = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="edgecv-blob-disk", daemon=True)
        self._thread.start()

    def put(self, sha256: str, data: bytes) -> bool:
        """Take one picture; never waits. ``False`` when there is no room for it."""
        with self._changed:
            if self._closing or self._bytes + len(data) > _MOST_BYTES:
                return False
            self._pictures.append((sha256, data))
            self._bytes += len(data)
            self._changed.notify_all()
        return True

    def close(self, timeout_s: float) -> bool:
        """Write what waits and stop; ``False`` when that took too long."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pictures or self._closing)
                if not self._pictures:
                    return
                sha256, data = self._pictures[0]
            if self._folder.put(sha256, data):
                self._stored()
            with self._changed:
                self._pictures.popleft()
                self._bytes -= len(data)
