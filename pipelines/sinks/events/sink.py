"""``events:FILE.db``: what happened, in a file that the page shows and SQL can ask."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO, ClassVar

import msgspec

from edgecv._internal.file_locks import lock_file, lock_owner
from edgecv.errors import ConfigError, EdgeCVError, SinkError
from edgecv.events import Event, EventMedia
from edgecv.pipelines.sinks.events.rows import row_of
from edgecv.pipelines.sinks.events.store import EventStore, Limits, media_of
from edgecv.pipelines.sinks.video.ring_order import Clocks
from edgecv.pipelines.uris import Uri, read_options
from edgecv.protocols import SinkType
from edgecv.results import Result

log = logging.getLogger("edgecv.pipelines")

_BATCH_S = 0.5  # what is written together
_MOST_WAITING = 8192  # events and names of files, while the disk takes nothing
_MOST_AT_ONCE = 2048
_LONGEST_PAUSE_S = 30.0  # between two tries, doubled from `_BATCH_S`
_FULL_S = 5.0  # for room while the disk takes what comes
_CLOSE_S = 10.0
_DAY_S = 24 * 3600.0


class EventsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the query of ``events:`` may say.

    Attributes:
        keep: Most events in the file; the oldest go.
        keep_days: Events that are older are deleted; 0 keeps them. A jump of the clock makes none older.
    """

    keep: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 100_000
    keep_days: Annotated[float, msgspec.Meta(ge=0, le=36_600)] = 30.0


