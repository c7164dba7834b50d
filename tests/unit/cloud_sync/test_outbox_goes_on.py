"""One wrong event, one failing write or one late answer does not keep an outbox from going on."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest
from paho.mqtt import client as mqtt, enums as mqtt_enums

from edgecv.cloud_sync.acks import Ack, Refused, encode_acks, encode_refusals
from edgecv.cloud_sync.delivery.answers import AnswerReader
from edgecv.cloud_sync.delivery.in_flight import InFlightBatches
from edgecv.cloud_sync.delivery.options import SendOptions
from edgecv.cloud_sync.delivery.parking import Parking
from edgecv.cloud_sync.delivery.sender import Sender
from edgecv.cloud_sync.mqtt.broker_url import parse_broker_url
from edgecv.cloud_sync.outbox.limits import OutboxLimits
from edgecv.cloud_sync.outbox.outbox import Outbox
from edgecv.cloud_sync.outbox.rows import Row
from edgecv.cloud_sync.outbox.store import OutboxStore
from edgecv.cloud_sync.sink import MqttSink
from edgecv.events import Event
from tests.unit.cloud_sync.support import (
    ADDRESS,
    FAST,
    SMALL,
    Mosquitto,
    free_port,
    make_envelope,
    put_accepted,
    running_ingest,
    running_mosquitto,
    stored_ids,
    until,
)

TIGHT = OutboxLimits(floor_bytes=0, ballast_bytes=0)


class Clock:
    def __init__(self) -> None:
        self.now_ns = 1_000

    def __call__(self) -> int:
        return self.now_ns


def opened(folder: Path, clock: Clock | None = None) -> OutboxStore:
    return OutboxStore(folder, TIGHT, clock or Clock())


def rows(*seqs: int, expires_ns: int | None = None) -> list[Row]:
    return [Row(boot=7, seq=seq, priority=1, body=b"{}", expires_ns=expires_ns) for seq in seqs]


def claimed(store: OutboxStore) -> list[int]:
    return [row.seq for row in store.claim(limit=100, max_bytes=10**6, priorities=4).rows]


def read_only(store: OutboxStore, on: bool = True) -> None:
    """What a disk does that was remounted read-only."""
    store._db._db.execute(f"PRAGMA query_only={int(on)}")


def test_a_key_that_is_no_unicode_does_not_end_the_outbox(tmp_path: Path) -> None:
    """A file name that is no UTF-8 reaches Python as lone surrogates."""
    outbox = Outbox(tmp_path, limits=SMALL)
    for _ in range(2):
        outbox.put(make_envelope(outbox), coalesce_key="clip-\udcff.mp4")
    until(lambda: not outbox.stats().queued, "both are stored, or refused")
    stats = outbox.stats()
    assert (stats.accepted, stats.refused, stats.last_error) == (2, 0, "")
    put_accepted(outbox, 1)
    assert outbox.close()


@pytest.mark.parametrize("time_ns", [10**22, -(10**22), 1.5])
def test_an_event_at_an_impossible_time_is_counted(tmp_path: Path, time_ns: int) -> None:
    sink = MqttSink(
        f"mqtt://127.0.0.1:{free_port()}", tenant="acme", device="cam-1", outbox=tmp_path, limits=SMALL, drain_s=0.0
    )
    sink.emit_event(Event(kind="wrong", time_ns=time_ns))
    stats = sink.stats()
    assert (stats.emitted, stats.refused) == (1, 1)
    sink.close()


def test_a_damaged_event_on_a_disk_that_cannot_be_written_holds_up_no_other(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.commit(rows(1, 2, 3), [])
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as db, db:
        db.execute("UPDATE outbox SET crc=crc+1 WHERE seq=2")
    read_only(store)
    assert claimed(store) == [1, 3]
    read_only(store, on=False)
    store.rewind()
    assert claimed(store) == [1, 3]
    assert store.counts().dead == 1


def test_a_dead_letter_that_is_retried_goes_out_although_its_time_is_over(tmp_path: Path) -> None:
    clock = Clock()
    store = opened(tmp_path, clock)
    store.commit(rows(1, expires_ns=2_000), [])
    store.bury((7, 1), "schema")
    clock.now_ns = 3_000
    assert store.retry_dead(None) == 1
    assert claimed(store) == [1]
    assert store.losses() == ()


def test_events_whose_acknowledgement_was_forgotten_are_offered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecv.cloud_sync.outbox.store._MAX_OWED", 1)
    store = opened(tmp_path)
    store.commit(rows(1, 3, 5), [])
    assert claimed(store) == [1, 3, 5]
    read_only(store)
    store.commit([], [(7, 1, 1), (7, 3, 3), (7, 5, 5)])
    read_only(store, on=False)
    assert store.owes
    store.commit([], [])
    assert claimed(store) == [3, 5]


def test_a_queue_of_acknowledgements_that_is_full_offers_the_rest_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecv.cloud_sync.outbox.outbox._MAX_QUEUED_ACKS", 1)
    outbox = Outbox(tmp_path, limits=SMALL)
    put_accepted(outbox, 3)
    assert len(outbox.claim(limit=10, max_bytes=10**6).rows) == 3
    outbox.acknowledge([(outbox.boot, 1, 1), (outbox.boot, 2, 2), (outbox.boot, 3, 3)])
    left: list[int] = []

    def is_offered() -> bool:
        left.extend(row.seq for row in outbox.claim(limit=10, max_bytes=10**6).rows)
        return left == [2, 3]

    until(is_offered, "what was left out is offered again")
    assert outbox.close()


def test_what_a_check_finds_in_a_file_that_was_replaced_says_nothing_of_the_new_one(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.commit(rows(1, 2), [])
    replaced = store.replaced
    store.damaged(sqlite3.DatabaseError("found by a claim"))
    store.check_failed(sqlite3.DatabaseError("found by the check"), replaced)
    assert store.counts().quarantined_files == 1
    store.check_failed(sqlite3.DatabaseError("found by a check of the new file"), store.replaced)
    assert store.counts().quarantined_files == 2
    assert claimed(store) == [1, 2]


def test_a_check_that_finds_damage_on_a_full_disk_does_not_end_the_outbox(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.commit(rows(1, 2), [])
    (tmp_path / "outbox.db.salvage").mkdir()  # the copy cannot be made
    store.check_failed(sqlite3.DatabaseError("malformed"), store.replaced)
    (tmp_path / "outbox.db.salvage").rmdir()
    assert claimed(store) == [1, 2]


def on_disk(outbox: Outbox, action: Callable[[OutboxStore], None]) -> None:
    """Have the thread that owns the file do something to it."""
    outbox._requests.ask(action, 5.0)


@pytest.mark.parametrize("by_digest", [False, True])
def test_an_event_that_could_not_be_buried_is_refused_once_more(tmp_path: Path, by_digest: bool) -> None:
    outbox = Outbox(tmp_path, limits=SMALL)
    put_accepted(outbox, 1)
    flights = InFlightBatches()
    flights.add(outbox.claim(limit=10, max_bytes=10**6).rows, due_s=0.0)
    (flight,) = flights.due(0.0)
    flights.pack(flight)
    flight.digest = "ab" * 32
    answers = AnswerReader(outbox, flights, Parking(flights), "ack")
    refusal = (
        encode_refusals([Refused(digest=flight.digest, reason="schema")])
        if by_digest
        else encode_acks([Ack(nonce=flight.nonce, ranges=(), nacks=((0, "schema"),))])
    )[0]
    on_disk(outbox, read_only)
    answers.read("ack", refusal)
    assert (len(flights), outbox.stats().dead) == (1, 0)
    assert "cannot be read" in answers.trouble
    on_disk(outbox, lambda store: read_only(store, on=False))
    answers.read("ack", refusal)
    assert (len(flights), outbox.stats().dead) == (0, 1)
    assert outbox.close()


def test_an_event_that_cannot_be_written_for_a_broker_holds_up_no_other(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox", limits=SMALL)
    put_accepted(outbox, 3)
    outbox.put(msgspec.structs.replace(make_envelope(outbox), mono_ns=1.5))  # JSON, and no event
    until(lambda: outbox.stats().accepted == 4, "it is stored")
    put_accepted(outbox, 3)
    with running_mosquitto(tmp_path) as broker, subscribed(broker):
        options = SendOptions(ack="broker", resend=FAST, reconnect=FAST)
        sender = Sender(outbox, parse_broker_url(broker.url), ADDRESS, options=options)
        sender.start()
        assert sender.drain(10.0)
        assert outbox.stats().dead == 1
        assert outbox.stats().acknowledged == 6
        sender.close()
        assert (
            sender._parking._landed_bytes > 0
        )  # else a network that fails twice looks like a broker that takes nothing
    assert outbox.close()


@contextmanager
def subscribed(broker: Mosquitto) -> Iterator[None]:
    """Somebody who takes every message."""
    client = mqtt.Client(mqtt_enums.CallbackAPIVersion.VERSION2)
    client.on_connect = lambda *_: client.subscribe("#", qos=1)
    ready = threading.Event()
    client.on_subscribe = lambda *_: ready.set()
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    try:
        assert ready.wait(10.0)
        yield
    finally:
        client.disconnect()
        client.loop_stop()


def test_what_came_while_ingest_was_away_is_backlog(tmp_path: Path) -> None:
    """The connection to the broker stands all the time."""
    outbox = Outbox(tmp_path / "outbox", limits=SMALL)
    options = SendOptions(window=2, batch_events=5, drain_events_s=20.0, resend=FAST, reconnect=FAST)
    with running_mosquitto(tmp_path) as broker:
        sender = Sender(outbox, parse_broker_url(broker.url), ADDRESS, options=options)
        sender.start()
        until(lambda: sender.stats().connected, "the broker is there")
        put_accepted(outbox, 300, priority="telemetry")
        until(lambda: sender.stats().unplaced > 0, "nobody takes them")
        with running_ingest(broker.url, tmp_path / "db"):
            until(lambda: outbox.stats().acknowledged > 0, "ingest is back")
            live = put_accepted(outbox, 3, priority="telemetry")
            until(lambda: set(live) <= set(stored_ids(tmp_path / "db")), "what is new arrives", timeout_s=5.0)
            assert outbox.stats().pending > 150
        sender.close()
    assert outbox.close()


def test_what_was_saved_of_a_damaged_file_is_backlog(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.commit(rows(1, 2), [])
    store.damaged(sqlite3.DatabaseError("malformed"))
    store.commit(rows(3), [])
    assert claimed(store) == [3]
    assert claimed(store) == [1, 2]
