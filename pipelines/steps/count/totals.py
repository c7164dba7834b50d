"""Counts by name that survive a restart."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec

from edgecv._internal.atomic import write_private
from edgecv._internal.bounded import read_bounded
from edgecv._internal.file_locks import lock_file
from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.results import Frame

_MOST_BYTES = 16 << 20
_WRITE_EVERY_NS = 1_000_000_000
_Count = Annotated[int, msgspec.Meta(ge=0)]


class _State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    counter: str
    sources: dict[str, dict[str, _Count]]


class CounterFile:
    """The counts of one counter, of all its sources, in one JSON file; replaced whole, so that a kill leaves it readable.

    It is not flushed to the disk at each write, lest a slow card holds up the frames: a power cut may cost the counts of
    the last seconds, a killed process costs none that were written. ``PATH.lock`` beside it keeps other counters and
    programs out, and a file of another counter is refused.

    Raises ``ConfigError``: another counter or program uses the file, it holds the counts of another one, or its folder cannot be
    written.
    """

    def __init__(self, path: str | Path, counter: str) -> None:
        self._path, self._counter = Path(path), counter
        self._sources: dict[str, dict[str, int]] = {}
        self._users: Counter[str] = Counter()  # a counter that is replaced is there twice for a moment
        self._lock_file: BinaryIO | None = None
        self._changing = threading.Lock()
        self._lock()  # to say now, not at the first frame, that it cannot be had
        try:
            self._check_owner()
        finally:
            self._unlock()

    def serves(self, path: str | Path, counter: str) -> bool:
        """Whether it is the file of that counter under that name."""
        return (self._path, self._counter) == (Path(path), counter)

    def join(self, source_id: str) -> tuple[dict[str, int], str]:
        """The counts of a source so far, and what was wrong with the file, if it was.

        Raises ``ConfigError`` as the constructor, and when the file belongs to another counter.
        """
        with self._changing:
            problem = ""
            if not self._users:
                self._lock()
                problem = self._read()
            self._users[source_id] += 1
            return dict(self._sources.get(source_id, {})), problem

    def write(self, source_id: str, counts: Mapping[str, int]) -> str:
        """Put the counts of a source into the file; gives what went wrong, or nothing.

        Raises ``ConfigError`` when the source had left, and somebody else has taken the file since.
        """
        with self._changing:
            if not self._users:  # a step that was closed counts on in another pipeline
                self._lock()
            self._users[source_id] = max(1, self._users[source_id])
            self._sources[source_id] = dict(counts)
            state = _State(counter=self._counter, sources=self._sources)
            try:
                write_private(self._path, msgspec.json.format(msgspec.json.encode(state)))
            except OSError as error:
                return f"{self._path} cannot be written: {error.strerror}."
            return ""

    def leave(self, source_id: str) -> None:
        """The source is done; the last one frees the file."""
        with self._changing:
            self._users -= Counter((source_id,))
            if not self._users:
                self._unlock()

    def _lock(self) -> None:
        place = self._path.with_name(f"{self._path.name}.lock")
        try:
            self._lock_file = lock_file(place)
        except OSError as error:
            raise ConfigError(
                f"{place} cannot be written: {error.strerror}.", "Does the folder exist, and may you write there?"
            ) from error
        if self._lock_file is None:
            raise ConfigError(
                f"{self._path} is in use by another counter or program.", "Give each counter a state file of its own."
            )

    def _check_owner(self) -> None:
        try:
            state = msgspec.json.decode(read_bounded(self._path, _MOST_BYTES), type=_State)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OSError):
            return  # it is missing, or will be put aside by whoever joins first
        self._refuse_other(state)

    def _refuse_other(self, state: _State) -> None:
        if state.counter != self._counter:
            raise ConfigError(
                f"{self._path} holds the counts of '{state.counter}', not of '{self._counter}'.",
                "Give each counter a state file of its own.",
            )

    def _unlock(self) -> None:
        if self._lock_file is not None:
            self._lock_file.close()
        self._lock_file = None

    def _read(self) -> str:
        self._sources = {}
        try:
            state = msgspec.json.decode(read_bounded(self._path, _MOST_BYTES), type=_State)
        except FileNotFoundError:
            return ""
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OSError) as error:
            return self._quarantine(str(error))
        try:
            self._refuse_other(state)
        except ConfigError:
            self._unlock()
            raise
        self._sources = state.sources
        return ""

    def _quarantine(self, reason: str) -> str:
        """Put a damaged file aside, under the first free number, for somebody to look at."""
        aside = next(
            place
            for number in range(1, 10_000)
            if not (place := self._path.with_name(f"{self._path.name}.damaged-{number}")).exists()
        )
        try:
            self._path.replace(aside)
        except OSError as error:
            return f"{self._path} is damaged ({reason}) and cannot be renamed: {error.strerror}."
        return f"{self._path} was damaged ({reason}); it is kept as {aside.name}, and counting starts from 0."


class Totals:
    """The counts of one counter at one source; they start from 0 without a file.

    Those in ``names`` exist before anything is counted.
    """

    def __init__(self, counter: str, source_id: str, file: CounterFile | None, names: tuple[str, ...]) -> None:
        self._counter, self._source_id, self._file, self._names = counter, source_id, file, names
        kept, damage = file.join(source_id) if file is not None else ({}, "")
        self._told = [("counter.damaged", damage)] if damage else []
        self._counts = dict.fromkeys(names, 0) | kept
        self._is_dirty = self._failed = False
        self._written_ns: int | None = None

    def adopt(self, before: Totals) -> None:
        """Go on with the counts of another one of the same name and source; a name that became another keeps its count.

        With another file they go on where that has none.
        """
        if self._file is not before._file and any(self._counts.values()):
            return
        renamed = {
            old: new
            for old, new in zip(before._names, self._names, strict=False)
            if old not in self._names and new not in before._names
        }
        kept = {".".join((renamed.get(first, first), *rest)): count for first, rest, count in _parts(before._counts)}
        self._counts = dict.fromkeys(self._names, 0) | kept
        self._is_dirty = before._is_dirty or bool(renamed) or self._file is not before._file
        self._written_ns = before._written_ns

    def add(self, *names: str) -> int:
        """One more of each; the total of the first."""
        for name in names:
            self._counts[name] = self._counts.get(name, 0) + 1
        self._is_dirty = True
        return self._counts[names[0]]

    def save(self, frame: Frame) -> tuple[Event, ...]:
        """Write at most once a second of frame time; what went wrong since the last call, as events."""
        due = self._written_ns is None or frame.monotonic_ns - self._written_ns >= _WRITE_EVERY_NS
        if self._is_dirty and due:
            self._written_ns = frame.monotonic_ns
            self._write()
        told, self._told = self._told, []
        return tuple(self._event(kind, message, frame) for kind, message in told)

    def counts(self) -> dict[str, int]:
        """Every count by name, such as ``COUNTER.NAME``."""
        return {f"{self._counter}.{name}": count for name, count in tuple(self._counts.items())}

    def close(self) -> None:
        """Write what is not yet written, and leave the file."""
        if self._file is None:
            return
        if self._is_dirty:
            self._write()
        self._file.leave(self._source_id)

    def _write(self) -> None:
        if self._file is None:
            return
        problem = self._file.write(self._source_id, self._counts)
        if problem and not self._failed:  # said once, not every second
            self._told.append(("counter.unsaved", problem))
        self._failed = self._is_dirty = bool(problem)

    def _event(self, kind: str, message: str, frame: Frame) -> Event:
        data = {"counter": self._counter, "message": message}
        return Event(kind=kind, time_ns=frame.captured_ns, source_id=self._source_id, data=data)


def _parts(counts: Mapping[str, int]) -> Iterator[tuple[str, list[str], int]]:
    """Each count with the first part of its name, such as ``in`` of ``in.person``, and the rest."""
    for name, count in counts.items():
        first, *rest = name.split(".")
        yield first, rest, count
