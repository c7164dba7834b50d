"""What is on its way: batches that were published and not yet acknowledged. Lives in memory only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from edgecv.cloud_sync.acks import AckRange, Key
from edgecv.cloud_sync.outbox_db import Row


@dataclass(slots=True, kw_only=True, eq=False)
class Flight:
    """One batch on its way.

    Attributes:
        rows: What is not acknowledged yet.
        lane: The lane all of them share.
        token: Of the last publishing; 0 when that came to nothing.
        attempts: How often it was published.
        sent_s: Monotonic time of the last publishing.
        due_s: Monotonic time of the next one.
    """

    rows: dict[Key, Row]
    lane: int
    token: int = 0
    attempts: int = 0
    sent_s: float = 0.0
    due_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class Flights:
    """All batches on their way, found by event and by token."""

    _flights: list[Flight] = field(default_factory=list)
    _by_key: dict[Key, Flight] = field(default_factory=dict)
    _by_token: dict[int, Flight] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._flights)

    def add(self, rows: Sequence[Row], due_s: float) -> None:
        """Start a flight; it is due at once."""
        flight = Flight(rows={row.key: row for row in rows}, lane=rows[0].lane, due_s=due_s)
        self._flights.append(flight)
        self._by_key.update(dict.fromkeys(flight.rows, flight))

    def due(self, now_s: float) -> list[Flight]:
        """Flights to publish now, the most urgent lane first."""
        return sorted((flight for flight in self._flights if flight.due_s <= now_s), key=lambda flight: flight.lane)

    def next_due_s(self) -> float | None:
        """When the next flight is due."""
        return min((flight.due_s for flight in self._flights), default=None)

    def published(self, flight: Flight, token: int, *, sent_s: float, due_s: float) -> None:
        """Remember that a flight went out as ``token`` and when it goes out again if nothing comes back."""
        self._by_token.pop(flight.token, None)
        self._by_token[token] = flight
        flight.token, flight.sent_s, flight.due_s = token, sent_s, due_s
        flight.attempts += 1

    def of_token(self, token: int) -> Flight | None:
        """The flight that was last published as ``token``."""
        return self._by_token.get(token)

    def failed(self, flight: Flight) -> None:
        """The last publishing came to nothing; the flight stays until it is due."""
        self._by_token.pop(flight.token, None)
        flight.token = 0

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

    def sent_s(self, ranges: Iterable[AckRange]) -> float:
        """When the newest flight in these ranges was published; 0 when none is on its way."""
        keys = (key for found in ranges for key in self._within(found))
        return max((self._by_key[key].sent_s for key in keys), default=0.0)

    def land(self, ranges: Iterable[AckRange]) -> list[Key]:
        """Take acknowledged events out; returns those that really were on their way."""
        keys = list(dict.fromkeys(key for found in ranges for key in self._within(found)))
        for key in keys:
            flight = self._by_key.pop(key)
            del flight.rows[key]
            if not flight.rows:
                self._end(flight)
        return keys

    def split(self, flight: Flight, now_s: float) -> None:
        """Replace a flight of several events by two halves."""
        rows = list(flight.rows.values())
        self._end(flight)
        self.add(rows[: len(rows) // 2], now_s)
        self.add(rows[len(rows) // 2 :], now_s)

    def _within(self, found: AckRange) -> list[Key]:
        boot, lo, hi = found
        if hi - lo < len(self._by_key):
            return [(boot, seq) for seq in range(lo, hi + 1) if (boot, seq) in self._by_key]
        return [key for key in self._by_key if key[0] == boot and lo <= key[1] <= hi]

    def _end(self, flight: Flight) -> None:
        self._flights.remove(flight)
        self._by_token.pop(flight.token, None)
