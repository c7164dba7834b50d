"""``Outbox``: events wait here, on disk, until ingest has them."""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import (
    Future,
    TimeoutError as FutureTimeoutError,  # the builtin one only from Python 3.11
)
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from edgecv._internal.device_clock import clock_from_now
from edgecv.cloud_sync.acks import AckRange, Key
from edgecv.cloud_sync.envelope import MAX_EVENT_BYTES, PRIORITIES, Envelope, encode
from edgecv.cloud_sync.outbox.database import Claim, Row
from edgecv.cloud_sync.outbox.disk import lock_file, lock_owner, make_private_folder
from edgecv.cloud_sync.outbox.limits import OutboxLimits, OutboxStats, Ticket
from edgecv.cloud_sync.outbox.store import Counts, OutboxStore
from edgecv.errors import OutboxLocked, SyncError
from edgecv.protocols import Clock

_T = TypeVar("_T")
_OPEN_TIMEOUT_S = 60.0  # checking a full 256 MiB file on an SD card takes tens of seconds
_MAX_QUEUED_ACKS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Queued:
    row: Row
    ticket: Ticket


class Outbox:
    """A durable queue in a folder; one process at a time may own it.

    ``put`` never waits and never touches the disk: one thread (the StoreThread) owns the SQLite file and commits in
    groups. Whatever cannot be taken is refused and counted.

    Args:
        folder: Made when missing.
        limits: Sizes.
        clock: UTC nanoseconds; only times to live look at it. By default those that the system had at the start, which go on
            steadily: a jump of its clock makes no event worthless.

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
        self._incoming: deque[_Queued] = deque()
        self._incoming_bytes = 0
        self._done: list[AckRange] = []
        self._requests: deque[Callable[[OutboxStore], None]] = deque()
        self._on_stored: Callable[[], None] | None = None
        self._refused = 0
        self._counts = Counts()
        self._committing = 0
        self._ended = False
        self._closing = False
        self._seq = itertools.count(1)
        self._folder_lock = self._take_folder()
        opened: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="edgecv-outbox", daemon=True)
        self._thread.start()
        self.boot = self._boot_when(opened)

    def next_seq(self) -> int:
        """The sequence number of the next event; each call gives another."""
        return next(self._seq)

    def put(self, envelope: Envelope, *, ttl_s: float | None = None) -> Ticket:
        """Take one event, made with this outbox's ``boot`` and a ``next_seq()``; never waits, never raises for space.

        Args:
            envelope: The event.
            ttl_s: Seconds after which it is worthless and may be dropped (counted); ``None`` keeps it.

        Raises:
            SyncError: the payload is not JSON.
        """
        ticket = Ticket(boot=envelope.boot, seq=envelope.seq)
        row = Row(
            boot=envelope.boot,
            seq=envelope.seq,
            priority=PRIORITIES.index(envelope.priority),
            body=encode(envelope),
            expires_ns=None if ttl_s is None else self._clock() + int(ttl_s * 1e9),
        )
        with self._work:
            ticket.refused = self._refusal(row)
            if ticket.refused:
                self._refused += 1
                return ticket
            self._incoming.append(_Queued(row=row, ticket=ticket))
            self._incoming_bytes += len(row.body)
            if len(self._incoming) in (1, self._limits.group_rows):
                self._work.notify()
        return ticket

    def acknowledge(self, ranges: Sequence[AckRange]) -> None:
        """Delete events that ingest has; returns at once."""
        with self._work:
            # Beyond the bound an acknowledgement is forgotten: the event is sent again and acknowledged again.
            self._done.extend(ranges[: _MAX_QUEUED_ACKS - len(self._done)])
            self._work.notify()

    def claim(self, *, limit: int, max_bytes: int, priorities: int = len(PRIORITIES), timeout_s: float = 10.0) -> Claim:
        """The oldest events of the most urgent priority that were not claimed since the outbox was opened.

        Raises:
            SyncError: the disk did not answer in time, or the outbox is closed.
        """
        now_ns = self._clock()
        return self._ask(
            lambda store: store.claim(limit=limit, max_bytes=max_bytes, priorities=priorities, now_ns=now_ns), timeout_s
        )

    def rewind(self, timeout_s: float = 10.0) -> None:
        """Offer everything again that is still on disk and not buried.

        Raises:
            SyncError: the disk did not answer in time, or the outbox is closed.
        """
        self._ask(lambda store: store.rewind(), timeout_s)

    def bury(self, key: Key, reason: str, timeout_s: float = 10.0) -> bool:
        """Keep an event on disk but never offer it again; ``False`` when it is already gone.

        Raises:
            SyncError: the disk did not answer in time, or the outbox is closed.
        """
        return self._ask(lambda store: store.bury(key, reason), timeout_s)

    def when_stored(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called, from the StoreThread, after each commit of new events; it must not wait."""
        self._on_stored = callback

    def stats(self) -> OutboxStats:
        """The counts of the outbox at this moment."""
        with self._lock:
            counts, refused = self._counts, self._refused
            queued = len(self._incoming) + self._committing
        return OutboxStats(
            accepted=counts.accepted,
            refused=refused + counts.refused,
            queued=queued,
            pending=counts.pending,
            acknowledged=counts.acknowledged,
            evicted=counts.evicted,
            expired=counts.expired,
            dead=counts.dead,
            used_bytes=counts.used_bytes,
            quarantined_files=counts.quarantined_files,
            salvaged=counts.salvaged,
            lost=counts.lost,
            last_error=counts.last_error,
        )

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

    def _take_folder(self) -> IO[str]:
        path = self._folder / "lock"
        try:
            make_private_folder(self._folder)
            handle = lock_file(path)
        except OSError as error:
            raise SyncError(f"The outbox {self._folder} cannot be written: {error.strerror}.", "Check it.") from error
        if handle is None:
            raise OutboxLocked(
                f"The outbox {self._folder} belongs to the running process {lock_owner(path)}.",
                "Stop that process, or give this one an outbox folder of its own.",
            )
        return handle

    def _boot_when(self, opened: Future[int]) -> int:
        try:
            return opened.result(_OPEN_TIMEOUT_S)
        except (OSError, sqlite3.Error, FutureTimeoutError) as error:
            self._folder_lock.close()
            raise SyncError(f"The outbox {self._folder} cannot be opened: {error!r}", "Check the disk.") from error
        except SyncError:
            self._folder_lock.close()
            raise

    def _refusal(self, row: Row) -> str:
        if self._closing:
            return "the outbox is closed"
        if len(row.body) > MAX_EVENT_BYTES:
            return f"the event is larger than {MAX_EVENT_BYTES} bytes"
        limits = self._limits
        full = len(self._incoming) >= limits.queue_rows or self._incoming_bytes + len(row.body) > limits.queue_bytes
        return "the disk is too slow: the queue in memory is full" if full else ""

    def _ask(self, request: Callable[[OutboxStore], _T], timeout_s: float) -> _T:
        """Have the StoreThread do something and wait for the answer."""
        answer: Future[_T] = Future()
        with self._work:
            if self._ended:
                raise SyncError(f"The outbox {self._folder} is closed.")
            self._requests.append(lambda store: _answer(answer, request, store))
            self._work.notify()
        try:
            return answer.result(timeout_s)
        except FutureTimeoutError as error:
            raise SyncError(
                f"The outbox {self._folder} did not answer in {timeout_s} s.", "Is the disk slow?"
            ) from error
        except sqlite3.Error as error:
            raise SyncError(f"The outbox {self._folder} cannot be read: {error}", "Check the disk.") from error

    def _run(self, opened: Future[int]) -> None:
        limits = self._limits
        try:
            store = OutboxStore(
                self._folder,
                quota_bytes=limits.quota_bytes,
                floor_bytes=limits.floor_bytes,
                ballast_bytes=limits.ballast_bytes,
                clock=self._clock,
            )
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
            queued = [self._incoming.popleft() for _ in range(min(len(self._incoming), self._limits.group_rows))]
            self._incoming_bytes -= sum(len(item.row.body) for item in queued)
            self._committing = len(queued)
            done, self._done = self._done, []
            requests = [self._requests.popleft() for _ in range(len(self._requests))]
        self._commit(store, queued, done)
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
        return bool(self._incoming or self._done or self._requests or self._closing)

    def _urgent(self) -> bool:
        return bool(self._requests) or self._closing or len(self._incoming) >= self._limits.group_rows

    def _commit(self, store: OutboxStore, queued: Sequence[_Queued], done: Sequence[AckRange]) -> None:
        if not (queued or done or store.owes):
            return
        reasons = store.commit([item.row for item in queued], done)
        self._publish(store)
        for item, reason in zip(queued, reasons, strict=True):
            item.ticket.refused = reason
            if not reason:
                item.ticket.accepted.set()
        if queued and self._on_stored is not None:
            self._on_stored()

    def _publish(self, store: OutboxStore) -> None:
        counts = store.counts()
        with self._lock:
            self._counts = counts
            self._committing = 0

    def _refuse_rest(self, reason: str) -> None:
        with self._lock:
            self._closing = True
            self._refused += self._committing
            rest = list(self._incoming)
            self._incoming.clear()
            self._incoming_bytes = self._committing = 0
            self._refused += len(rest)
        for item in rest:
            item.ticket.refused = reason

    def _finish(self) -> None:
        with self._lock:
            self._ended = True
            # Whoever still asks finds out at its own deadline; that happens only when the thread broke.
            self._requests.clear()


def _answer(answer: Future[_T], request: Callable[[OutboxStore], _T], store: OutboxStore) -> None:
    try:
        answer.set_result(request(store))
    except Exception as error:  # noqa: BLE001 (it belongs to the thread that asked; the StoreThread must live on)
        answer.set_exception(error)
