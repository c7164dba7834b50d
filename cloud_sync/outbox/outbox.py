"""``Outbox``: events wait here, on disk, until ingest has them."""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path
from typing import TypeVar

from edgecv._internal.timing import clock_from_now
from edgecv.cloud_sync.acks import AckRange, Key
from edgecv.cloud_sync.envelope import MAX_EVENT_BYTES, PRIORITIES, Envelope, encode
from edgecv.cloud_sync.folders import own_folder
from edgecv.cloud_sync.outbox.database import Claim, Row
from edgecv.cloud_sync.outbox.limits import OutboxLimits
from edgecv.cloud_sync.outbox.store import OutboxStore
from edgecv.cloud_sync.stats import SyncStats
from edgecv.errors import OutboxFull, OutboxLocked, SyncError
from edgecv.protocols import Clock

_T = TypeVar("_T")
_OPEN_TIMEOUT_S = 60.0  # checking a full 256 MiB file on an SD card takes tens of seconds
_MAX_QUEUED_ACKS = 10_000


class Outbox:
    """A durable queue in a folder; one process at a time may own it.

    ``put`` never waits and never touches the disk: one thread (the StoreThread) owns the SQLite file and commits in
    groups. Whatever cannot be taken is refused and counted.

    Only times to live look at ``clock``, UTC nanoseconds. By default it is that of the system at the start, which goes on
    steadily: a later jump makes no event worthless.

    Raises:
        OutboxLocked: another process owns the folder.
        SyncError: the folder or the file in it cannot be used.
    """

    def __init__(self, folder: Path | str, *, limits: OutboxLimits | None = None, clock: Clock | None = None) -> None:
        self._folder = Path(folder)
        self._limits = limits or OutboxLimits()
        self._clock = clock or clock_from_now()
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._incoming: deque[Row] = deque()
        self._incoming_bytes = 0
        self._done: list[AckRange] = []
        self._requests: deque[Callable[[OutboxStore], None]] = deque()
        self._on_stored: Callable[[], None] | None = None
        self._refused = 0
        self._counts = SyncStats()
        self._committing = 0
        self._ended = False
        self._closing = False
        self._marking = False
        self._seq = itertools.count(1)
        self._folder_lock = own_folder(self._folder, "outbox", "process", taken=OutboxLocked)
        opened: futures.Future[int] = futures.Future()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="edgecv-outbox", daemon=True)
        self._thread.start()
        self.boot = self._boot_when(opened)

    def next_seq(self) -> int:
        """The sequence number of the next event; each call gives another."""
        return next(self._seq)

    def put(self, envelope: Envelope, *, ttl_s: float | None = None) -> None:
        """Take one event, made with this outbox's ``boot`` and a ``next_seq()``; never waits.

        It is accepted once it is committed, and may still be refused until then; ``stats`` counts both. After ``ttl_s`` seconds
        it is worthless, and deleted (counted).

        Raises:
            OutboxFull: there is no room for it in memory, it is too large, or the outbox is closed; it is counted.
            SyncError: the payload is not JSON; it is counted.
        """
        try:
            row = Row(
                boot=envelope.boot,
                seq=envelope.seq,
                priority=PRIORITIES.index(envelope.priority),
                body=encode(envelope),
                expires_ns=None if ttl_s is None else self._clock() + int(ttl_s * 1e9),
            )
            with self._work:
                self._check_room(row)
                self._incoming.append(row)
                self._incoming_bytes += len(row.body)
                if len(self._incoming) in (1, self._limits.group_rows):
                    self._work.notify()
        except SyncError:
            with self._lock:
                self._refused += 1
            raise

    def acknowledge(self, ranges: Sequence[AckRange]) -> None:
        """Delete events that ingest has; returns at once."""
        with self._work:
            # Beyond the bound an acknowledgement is forgotten: the event is sent again and acknowledged again.
            self._done.extend(ranges[: _MAX_QUEUED_ACKS - len(self._done)])
            self._work.notify()

    def claim(
        self,
        *,
        limit: int,
        max_bytes: int,
        priorities: int = len(PRIORITIES),
        backlog: bool = True,
        timeout_s: float = 10.0,
    ) -> Claim:
        """The oldest events of the most urgent priority that were not claimed since the outbox was opened.

        Those that came after ``mark_backlog`` come before the others; without ``backlog`` no others come, except alarms.

        Raises:
            SyncError: the disk did not answer in time, or the outbox is closed.
        """
        return self._ask(
            lambda store: store.claim(limit=limit, max_bytes=max_bytes, priorities=priorities, backlog=backlog),
            timeout_s,
        )

    def mark_backlog(self) -> None:
        """What lies on disk unclaimed is backlog: events that come later are claimed before it. Returns at once."""
        with self._work:
            self._marking = True
            self._work.notify()

    def rewind(self, timeout_s: float = 10.0) -> None:
        """Offer everything again that is still on disk and not buried; errors as in ``claim``."""
        self._ask(lambda store: store.rewind(), timeout_s)

    def bury(self, key: Key, reason: str, timeout_s: float = 10.0) -> bool:
        """Keep an event on disk but never offer it again; ``False`` when it is already gone. Errors as in ``claim``."""
        return self._ask(lambda store: store.bury(key, reason), timeout_s)

    def when_stored(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called, from the StoreThread, after each commit of new events; it must not wait."""
        self._on_stored = callback

    def stats(self) -> SyncStats:
        """The counts of the outbox at this moment."""
        with self._lock:
            waiting = SyncStats(refused=self._refused, queued=len(self._incoming) + self._committing)
            return waiting + self._counts

    def close(self, timeout_s: float = 10.0) -> bool:
        """Store what is queued and close the file; later events are refused.

        Returns:
            Whether everything was done in time; a second call gives the same answer.
        """
        with self._work:
            self._closing = True
            self._work.notify()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        self._folder_lock.close()
        return True

    def _boot_when(self, opened: futures.Future[int]) -> int:
        try:
            return opened.result(_OPEN_TIMEOUT_S)
        except (OSError, sqlite3.Error, futures.TimeoutError) as error:
            self._folder_lock.close()
            raise SyncError(f"The outbox {self._folder} cannot be opened: {error!r}", "Check the disk.") from error
        except SyncError:
            self._folder_lock.close()
            raise

    def _check_room(self, row: Row) -> None:
        limits = self._limits
        if self._closing:
            why = "the outbox is closed"
        elif len(row.body) > MAX_EVENT_BYTES:
            why = f"the event is larger than {MAX_EVENT_BYTES} bytes"
        elif len(self._incoming) >= limits.queue_rows or self._incoming_bytes + len(row.body) > limits.queue_bytes:
            why = "the disk is too slow: the queue in memory is full"
        else:
            return
        raise OutboxFull(f"Event {row.boot}:{row.seq} was refused: {why}.", "See Outbox.stats().")

    def _ask(self, request: Callable[[OutboxStore], _T], timeout_s: float) -> _T:
        """Have the StoreThread do something and wait for the answer."""
        answer: futures.Future[_T] = futures.Future()
        with self._work:
            if self._ended:
                raise SyncError(f"The outbox {self._folder} is closed.")
            self._requests.append(lambda store: _answer(answer, request, store))
            self._work.notify()
        try:
            return answer.result(timeout_s)
        except futures.TimeoutError as error:  # the builtin one only from Python 3.11
            raise SyncError(
                f"The outbox {self._folder} did not answer in {timeout_s} s.", "Is the disk slow?"
            ) from error
        except sqlite3.Error as error:
            raise SyncError(f"The outbox {self._folder} cannot be read: {error}", "Check the disk.") from error

    # What follows runs on the StoreThread.

    def _run(self, opened: futures.Future[int]) -> None:
        try:
            store = OutboxStore(self._folder, self._limits, self._clock)
        except (OSError, sqlite3.Error, SyncError) as error:
            opened.set_exception(error)
            return
        self._publish(store)
        opened.set_result(store.boot)
        try:
            while self._turn(store):
                pass
        except Exception as error:  # noqa: BLE001 (the thread's last resort: what it leaves behind is refused and counted)
            self._refuse_rest(f"the outbox failed: {error}")
        finally:
            self._finish()
            store.close()

    def _turn(self, store: OutboxStore) -> bool:
        with self._work:
            self._wait_for_work(store)
            rows = [self._incoming.popleft() for _ in range(min(len(self._incoming), self._limits.group_rows))]
            self._incoming_bytes -= sum(len(row.body) for row in rows)
            self._committing = len(rows)
            done, self._done = self._done, []
            marking, self._marking = self._marking, False
            requests = [self._requests.popleft() for _ in range(len(self._requests))]
        if marking:  # before the commit: rows that are just coming are no backlog
            store.mark_backlog()
        if rows or done or store.owes:
            store.commit(rows, done)
            self._publish(store)
        if rows and self._on_stored is not None:
            self._on_stored()
        for request in requests:
            request(store)
        if requests:
            self._publish(store)
        with self._lock:
            return not self._closing or bool(self._incoming or self._done or self._requests)

    def _wait_for_work(self, store: OutboxStore) -> None:
        # The time-out only matters to deletions that a full disk postponed.
        self._work.wait_for(self._has_work, timeout=1.0 if store.owes else None)
        if self._incoming and not self._urgent():
            self._work.wait_for(self._urgent, timeout=self._limits.group_s)

    def _has_work(self) -> bool:
        return bool(self._incoming or self._done or self._requests or self._marking or self._closing)

    def _urgent(self) -> bool:
        return bool(self._requests) or self._closing or len(self._incoming) >= self._limits.group_rows

    def _publish(self, store: OutboxStore) -> None:
        counts = store.counts()
        with self._lock:
            self._counts = counts
            self._committing = 0

    def _refuse_rest(self, reason: str) -> None:
        with self._lock:
            self._closing = True
            refused = SyncStats(refused=self._committing + len(self._incoming), last_error=reason)
            self._counts = refused + self._counts
            self._incoming.clear()
            self._incoming_bytes = self._committing = 0

    def _finish(self) -> None:
        with self._lock:
            self._ended = True
            # Whoever still asks finds out at its own deadline; that happens only when the thread broke.
            self._requests.clear()


def _answer(answer: futures.Future[_T], request: Callable[[OutboxStore], _T], store: OutboxStore) -> None:
    try:
        answer.set_result(request(store))
    except Exception as error:  # noqa: BLE001 (it belongs to the thread that asked; the StoreThread must live on)
        answer.set_exception(error)
