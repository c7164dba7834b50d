"""What other threads ask the StoreThread to do, and wait for."""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path
from typing import TypeVar

from edgecv.cloud_sync.outbox.store import OutboxStore
from edgecv.errors import SyncError

_T = TypeVar("_T")
Request = Callable[[OutboxStore], None]


class Requests:
    """A queue under the lock of the condition ``work``; ``folder`` is for messages."""

    def __init__(self, work: threading.Condition, folder: Path) -> None:
        self._work = work
        self._folder = folder
        self._requests: deque[Request] = deque()
        self._ended = False

    def __bool__(self) -> bool:
        return bool(self._requests)

    def ask(self, request: Callable[[OutboxStore], _T], timeout_s: float) -> _T:
        """Have the StoreThread do something, and wait for the answer.

        Raises:
            SyncError: it did not answer in time, the disk fails, or the outbox is closed.
        """
        answer: futures.Future[_T] = futures.Future()
        if not self.add(lambda store: _answer(answer, request, store)):
            raise SyncError(f"The outbox {self._folder} is closed.")
        try:
            return answer.result(timeout_s)
        except futures.TimeoutError as error:  # the builtin one only from Python 3.11
            raise SyncError(
                f"The outbox {self._folder} did not answer in {timeout_s} s.", "Is the disk slow?"
            ) from error
        except sqlite3.Error as error:
            raise SyncError(f"The outbox {self._folder} cannot be read: {error}", "Check the disk.") from error

    def add(self, request: Request) -> bool:
        """Have the StoreThread do something some time; ``False`` when it has ended."""
        with self._work:
            if self._ended:
                return False
            self._requests.append(request)
            self._work.notify()
        return True

    def take(self) -> Sequence[Request]:
        """All that was asked by now; the caller holds the lock."""
        taken = tuple(self._requests)
        self._requests.clear()
        return taken

    def end(self) -> None:
        """Nothing is answered any more; the caller holds the lock."""
        self._ended = True
        # Whoever still asks finds out at its own deadline; that happens only when the thread broke.
        self._requests.clear()


def _answer(answer: futures.Future[_T], request: Callable[[OutboxStore], _T], store: OutboxStore) -> None:
    try:
        answer.set_result(request(store))
    except Exception as error:  # noqa: BLE001 (it belongs to the thread that asked; the StoreThread must live on)
        answer.set_exception(error)
