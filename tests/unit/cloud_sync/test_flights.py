from __future__ import annotations

from edgecv._internal.timing import Backoff
from edgecv.cloud_sync.delivery.in_flight import InFlightBatches
from edgecv.cloud_sync.outbox.rows import Row


def rows(lo: int, hi: int, priority: int = 1) -> list[Row]:
    return [Row(boot=1, seq=seq, priority=priority, body=b"{}") for seq in range(lo, hi + 1)]


def test_a_flight_ends_when_its_last_event_landed() -> None:
    flights = InFlightBatches()
    flights.add(rows(1, 3), due_s=0.0)
    (flight,) = flights.due(0.0)
    assert flights.land_of(flight, [(1, 1, 2)]) == [(1, 1), (1, 2)]
    assert len(flights) == 1
    assert not flights.has_ended(flight.nonce)
    assert flights.land_of(flight, [(1, 0, 2**53)]) == [(1, 3)]
    assert len(flights) == 0
    assert flights.has_ended(flight.nonce)


def test_only_events_of_the_flight_can_land() -> None:
    flights = InFlightBatches()
    flights.add(rows(5, 6), due_s=0.0)
    flights.add(rows(1, 4), due_s=0.0)
    flight = flights.due(0.0)[0]
    assert flights.land_of(flight, [(1, 1, 4), (2, 0, 2**53), (1, 6, 6), (1, 6, 6)]) == [(1, 6)]


def test_a_flight_is_found_by_its_nonce_alone() -> None:
    flights = InFlightBatches()
    flights.add(rows(1, 1), due_s=0.0)
    flights.add(rows(2, 2), due_s=0.0)
    first, second = flights.due(0.0)
    assert len(first.nonce) == 32
    assert first.nonce != second.nonce
    assert flights.holder(second.nonce) is second
    assert flights.holder(first.nonce[:-1] + "g") is None
    assert first.nonce not in repr(first) + repr(flights)


def test_urgent_flights_are_due_first() -> None:
    flights = InFlightBatches()
    flights.add(rows(1, 1, priority=3), due_s=0.0)
    flights.add(rows(2, 2, priority=0), due_s=0.0)
    flights.add(rows(3, 3), due_s=9.0)
    assert [flight.priority for flight in flights.due(1.0)] == [0, 3]
    assert flights.next_due_s() == 0.0


def test_a_new_connection_makes_everything_due() -> None:
    flights = InFlightBatches()
    flights.add(rows(1, 1), due_s=0.0)
    (flight,) = flights.due(0.0)
    flights.published(flight, 7, sent_s=0.0, due_s=60.0)
    assert flights.due(1.0) == []
    flights.all_due(1.0)
    assert flights.due(1.0) == [flight]
    assert flights.of_token(7) is None


def test_an_acknowledgement_hurries_what_it_overtook() -> None:
    flights = InFlightBatches()
    for seq, sent_s in ((1, 0.0), (2, 10.0)):
        flights.add(rows(seq, seq), due_s=0.0)
        flights.published(flights.due(0.0)[0], seq, sent_s=sent_s, due_s=60.0)
    flights.hurry(11.0, 9.0)
    assert [list(flight.rows) for flight in flights.due(11.0)] == [[(1, 1)]]


def test_a_split_flight_keeps_every_event() -> None:
    flights = InFlightBatches()
    flights.add(rows(1, 5), due_s=0.0)
    flights.split(flights.due(0.0)[0], 0.0)
    assert [len(flight.rows) for flight in flights.due(0.0)] == [2, 3]
    assert [len(flights.land(flight)) for flight in flights.due(0.0)] == [2, 3]
    assert len(flights) == 0


def test_delays_grow_with_jitter_up_to_the_cap() -> None:
    backoff = Backoff(initial_s=1.0, cap_s=8.0)
    for attempt, most_s in ((0, 1.0), (1, 2.0), (3, 8.0), (1000, 8.0)):
        delays = [backoff.delay_s(attempt) for _ in range(50)]
        assert most_s / 2 <= min(delays) < max(delays) <= most_s


def test_a_message_with_fewer_events_has_another_nonce() -> None:
    """So the index in a late answer to the first one points nowhere else."""
    flights = InFlightBatches()
    flights.add(rows(1, 3), due_s=0.0)
    (flight,) = flights.due(0.0)
    flights.pack(flight)
    first = flight.nonce
    flights.pack(flight)
    assert (flight.nonce, flight.order) == (first, ((1, 1), (1, 2), (1, 3)))
    flights.land_of(flight, [(1, 1, 1)])
    flights.pack(flight)
    assert flight.order == ((1, 2), (1, 3))
    assert flight.nonce != first
    assert flights.holder(first) is None
    assert flights.has_ended(first)


def test_an_event_is_taken_out_once() -> None:
    flights = InFlightBatches()
    flights.add(rows(1, 2), due_s=0.0)
    (flight,) = flights.due(0.0)
    assert [flights.take_out(flight, (1, 1)) for _ in range(2)] == [True, False]
    assert flights.take_out(flight, (1, 2))
    assert len(flights) == 0


def test_a_flight_is_found_by_the_digest_of_its_last_message() -> None:
    flights = InFlightBatches()
    flights.add(rows(1, 1), due_s=0.0)
    (flight,) = flights.due(0.0)
    assert flights.of_digest("") is None
    flight.digest = "ab" * 32
    assert flights.of_digest("ab" * 32) is flight
    flights.land(flight)
    assert flights.of_digest("ab" * 32) is None
    assert flights.has_ended("ab" * 32)