class EventsSink(SinkType):
    """Stores every event once, by its key: those of steps and those of sources, with the files that show them.

    A thread writes, in one commit for what comes within half a second, which is then on the disk. While the disk takes nothing,
    the latest 8192 wait in memory, and it is tried again; the frames go on. Only the owner may read the file. One that is
    damaged is put aside, and the events go on in a new one.

    Attributes:
        lost: Events that were given up, because the disk took nothing.
    """

    Options: ClassVar[type[msgspec.Struct]] = EventsOptions

    def __init__(self, path: str | Path, *, options: EventsOptions | None = None, clocks: Clocks | None = None) -> None:
        """Open the file, and make it if it is missing; by ``clocks`` events grow old.

        Raises:
            ConfigError: it is of another kind or of a newer EdgeCV, or another program writes events there.
            SinkError: it cannot be written there.
        """
        options = options or EventsOptions()
        self.path = Path(path)
        self.lost = 0
        self._waiting: deque[Event | EventMedia] = deque()
        self._changed = threading.Condition()
        self._longest_s: dict[str, float] = {}
        self._wants_expiry = self._closed = False
        self._problem = self._reason = ""  # why nothing is taken now, and why at the last time
        self._said_loss = False
        self._lock = _own(self.path)
        try:
            limits = Limits(events=options.keep, seconds=options.keep_days * _DAY_S)
            self._store = EventStore(self.path, limits, clocks)
        except BaseException as error:
            self._lock.close()
            if isinstance(error, sqlite3.Error | OSError):
                raise SinkError(f"{self.path} cannot be opened: {_said(error)}.", _HINT) from error
            raise
        self._thread = threading.Thread(target=self._run, name="edgecv-events", daemon=True)
        self._thread.start()

    @classmethod
    def from_uri(cls, uri: Uri, *, fps: float = 0.0, overwrite: bool = False) -> EventsSink:  # noqa: ARG003 - the seam's
        """Open ``events:FILE.db``, which always goes on with an existing file; errors as in the constructor."""
        return cls(uri.path, options=read_options(uri, EventsOptions))

    def emit(self, result: Result) -> None:
        """Queue the events of a frame. Raises ``SinkError``: the sink is closed, or events begin to be lost."""
        self._put(result.events)

    def emit_event(self, event: Event) -> None:
        """Queue an event; errors as in ``emit``."""
        self._put((event,))

    def take_media(self, media: EventMedia) -> None:
        """Queue the name of a file, which its events get, whether they came already or not; from any thread, never waits."""
        with self._changed:
            if not self._closed:
                self._make_room(1)
                self._waiting.append(media)
                self._changed.notify_all()

    def retain(self, source_id: str, longest_s: float) -> None:
        """Delete events of this source that are older, whatever ``keep_days`` says."""
        self._longest_s[source_id] = longest_s

    def expire(self) -> None:
        """Let the thread delete what is too old."""
        with self._changed:
            self._wants_expiry = True
            self._changed.notify_all()

    def close(self) -> None:
        """Write what waits; a second call does nothing.

        Raises ``SinkError``: events were lost; it says how many, and why.
        """
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            raise SinkError(f"{self.path} did not take the last events within {_CLOSE_S:.0f} s.", _HINT)
        self._lock.close()
        if self.lost:
            raise SinkError(f"{self.path} did not get {self.lost} events: {self._reason}.", _HINT)

    def _put(self, events: Sequence[Event]) -> None:
        if self._closed:
            raise SinkError(f"{self.path} is closed.")
        if not events:
            return
        with self._changed:
            if self._is_full(len(events)) and not self._problem:  # a file is read faster than events are written
                self._changed.wait_for(lambda: bool(self._problem) or not self._is_full(len(events)), _FULL_S)
            loses = self._make_room(len(events))
            self._waiting.extend(events)
            self._changed.notify_all()
            is_new, self._said_loss = loses and not self._said_loss, loses
        if is_new:
            raise SinkError(f"{self.path} takes nothing, and events are lost: {self._reason}.", _HINT)

    def _is_full(self, coming: int) -> bool:
        return bool(self._waiting) and len(self._waiting) + coming > _MOST_WAITING

    def _make_room(self, coming: int) -> bool:
        """Give the oldest up; whether an event was among them."""
        lost = self.lost
        while self._is_full(coming):
            self.lost += isinstance(self._waiting.popleft(), Event)
        return self.lost > lost

    def _run(self) -> None:
        self._tried(self._store.check)
        batch: list[Event | EventMedia] = []
        pause_s = _BATCH_S
        while batch or self._comes_more():
            batch = self._after_pause(pause_s, batch)
            if self._wants_expiry:
                self._wants_expiry = False
                self._tried(partial(self._store.expire, dict(self._longest_s)))
            is_last_try = self._closed
            if not batch or self._tried(partial(self._write, tuple(batch))):
                batch, pause_s = [], _BATCH_S
            elif is_last_try:
                self.lost += sum(isinstance(one, Event) for one in (*batch, *self._waiting))
                break
            else:
                pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
        with suppress(sqlite3.Error):  # what is in the log comes into the file with the next run
            self._store.close()

    def _comes_more(self) -> bool:
        """Wait until there is something to do; ``False`` when nothing more comes."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._wants_expiry or self._closed)
            return bool(self._waiting) or not self._closed

    def _after_pause(self, pause_s: float, batch: list[Event | EventMedia]) -> list[Event | EventMedia]:
        """The batch that was not taken, or what has come after a pause that let more come."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or (not batch and len(self._waiting) >= _MOST_AT_ONCE), pause_s)
            batch = batch or [self._waiting.popleft() for _ in range(min(_MOST_AT_ONCE, len(self._waiting)))]
            self._changed.notify_all()
            return batch

    def _write(self, batch: Sequence[Event | EventMedia]) -> None:
        self._store.write([row_of(one) for one in batch if isinstance(one, Event)], media_of(batch))

    def _tried(self, action: Callable[[], object]) -> bool:
        """Whether it was done; what keeps it from that is said once."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is said, and the frames and this thread go on
            if not self._problem:
                log.warning("%s takes no events, the frames go on: %s. It is tried again.", self.path, _said(error))
            self._problem = self._reason = _said(error)
            return False
        if self._problem:
            log.warning("%s takes events again.", self.path)
        self._problem = ""
        return True


def _own(path: Path) -> BinaryIO:
    """The lock that keeps other programs from writing events there."""
    place = path.with_name(f"{path.name}.lock")
    try:
        lock = lock_file(place, sign=True)
    except OSError as error:
        raise SinkError(f"{path} cannot be written: {error.strerror}.", _HINT) from error
    if lock is None:
        raise ConfigError(
            f"{path} is in use by the running EdgeCV {lock_owner(place)}.", "Stop that one, or name another file."
        )
    return lock


def _said(error: BaseException) -> str:
    if isinstance(error, EdgeCVError):
        return error.message.rstrip(".")
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error).rstrip(".")


_HINT = "Does the folder exist, may you write there, and has the disk space?"
