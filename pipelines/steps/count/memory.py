"""What a step remembers of each tracked object, bounded in time and number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

_Known = TypeVar("_Known")

MOST_OBJECTS = 4096  # of one source; far more than any scene holds within the time that ids are remembered


class Memory(Generic[_Known]):
    """What is known of each id, until it was not seen for ``forget_ns`` nanoseconds, or ``most`` others were seen since."""

    def __init__(self, forget_ns: int, most: int = MOST_OBJECTS) -> None:
        self._forget_ns, self._most = forget_ns, most
        self._known: dict[int, tuple[int, _Known]] = {}  # in the order in which they were last seen

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[_Known]:
        return (known for _, known in self._known.values())

    def items(self) -> Iterator[tuple[int, int, _Known]]:
        """Each id with when it was last seen, the longest ago first, and what is known of it."""
        return ((tracker_id, seen_ns, known) for tracker_id, (seen_ns, known) in self._known.items())

    def get(self, tracker_id: int) -> _Known | None:
        """What is known of an id."""
        seen = self._known.get(tracker_id)
        return None if seen is None else seen[1]

    def see(self, tracker_id: int, known: _Known, now_ns: int) -> None:
        """Remember it as seen now."""
        self._known.pop(tracker_id, None)
        self._known[tracker_id] = (now_ns, known)

    def forget(self, now_ns: int) -> list[tuple[int, _Known]]:
        """Drop, and return, what is too old or too many."""
        gone: list[tuple[int, _Known]] = []
        while self._known:
            tracker_id, (seen_ns, known) = next(iter(self._known.items()))
            if now_ns - seen_ns <= self._forget_ns and len(self._known) <= self._most:
                break
            del self._known[tracker_id]
            gone.append((tracker_id, known))
        return gone
