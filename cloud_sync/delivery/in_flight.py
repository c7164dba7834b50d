"""What is on its way: batches that were published and not yet acknowledged. Lives in memory only."""

from __future__ import annotations

import hmac
import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgecv.cloud_sync.acks import AckRange, Key
from edgecv.cloud_sync.outbox.rows import Row

_NONCE_BYTES = 16  # 128 bits nobody can guess
_ENDED_MARKS = 2048  # a nonce and a digest of each
_HELD_S = 0.2


@dataclass(slots=True, kw_only=True, eq=False)
class Flight:
    """One batch on its way."""

    rows: dict[Key, Row]  # what is not acknowledged yet
    priority: int  # the priority all of them share
    # what an acknowledgement has to return; the same for every repetition, so that a late answer counts
    nonce: str = field(default_factory=lambda: secrets.token_hex(_NONCE_BYTES), repr=False)
    order: tuple[Key, ...] = ()  # its events as they stand in the message with this nonce
    digest: str = field(default="", repr=False)  # SHA-256 of the last publishing
    token: int = 0  # of the last publishing; 0 when that came to nothing
    attempts: int = 0  # how often it was published
    first_s: float = 0.0  # monotonic time of the first publishing
    sent_bytes: int = 0  # size of the last publishing
    sent_s: float = 0.0  # monotonic time of the last publishing
    due_s: float = 0.0  # monotonic time of the next one
    taken: bool = False  # whether the broker said that it took the last publishing
    suspect: bool = False  # whether a connection ended while it was unanswered: it may be the cause
    ends: int = 0  # how many connections ended while it alone was unanswered

    @property
    def size_bytes(self) -> int:
        """Of its events, before compression."""
        return sum(len(row.body) for row in self.rows.values())


