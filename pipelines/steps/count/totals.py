"""Counts by name that survive a restart."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.pipelines.steps.count.state_file import (
    DAMAGES,
    State,
    abandoned,
    check_counter,
    lock_state,
    read_state,
    utc_now,
    write_state,
)
from edgecv.results import Frame

_WRITE_EVERY_NS = 1_000_000_000
_MOST_ORPHANS = 10  # that are said of one file

log = logging.getLogger("edgecv.pipelines")

_alive: weakref.WeakSet[CounterFile] = weakref.WeakSet()  # those of this program, open or not


class CounterFile:
    """The counts of one counter, of all its sources, in one JSON file; replaced whole, so that a kill leaves it readable.

    It is not flushed to the disk at each write, lest a slow card holds up the frames: a power cut may cost the counts of
    the last seconds, a killed process costs none that were written. ``PATH.lock`` beside it keeps other counters and
    programs out, and a file of another counter is refused.

    Raises ``ConfigError``: another counter or program uses the file, it holds the counts of another one, or its folder
    cannot be written.
    """

    def __init__(self, path: str | Path, counter: str, rule: str = "") -> None:
        self._path, self._counter, self._rule = Path(path), counter, rule
        self._sources: dict[str, dict[str, int]] = {}
        self._written: dict[str, str] = {}
        self._users: Counter[str] = Counter()  # a counter that is replaced is there twice for a moment
        self._lock_file: BinaryIO | None = None
        self._changing = threading.Lock()
        self._lock()  # to say now, not at the first frame, that it cannot be had
        self._unlock()
        _alive.add(self)
        with suppress(*DAMAGES):
            check_counter(self._path, read_state(self._path), counter)

    def serves(self, path: str | Path, counter: str) -> bool:
        """Whether it is the file of that counter under that name."""
        return (self._path, self._counter) == (Path(path), counter)

    def orphans(self, sources: Collection[str]) -> Iterator[Event]:
        """What of earlier totals goes on nowhere, when these ``sources`` count; each is said in the log and as an event.

        That are totals of other sources in the file, and, where there is no file yet, those of other counters beside it.
        """
        try:
            state = read_state(self._path)
        except DAMAGES:
            own = {file._path.resolve() for file in tuple(_alive)}
            beside = abandoned(self._path)
            found = (self._other_counter(place, other) for place, other in beside if place.resolve() not in own)
        else:
            found = (self._other_source(state, name) for name in state.sources if name not in sources)
        yield from islice(found, _MOST_ORPHANS)

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
            self._sources[source_id], self._written[source_id] = dict(counts), utc_now()
            state = State(counter=self._counter, rule=self._rule, sources=self._sources, written=self._written)
            try:
                write_state(self._path, state)
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
        self._lock_file = lock_state(self._path)

    def _unlock(self) -> None:
        if self._lock_file is not None:
            self._lock_file.close()
        self._lock_file = None

    def _read(self) -> str:
        self._sources, self._written = {}, {}
        try:
            state = read_state(self._path)
        except FileNotFoundError:
            return ""
        except DAMAGES as error:
            return self._quarantine(str(error))
        try:
            check_counter(self._path, state, self._counter)
        except ConfigError:
            self._unlock()
            raise
        self._sources, self._written = state.sources, state.written
        return ""

    def _other_source(self, state: State, name: str) -> Event:
        totals, written = state.sources[name], state.written.get(name, "")
        return self._orphan(
            f"{self._path} has totals of the source '{name}' ({state.words(name)}), which '{self._counter}' does not count now.",
            f"Was it renamed? Stop, and take them over: edgecv totals {self._path} --source '{name}=NEW'. "
            f"Or drop them: --forget '{name}'",
            {"file": self._path.name, "source": name, "totals": totals, "written": written},
        )

    def _other_counter(self, place: Path, other: State) -> Event:
        written = max(other.written.values(), default="")
        return self._orphan(
            f"'{self._counter}' begins at 0 in {self._path}, and {place} has the totals of '{other.counter}', which is not "
            "in use.",
            f"Was it renamed? Stop, and take them over: edgecv totals {place} --counter {self._counter}; then rename the "
            f"file to {self._path.name}.",
            {"file": place.name, "other": other.counter, "totals": other.sources, "written": written},
        )

    def _orphan(self, message: str, hint: str, data: Mapping[str, object]) -> Event:
        log.warning("%s %s", message, hint)
        said = {"counter": self._counter, **data, "message": f"{message} {hint}"}
        return Event(kind="counter.orphaned", time_ns=time.time_ns(), data=said)

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

    def add(self, *names: str) -> tuple[int, ...]:
        """One more of each; their totals."""
        for name in names:
            self._counts[name] = self._counts.get(name, 0) + 1
        self._is_dirty = True
        return tuple(self._counts[name] for name in names)

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
