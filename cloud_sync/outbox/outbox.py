"""``Outbox``: events wait here, on disk, until ingest has them."""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent import futures
from pathlib import Path

from edgecv._internal.timing import clock_from_now
from edgecv.cloud_sync.acks import AckRange, Key
from edgecv.cloud_sync.envelope import PRIORITIES, Envelope, encode
from edgecv.cloud_sync.folders import own_folder
from edgecv.cloud_sync.outbox.accounts.losses import Loss, LossLedger, Reason
from edgecv.cloud_sync.outbox.accounts.reports import LossReports, Report
from edgecv.cloud_sync.outbox.checking import FileCheck
from edgecv.cloud_sync.outbox.database import Claim
from edgecv.cloud_sync.outbox.limits import OutboxLimits
from edgecv.cloud_sync.outbox.requests import Requests
from edgecv.cloud_sync.outbox.rows import Row
from edgecv.cloud_sync.outbox.store import OutboxStore
from edgecv.cloud_sync.outbox.waiting import Waiting
from edgecv.cloud_sync.stats import SyncStats
from edgecv.errors import OutboxLocked, SyncError
from edgecv.events import Priority
from edgecv.protocols import Clock

_OPEN_TIMEOUT_S = 300.0  # an SD card may take so long for a file of an older EdgeCV, or a damaged one
_MAX_QUEUED_ACKS = 10_000
_REPORT_EVERY_S = 60.0


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
        self._waiting = Waiting(self._limits)
        self._done: list[AckRange] = []
        self._requests = Requests(self._work, self._folder)
        self._on_stored: Callable[[], None] | None = None
        self._reports: LossReports | None = None
        self._counts = SyncStats()
        self._losses: Sequence[Loss] = ()
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

    def put(self, envelope: Envelope, *, ttl_s: float | None = None, coalesce_key: str = "") -> None:
        """Take one event, made with this outbox's ``boot`` and a ``next_seq()``; never waits.

        It is accepted once it is committed, and may still be refused until then; ``stats`` counts both. After ``ttl_s`` seconds,
        by default those of its lane, it is worthless, and deleted (counted). An unsent one of the same ``coalesce_key`` is
        deleted for it (counted).

        Raises:
            OutboxFull: there is no room for it in memory, it is too large, or the outbox is closed; it is counted.
            SyncError: the payload is not JSON; it is counted.
        """
        now_ns = self._clock()
        ttl_s = self._limits.ttl_s(envelope.priority) if ttl_s is None else ttl_s
        try:
            body = encode(envelope)
        except SyncError:
            self.refuse(envelope.priority)
            raise
        row = Row(
            boot=envelope.boot,
            seq=envelope.seq,
            priority=PRIORITIES.index(envelope.priority),
            body=body,
            expires_ns=None if ttl_s is None else now_ns + int(ttl_s * 1e9),
            coalesce_key=coalesce_key.encode(errors="backslashreplace").decode(),  # else SQLite takes no lone surrogate
        )
        with self._work:
            if len(self._waiting) in (0, self._limits.group_rows - 1):
                self._work.notify()
            self._waiting.put(row, now_ns)

    def refuse(self, lane: Priority) -> None:
        """Count an event that cannot be written as JSON; never waits."""
        with self._work:
            self._waiting.refuse("not_json", lane, self._clock())
            self._work.notify()

    def acknowledge(self, ranges: Sequence[AckRange]) -> None:
        """Delete events that ingest has; returns at once."""
        with self._work:
            # Beyond the bound an acknowledgement is forgotten: the event is sent again and acknowledged again.
            room = _MAX_QUEUED_ACKS - len(self._done)
            self._done.extend(ranges[:room])
            self._work.notify()
        if len(ranges) > room:
            self._requests.add(lambda store: store.forget_acknowledgements())

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
        return self._requests.ask(
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
        self._requests.ask(lambda store: store.rewind(), timeout_s)

    def bury(self, key: Key, reason: str, timeout_s: float = 10.0) -> bool:
        """Keep an event on disk but never offer it again; ``False`` when it is already gone. Errors as in ``claim``."""
        return self._requests.ask(lambda store: store.bury(key, reason), timeout_s)

    def retry_dead(self, keys: Collection[Key] | None = None, timeout_s: float = 10.0) -> int:
        """Offer dead letters again, all or those of ``keys``; says how many. What is damaged stays dead. Errors as in ``claim``."""
        return self._requests.ask(lambda store: store.retry_dead(keys), timeout_s)

    def lose(self, reason: Reason, lane: Priority) -> None:
        """Enter something that was lost beside the events into the ledger, such as a snapshot; never waits."""
        with self._work:
            self._waiting.lose(reason, lane, self._clock())
            self._work.notify()

    def report_losses(self, make: Report, every_s: float = _REPORT_EVERY_S) -> None:
        """Store an event, made by ``make`` on the StoreThread, when the ledger has changed, at most once in ``every_s``.

        It needs no room, counts as no event that was put, and takes the place of an unsent former one.
        """
        self._reports = LossReports(make, every_s)
        self._requests.add(lambda _store: None)  # it wakes the StoreThread: something may be there to be told

    def losses(self) -> tuple[Loss, ...]:
        """What was lost since the first start of this outbox, by reason and lane."""
        with self._lock:
            ledger = LossLedger(self._losses)
            ledger.add_all(self._waiting.losses())
        return ledger.all()

    def when_stored(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called, from the StoreThread, after each commit of new events; it must not wait."""
        self._on_stored = callback

    def stats(self) -> SyncStats:
        """The counts of the outbox at this moment."""
        with self._lock:
            return SyncStats(refused=self._waiting.refused, queued=self._waiting.queued) + self._counts

    def close(self, timeout_s: float = 10.0) -> bool:
        """Store what is queued and close the file; later events are refused.

        Returns:
            Whether everything was done in time; a second call gives the same answer.
        """
        with self._work:
            self._waiting.closed = True
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

    # What follows runs on the StoreThread.

    def _run(self, opened: futures.Future[int]) -> None:
        try:
            store = OutboxStore(self._folder, self._limits, self._clock)
        except (OSError, sqlite3.Error, SyncError) as error:
            opened.set_exception(error)
            return
        self._publish(store)
        replaced = store.replaced
        check = FileCheck(store.path, lambda why: self._requests.add(lambda store: store.check_failed(why, replaced)))
        if store.is_unchecked:
            check.start()
        opened.set_result(store.boot)
        try:
            while self._turn(store):
                pass
        except Exception as error:  # noqa: BLE001 (the thread's last resort: what it leaves behind is refused and counted)
            self._refuse_rest(f"the outbox failed: {error}")
        finally:
            with self._lock:
                self._requests.end()
            check.stop()
            store.close()

    def _turn(self, store: OutboxStore) -> bool:
        with self._work:
            self._wait_for_work(store)
            store.lose(self._waiting.take_losses())
            rows = self._waiting.take()
            done, self._done = self._done, []
            marking, self._marking = self._marking, False
            requests = self._requests.take()
        if marking:  # before the commit: rows that are just coming are no backlog
            store.mark_backlog()
        if rows or done or store.owes:
            store.commit(rows, done)
        is_told = self._tell_losses(store)
        self._publish(store)
        if (rows or is_told) and self._on_stored is not None:
            self._on_stored()
        for request in requests:
            request(store)
        if requests:
            self._publish(store)
        with self._lock:
            return not self._waiting.closed or bool(self._waiting or self._done or self._requests)

    def _tell_losses(self, store: OutboxStore) -> bool:
        reports, losses = self._reports, store.losses()
        if reports is None or reports.wait_s(losses) != 0.0:
            return False
        return reports.tell(losses, self.next_seq(), store.store_always)

    def _wait_for_work(self, store: OutboxStore) -> None:
        # Time-outs matter to deletions that a full disk postponed, and to reports.
        waits_s = [1.0] if store.owes else []
        if self._reports is not None and (wait_s := self._reports.wait_s(store.losses())) is not None:
            waits_s.append(wait_s)
        self._work.wait_for(self._has_work, timeout=min(waits_s, default=None))
        if self._waiting and not self._urgent():
            self._work.wait_for(self._urgent, timeout=self._limits.group_s)

    def _has_work(self) -> bool:
        return bool(
            self._waiting
            or self._done
            or self._requests
            or self._marking
            or self._waiting.closed
            or self._waiting.losses()
        )

    def _urgent(self) -> bool:
        return bool(self._requests) or self._waiting.closed or len(self._waiting) >= self._limits.group_rows

    def _publish(self, store: OutboxStore) -> None:
        counts, losses = store.counts(), store.losses()
        with self._lock:
            self._counts, self._losses = counts, losses
            self._waiting.committed()

    def _refuse_rest(self, reason: str) -> None:
        with self._lock:
            self._waiting.refuse_rest(self._clock())
            self._counts = SyncStats(last_error=reason) + self._counts