@dataclass(slots=True, kw_only=True)
class InFlightBatches:
    """All batches on their way, found by token and by nonce."""

    _flights: list[Flight] = field(default_factory=list)
    _by_token: dict[int, Flight] = field(default_factory=dict)
    _ended: deque[str] = field(default_factory=lambda: deque(maxlen=_ENDED_MARKS), repr=False)

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def unanswered_bytes(self) -> int:
        """Of the messages of which the broker said nothing since they were published."""
        return sum(flight.sent_bytes for flight in self.unanswered())

    def add(self, rows: Sequence[Row], due_s: float) -> None:
        """Start a flight; it is due at once."""
        self._flights.append(Flight(rows={row.key: row for row in rows}, priority=rows[0].priority, due_s=due_s))

    def due(self, now_s: float) -> list[Flight]:
        """Flights to publish now, the most urgent first."""
        return sorted((flight for flight in self._flights if flight.due_s <= now_s), key=lambda flight: flight.priority)

    def next_due_s(self) -> float | None:
        """When the next flight is due."""
        return min((flight.due_s for flight in self._flights), default=None)

    def pack(self, flight: Flight) -> None:
        """Fix the order of the events in the next message; with fewer events than before it is another message."""
        order = tuple(flight.rows)
        if order == flight.order:
            return
        if flight.order:
            self._ended.append(flight.nonce)
            flight.nonce = secrets.token_hex(_NONCE_BYTES)
        flight.order = order

    def published(self, flight: Flight, token: int, *, sent_s: float, due_s: float) -> None:
        """Remember that a flight went out as ``token`` and when it goes out again if nothing comes back."""
        self._by_token.pop(flight.token, None)
        self._by_token[token] = flight
        flight.token, flight.sent_s, flight.due_s = token, sent_s, due_s
        flight.first_s = flight.first_s if flight.attempts else sent_s
        flight.attempts += 1
        flight.taken = False

    def taken(self, flight: Flight, due_s: float) -> None:
        """The broker took the last publishing: from now on it is ingest that may not have it."""
        flight.taken, flight.suspect, flight.ends = True, False, 0
        flight.due_s = due_s

    def of_token(self, token: int) -> Flight | None:
        """The flight that was last published as ``token``."""
        return self._by_token.get(token)

    def failed(self, flight: Flight, due_s: float) -> None:
        """The last publishing came to nothing; the flight stays until it is due."""
        self._by_token.pop(flight.token, None)
        flight.token, flight.due_s = 0, due_s

    def all_due(self, now_s: float) -> None:
        """Publish everything again: the connection is another one."""
        self._by_token.clear()
        for flight in self._flights:
            flight.token, flight.due_s = 0, now_s

    def hurry(self, now_s: float, overtaken_s: float) -> None:
        """Somebody listens: publish now what came to nothing, or went out before ``overtaken_s`` and was overtaken."""
        for flight in self._flights:
            if flight.attempts and (not flight.token or flight.sent_s < overtaken_s):
                flight.due_s = min(flight.due_s, now_s)

    def unanswered(self) -> list[Flight]:
        """Flights of which the broker said nothing since they were published."""
        return [flight for flight in self._flights if flight.token and not flight.taken]

    def in_vain(self, attempts: int) -> list[Flight]:
        """Flights that the broker took so often or oftener, and that nobody acknowledged."""
        return [flight for flight in self._flights if flight.taken and flight.attempts >= attempts]

    def sendable(self, now_s: float) -> list[Flight]:
        """What of the due flights may go out now: a suspect only when nothing else is unanswered, and then nothing else.

        So a batch on which the broker hangs up is found, and holds up no other.
        """
        due = self.due(now_s)
        unanswered = self.unanswered()
        innocent = [flight for flight in due if not flight.suspect]
        if any(flight.suspect for flight in unanswered):
            chosen: list[Flight] = []
        elif innocent or unanswered:
            chosen = innocent
        else:
            chosen = sorted(due, key=lambda flight: (flight.priority, flight.size_bytes))[:1]
        for flight in due:
            if flight not in chosen:
                flight.due_s = now_s + _HELD_S
        return chosen

    def holder(self, nonce: str) -> Flight | None:
        """The flight whose nonce this is; how long that takes tells nothing of how much of it was right."""
        found = None
        for flight in self._flights:
            if hmac.compare_digest(flight.nonce.encode(), nonce.encode()):
                found = flight
        return found

    def of_digest(self, digest: str) -> Flight | None:
        """The flight whose last publishing this is the SHA-256 of."""
        return next((flight for flight in self._flights if flight.digest and flight.digest == digest), None)

    def has_ended(self, mark: str) -> bool:
        """Whether a flight of this nonce or digest ended lately: a second answer to a repeated batch."""
        return mark in self._ended

    def land_of(self, flight: Flight, ranges: Sequence[AckRange]) -> list[Key]:
        """Take acknowledged events out of one flight; returns those that really were in it."""
        return self._take_out(flight, [key for key in flight.rows if _within(key, ranges)])

    def take_out(self, flight: Flight, key: Key) -> bool:
        """Take one event out; ``False`` when it is not there any more."""
        return key in flight.rows and bool(self._take_out(flight, [key]))

    def land(self, flight: Flight) -> list[Key]:
        """Take a whole flight out; returns its events."""
        return self._take_out(flight, list(flight.rows))

    def clear(self) -> None:
        """Forget every flight; its events are taken from the outbox again."""
        for flight in list(self._flights):
            self.land(flight)

    def split(self, flight: Flight, now_s: float) -> None:
        """Replace a flight of several events by two halves."""
        rows = list(flight.rows.values())
        self._end(flight)
        for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
            self.add(half, now_s)
            self._flights[-1].suspect, self._flights[-1].ends = flight.suspect, min(flight.ends, 1)

    def _take_out(self, flight: Flight, keys: list[Key]) -> list[Key]:
        for key in keys:
            del flight.rows[key]
        if not flight.rows:
            self._end(flight)
        return keys

    def _end(self, flight: Flight) -> None:
        self._flights.remove(flight)
        self._by_token.pop(flight.token, None)
        self._ended.extend((flight.nonce, flight.digest))


def _within(key: Key, ranges: Sequence[AckRange]) -> bool:
    boot, seq = key
    return any(found == boot and lo <= seq <= hi for found, lo, hi in ranges)
