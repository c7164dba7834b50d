"""Makes pictures of frames for the events in them, off the frame path."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from edgecv._internal.extras import require
from edgecv.cloud_sync.blobs.messages import MAX_BLOB_BYTES, Snapshot
from edgecv.cloud_sync.blobs.options import SnapshotOptions
from edgecv.cloud_sync.notices import Notice
from edgecv.cloud_sync.stats import SyncStats
from edgecv.events import Event
from edgecv.results import Image, Result

_log = logging.getLogger(__name__)

_MOST_JOBS = 4  # frames held in memory; further events go without a picture
_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    result: Result
    events: Sequence[Event]


class SnapshotTaker:
    """Gives events the name of their picture and passes them on; one thread encodes.

    An event waits for the encoder, some milliseconds, and for nothing else: neither for the disk nor for the network. When more
    frames wait than the encoder can hold, or a picture cannot be made, the event goes without one.

    ``put`` takes an event and the result it belongs to, ``keep`` the name and the bytes of a picture; it says whether it has room.
    """

    def __init__(
        self,
        options: SnapshotOptions,
        *,
        put: Callable[[Event, Result], None],
        keep: Callable[[str, bytes], bool],
    ) -> None:
        self._cv2 = require("cv2", "vision")
        self._options = options
        self._put = put
        self._keep = keep
        self._paces: dict[str, deque[float]] = {}
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._working = 0
        self._closing = False
        self._failed = Notice(_log)
        self._stats = SyncStats()
        self._thread = threading.Thread(target=self._run, name="edgecv-snapshot", daemon=True)
        self._thread.start()

    def take(self, result: Result) -> tuple[Event, ...]:
        """Have a picture made for the events of a result that are to have one; gives those that go without, at once."""
        chosen = tuple(event for event in result.events if self._is_chosen(event))
        if not chosen or (self._is_due(result.frame.source_id) and self._enqueue(_Job(result=result, events=chosen))):
            return tuple(event for event in result.events if event not in chosen)
        self._count(SyncStats(snapshots_skipped=len(chosen)))
        return result.events

    def stats(self) -> SyncStats:
        """The counts of the taker; events that wait for their picture are ``queued``."""
        with self._changed:
            return self._stats + SyncStats(queued=self._working + sum(len(job.events) for job in self._jobs))

    def close(self, timeout_s: float) -> bool:
        """Make what waits and stop; ``False`` when that took too long."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _is_chosen(self, event: Event) -> bool:
        return any(fnmatchcase(event.kind, pattern) for pattern in self._options.events)

    def _is_due(self, source_id: str) -> bool:
        now_s = time.monotonic()
        taken_s = self._paces.setdefault(source_id, deque())
        while taken_s and taken_s[0] <= now_s - _MINUTE_S:
            taken_s.popleft()
        if len(taken_s) >= self._options.max_per_minute:
            return False
        taken_s.append(now_s)
        return True

    def _enqueue(self, job: _Job) -> bool:
        with self._changed:
            if self._closing or len(self._jobs) >= _MOST_JOBS:
                return False
            self._jobs.append(job)
            self._changed.notify_all()
        return True

    # What follows runs on the thread of the taker.

    def _run(self) -> None:
        while (job := self._next()) is not None:
            snapshot = self._picture_of(job.result)
            if snapshot is None:
                self._count(SyncStats(snapshots_skipped=len(job.events)))
            for event in job.events:
                self._put(event if snapshot is None else _with(event, snapshot), job.result)
            with self._changed:
                self._working = 0

    def _next(self) -> _Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closing)
            if not self._jobs:
                return None
            job = self._jobs.popleft()
            self._working = len(job.events)
            return job

    def _picture_of(self, result: Result) -> Snapshot | None:
        try:
            data = self._encoded(result.frame.image)
        except Exception as error:  # noqa: BLE001 (whatever OpenCV says: the event goes on without its picture)
            self._failed(f"A picture for an event could not be made: {type(error).__name__}: {error}")
            return None
        sha256 = hashlib.sha256(data).hexdigest()
        if not 0 < len(data) <= MAX_BLOB_BYTES or not self._keep(sha256, data):
            return None
        self._count(SyncStats(snapshots=1))
        return Snapshot(sha256=sha256, bytes=len(data))

    def _encoded(self, image: Image) -> bytes:
        height, width = image.shape[:2]
        scale = self._options.max_side / max(height, width)
        if scale < 1:
            size_wh = (max(round(width * scale), 1), max(round(height * scale), 1))
            image = self._cv2.resize(image, size_wh, interpolation=self._cv2.INTER_AREA)
        done: Any = self._cv2.imencode(".jpg", image, [self._cv2.IMWRITE_JPEG_QUALITY, self._options.quality])[1]
        return bytes(done.tobytes())

    def _count(self, more: SyncStats) -> None:
        with self._changed:
            self._stats += more


def _with(event: Event, snapshot: Snapshot) -> Event:
    return replace(event, data={**event.data, "snapshot": msgspec.to_builtins(snapshot)})
