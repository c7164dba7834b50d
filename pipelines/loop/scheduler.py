"""The sources of a pipeline: who gives the next frame."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from edgecv.errors import ConfigError
from edgecv.pipelines.loop.handover import SlotClosed
from edgecv.pipelines.loop.source_reader import POLL_S, SourceReader
from edgecv.pipelines.loop.work import Work


class Changes(threading.Condition):
    """A condition that counts how often it was notified: who looks without holding it sees whether anything came meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def notify_all(self) -> None:
        """Wake everyone who waits."""
        self.count += 1
        super().notify_all()


class SourceScheduler:
    """Takes frames from many readers in turn: one that is always ready cannot keep the others waiting.

    Where every source says which place its frames have among all (a recording of several), they are taken in that order
    instead. Readers may be added and removed from any thread, and all notify ``changed``; frames are taken by the loop
    alone.
    """

    def __init__(self) -> None:
        self.changed = Changes()
        self._readers: dict[str, SourceReader] = {}
        self._turn: list[str] = []  # the next one to be asked stands first
        self._reserved: set[str] = set()  # being added, or removed and not yet forgotten
        self._started = self._closed = False

    def __len__(self) -> int:
        return len(self._readers)

    @property
    def readers(self) -> tuple[SourceReader, ...]:
        """All that were added and not removed, ended ones too."""
        with self.changed:
            return tuple(self._readers.values())

    def reserve(self, name: str, wanted: str) -> str:
        """A name for a source that will be added: ``name``, or else ``wanted``, with ``#2`` and so on when it is taken.

        Raises ``ConfigError`` when ``name`` is taken.
        """
        with self.changed:
            chosen, number = name or wanted, 2
            while chosen in self._readers or chosen in self._reserved:
                if name:
                    state = "already" if name in self._readers else "that is still being removed"
                    raise ConfigError(f"There is a source '{name}' {state}.", "Give each a name of its own.")
                chosen, number = f"{wanted}#{number}", number + 1
            self._reserved.add(chosen)
            return chosen

    def free(self, name: str) -> None:
        """The name of a removed source may be used again."""
        with self.changed:
            self._reserved.discard(name)

    def add(self, reader: SourceReader) -> None:
        """One more, under the name that was reserved for it; it starts at once when the others run.

        Raises ``ConfigError`` when the pipeline has ended meanwhile.
        """
        with self.changed:
            self._reserved.discard(reader.name)
            if self._closed:
                raise ConfigError("This pipeline has ended.", "Make a new one for every run.")
            self._readers[reader.name] = reader
            self._turn.append(reader.name)
            if self._started:
                reader.start()
            self.changed.notify_all()

    def remove(self, name: str) -> SourceReader:
        """Let one go; the caller closes it, and says ``free`` when nothing of it is left.

        Raises ``ConfigError`` when there is none of that name.
        """
        with self.changed:
            if name not in self._readers:
                raise ConfigError(f"There is no source '{name}'.", f"Known: {', '.join(self._readers) or 'none'}.")
            self._turn.remove(name)
            self._reserved.add(name)
            self.changed.notify_all()
            return self._readers.pop(name)

    def start(self) -> None:
        """Start to read from every source."""
        with self.changed:
            self._started = True
            for reader in self._readers.values():
                reader.start()

    def take(self, timeout_s: float) -> tuple[SourceReader, Work] | None:
        """The next frame: in their order, or of the source that has waited longest; ``None`` when none came until the
        deadline.

        Raises ``SlotClosed`` when all sources ended, and everything was taken.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            with self.changed:
                seen, readers = self.changed.count, [self._readers[name] for name in self._turn]
            try:
                # Not under the lock: a source copies an image here, and an app may be told that one failed.
                taken = _poll(readers)
            except SlotClosed:
                with self.changed:
                    if self.changed.count == seen:  # no source was added meanwhile
                        raise
                continue
            with self.changed:
                if taken is not None:
                    self._put_last(taken[0].name)
                    return taken
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    return None
                if self.changed.count == seen:
                    self.changed.wait(min(left_s, POLL_S))

    def begin_close(self) -> None:
        """Let nothing more in, and stop all sources."""
        with self.changed:
            self._closed = True
        for reader in self.readers:
            reader.begin_close()

    def join(self, timeout_s: float) -> list[SourceReader]:
        """Wait for all sources to be released; those that hang in a read."""
        deadline_s = time.monotonic() + timeout_s
        return [reader for reader in self.readers if not reader.join(deadline_s)]

    def _put_last(self, name: str) -> None:
        if name in self._turn:
            self._turn.remove(name)
            self._turn.append(name)


def _poll(readers: Sequence[SourceReader]) -> tuple[SourceReader, Work] | None:
    if all(reader.is_placed for reader in readers):
        return _poll_in_order(readers)
    ended = 0
    for reader in readers:
        try:
            work = reader.poll()
        except SlotClosed:
            ended += 1
            continue
        if work is not None:
            return reader, work
    if ended == len(readers):
        raise SlotClosed
    return None


def _poll_in_order(readers: Sequence[SourceReader]) -> tuple[SourceReader, Work] | None:
    """The first frame of all, which is only known when every source that has not ended holds one."""
    places: dict[int, SourceReader] = {}
    for reader in readers:
        try:
            place = reader.next_place()
        except SlotClosed:
            continue
        if place is None:
            return None
        places[place] = reader
    if not places:
        raise SlotClosed
    first = places[min(places)]
    work = first.poll()
    return None if work is None else (first, work)
