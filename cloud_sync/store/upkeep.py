"""Keeps a store in order while ingest runs: merges by the clock, keeps what is to be kept, and does what was asked for."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

from edgecv.cloud_sync.ingest.database import EventDatabase
from edgecv.cloud_sync.notices import Notice
from edgecv.cloud_sync.store import forget, requests
from edgecv.cloud_sync.store.audit import write_audit
from edgecv.cloud_sync.store.retention import retain
from edgecv.cloud_sync.store.rewrite import Setbacks
from edgecv.cloud_sync.store.writer import MergeReport, StoreWriter
from edgecv.errors import ConfigError, EdgeCVError, SyncError

_log = logging.getLogger(__name__)

_POLL_S = 1.0
_AFTER_THE_HOUR_S = 120  # so that events on their way when an hour ends are mostly merged with it
_MOST_DAYS = 2  # of retention at once; upkeep comes every hour or every day
_HOURLY_COMPACT_AT = 8  # parts of an hour; at night two are enough
_AGAIN_S = 60.0
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpkeepOptions:
    """When to merge, and how much to keep.

    Raises:
        ConfigError: ``merge_at`` is neither ``hourly`` nor a time such as ``03:00``, or ``retain_days`` is below 1.
    """

    merge_at: str = ""  # `hourly`, or once a day at a time in UTC; empty: never
    retain_days: int | None = None  # `None`: for ever

    def __post_init__(self) -> None:
        if self.merge_at not in ("", "hourly") and not _TIME.fullmatch(self.merge_at):
            raise ConfigError(
                f"{self.merge_at!r} is no time to merge at.", "Use hourly, or a time in UTC such as 03:00."
            )
        if self.retain_days is not None and self.retain_days < 1:
            raise ConfigError("At least one day is kept.", "Use --retain-days 1 or more.")
        if self.retain_days is not None and not self.merge_at:
            raise ConfigError("What is too old is deleted after a merge.", "Say when: --merge-at hourly.")


class Upkeep:
    """Works in a thread of its own, on the database of the ingest that owns the folder."""

    def __init__(self, landing: EventDatabase, options: UpkeepOptions) -> None:
        self._landing = landing
        self._options = options
        self._writer: StoreWriter | None = None
        self._failed = Notice(_log)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgecv-store", daemon=True)

    def start(self) -> None:
        """Start the thread; call it once."""
        self._thread.start()

    def close(self) -> None:
        """End soon: what is half done is left as if it had not begun."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        due_s = time.time()  # what a killed process left, and what is due since
        while not self._closing.wait(_POLL_S):
            try:
                self._serve()
                if self._options.merge_at and time.time() >= due_s:
                    tidy(self._store(), self._options, self._closing)
                    due_s = next_due_s(self._options.merge_at, time.time())
            except Exception as error:  # noqa: BLE001 (whatever it is, ingest goes on and the log hears of it)
                reason = f"{error.message} {error.hint}" if isinstance(error, EdgeCVError) else repr(error)
                self._failed(f"The store is not in order, and is tried again: {reason}")
                self._writer = None  # read again what the disk says
                due_s = time.time() + _AGAIN_S

    def _store(self) -> StoreWriter:
        if self._writer is None:
            self._writer = StoreWriter(self._landing)
            try:
                forget.finish(self._writer)
            except SyncError as error:  # a damaged file; the rest of the store is to go on
                self._failed(f"Something could not be forgotten, and is tried again: {error.message} {error.hint}")
        return self._writer

    def _serve(self) -> None:
        for request in requests.waiting(self._landing.folder):
            requests.answer(self._landing.folder, request, partial(self._perform, request))

    def _perform(self, request: requests.Request) -> dict[str, object]:
        try:
            return perform(self._store(), request, self._closing)
        except BaseException:
            self._writer = None  # read again what the disk says
            raise


def tidy(
    writer: StoreWriter, options: UpkeepOptions, stop: threading.Event, *, night: bool | None = None
) -> MergeReport:
    """Merge what is over, finish what was to be forgotten, make few parts of many, and delete what is too old.

    Each is tried though another one failed: a damaged file, or a disk too full to merge, does not make what is too old stay.

    Raises:
        EdgeCVError: the disk refused, a file is damaged, or a package is missing.
    """
    is_night = options.merge_at != "hourly" or time.gmtime().tm_hour == 0 if night is None else night
    report, setbacks = MergeReport(), Setbacks()
    with setbacks.kept():
        report = writer.merge(stop)
    with setbacks.kept():
        forget.finish(writer)
    with setbacks.kept():
        report.compacted = writer.compact(stop, fewest=2 if is_night else _HOURLY_COMPACT_AT)
    if options.retain_days is not None and not stop.is_set():
        with setbacks.kept():
            _retain(writer, options.retain_days)
    with setbacks.kept():
        writer.drop_obsolete()
    if report.events:
        _log.info("%d events were merged into %d files", report.events, report.parts)
    setbacks.raise_first()
    return report


def _retain(writer: StoreWriter, days: int) -> None:
    done = retain(writer, days, most_days=_MOST_DAYS)
    if done.stored or done.landed:
        write_audit(writer.folder, "retain", {"from_hour": done.from_hour, "events": done.stored + done.landed})


def perform(writer: StoreWriter, request: requests.Request, stop: threading.Event) -> dict[str, object]:
    """Do what was asked for; gives what became of it.

    Raises:
        EdgeCVError: it could not be done.
    """
    if request.action == "forget" and request.tombstone is not None:
        tombstone = request.tombstone
        erased = forget.forget(writer, tombstone)
        result: dict[str, object] = {"landed": erased.landed, "stored": erased.stored, "rewritten": erased.rewritten}
        details = {
            "tenant": tombstone.tenant,
            "device": tombstone.device,
            "from_us": tombstone.from_us,
            "to_us": tombstone.to_us,
        }
        write_audit(writer.folder, "forget", {**details, **result})
        return result
    if request.action == "retain" and request.days is not None:
        kept = retain(writer, request.days, request.tenant)
        result = {"from_hour": kept.from_hour, "landed": kept.landed, "stored": kept.stored, "parts": kept.parts}
        write_audit(writer.folder, "retain", {"tenant": request.tenant, **result})
        return result
    report = writer.merge(stop, open_hours=request.open_hours)
    compacted = writer.compact(stop)
    writer.drop_obsolete()
    return {"events": report.events, "parts": report.parts, "compacted": compacted}


def next_due_s(merge_at: str, now_s: float) -> float:
    """When the next merge is due, in seconds since the epoch."""
    now = datetime.fromtimestamp(now_s, tz=timezone.utc)
    if merge_at == "hourly":
        hour = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        return hour.timestamp() + _AFTER_THE_HOUR_S
    hour_text, _, minute_text = merge_at.partition(":")
    due = now.replace(hour=int(hour_text), minute=int(minute_text), second=0, microsecond=0)
    return (due if due > now else due + timedelta(days=1)).timestamp()


def order(folder: Path, request: requests.Request, timeout_s: float) -> Mapping[str, object]:
    """Have a store merged, thinned or cleared: by the ingest that runs, or here where none does.

    Raises:
        EdgeCVError: it is no store, the ingest does not answer, or it could not be done.
    """

    def here() -> dict[str, object]:
        landing = EventDatabase(folder)
        try:
            writer = StoreWriter(landing)
            result = perform(writer, request, threading.Event())
            forget.finish(writer)
            return result
        finally:
            landing.close()

    return requests.fulfil(folder, request, here, timeout_s)
