"""Mutated messages on every inbound topic, straight into the handlers and through a real broker.

The seed is printed; ``EDGECV_FUZZ_SEED`` repeats a run, ``EDGECV_FUZZ_SECONDS`` makes it longer. Crashers are written to
``corpus/mqtt/`` and replayed first, here and in ``test_mqtt.py``.
"""

from __future__ import annotations

import os
import random
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from edgecv._internal.timing import Backoff
from edgecv.cloud_sync.acks import Ack, encode_acks, to_ranges
from edgecv.cloud_sync.delivery.options import SendOptions
from edgecv.cloud_sync.delivery.sender import Sender
from edgecv.cloud_sync.envelope import encode, encode_batch
from edgecv.cloud_sync.ingest.ingest import Ingest
from edgecv.cloud_sync.mqtt.broker_url import parse_broker_url
from edgecv.cloud_sync.mqtt.events import Received
from edgecv.cloud_sync.mqtt.topics import parse_events_topic
from edgecv.cloud_sync.outbox.outbox import Outbox
from tests.security.fuzz_mqtt import (
    ACK,
    EV,
    STATUS,
    ack_seeds,
    batch_seeds,
    keep,
    mutate,
    mutate_batch,
    mutate_topic,
    nothing_executed,
    stream_seeds,
)
from tests.security.hostile_broker import HostileBroker, Peer
from tests.security.test_mqtt import MIB, memory_within
from tests.unit.cloud_sync.support import (
    ADDRESS,
    FAST_SEND,
    SMALL,
    make_envelope,
    put_accepted,
    running_ingest,
    running_mosquitto,
    stored_ids,
    until,
)

SECONDS = float(os.environ.get("EDGECV_FUZZ_SECONDS", "100"))
PER_TEST_S = SECONDS / 5
AT_LEAST = 10_000  # messages on each topic, however long that takes
NOWHERE = "mqtt://127.0.0.1:1"

pytestmark = pytest.mark.timeout(SECONDS + 120)
# The bounded version belongs to every run of the tests, the long one to `make test-slow`.
how_much = pytest.mark.parametrize(
    ("seconds", "at_least"), [(0.0, 2_000), pytest.param(PER_TEST_S, AT_LEAST, marks=pytest.mark.slow)]
)


@pytest.fixture
def rng() -> random.Random:
    seed = int(os.environ.get("EDGECV_FUZZ_SEED") or secrets.randbits(32))
    print(f"EDGECV_FUZZ_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path / "outbox", limits=SMALL)
    yield outbox
    outbox.close()


@how_much
def test_no_acknowledgement_breaks_a_device_or_deletes_what_it_should_not(
    rng: random.Random, outbox: Outbox, seconds: float, at_least: int
) -> None:
    put_accepted(outbox, 200)
    sender = Sender(
        outbox, parse_broker_url(NOWHERE), ADDRESS, options=FAST_SEND
    )  # never started: its handlers are called
    for _ in range(4):
        sender._flights.add(outbox.claim(limit=50, max_bytes=1 << 20).rows, 0.0)
    in_flight = sender._flights.due(0.0)
    seeds = ack_seeds(outbox.boot, [secrets.token_hex(16) for _ in range(20)])
    queue = list(seeds)
    end_s, count = time.monotonic() + seconds, 0
    with memory_within(100 * MIB), nothing_executed():
        while time.monotonic() < end_s or queue or count < at_least:
            payload = queue.pop() if queue else mutate(rng, rng.choice(seeds), seeds)
            try:
                sender._handle(Received(epoch=1, mid=1, topic=mutate_topic(rng, ACK), payload=payload))
            except Exception:
                print(keep("ack", payload))
                raise
            count += 1
    assert sender.stats().ignored > count * 0.9
    assert (len(sender._flights), outbox.stats().pending, outbox.stats().acknowledged) == (4, 200, 0)
    # The honest ones still work, and reach as far as they say.
    first = in_flight[0]
    keys = list(first.rows)[:30]
    for payload in encode_acks([Ack(nonce=first.nonce, ranges=tuple(to_ranges(keys)))]):
        sender._handle(Received(epoch=1, mid=1, topic=ACK, payload=payload))
    until(lambda: outbox.stats().acknowledged == 30, "thirty deletions")
    assert outbox.stats().pending == 170
    print(f"{count} acknowledgements")


@how_much
def test_no_batch_breaks_ingest_or_lands_in_the_name_of_another(
    rng: random.Random, outbox: Outbox, tmp_path: Path, seconds: float, at_least: int
) -> None:
    ingest = Ingest(NOWHERE, tmp_path / "db")  # never run: its handlers are called
    stop = threading.Event()
    seeds = batch_seeds(outbox)
    queue = list(seeds)
    honest: list[str] = []
    end_s, count = time.monotonic() + seconds, 0
    with memory_within(200 * MIB), nothing_executed():
        while time.monotonic() < end_s or queue or count < at_least:
            messages = []
            for _ in range(64):
                payload = queue.pop() if queue else mutate_batch(rng, rng.choice(seeds), seeds)
                messages.append(
                    Received(epoch=1, mid=1, topic=mutate_topic(rng, rng.choice((EV, EV, STATUS))), payload=payload)
                )
            envelope = make_envelope(outbox)
            honest.append(envelope.id)
            good = Received(epoch=1, mid=1, topic=EV, payload=encode_batch([encode(envelope)], "0" * 32))
            messages.insert(rng.randrange(64), good)
            ingest._land(messages, stop)
            count += len(messages)
            if ingest._failed._count:
                for message in messages:
                    print(keep("ev", message.payload))
                pytest.fail("a message broke its handler; see the corpus")
    assert ingest.stats().messages == count
    with closing(sqlite3.connect(ingest.db_path)) as db:
        rows = db.execute("SELECT source, id, tenant, device, boot, seq, type, model FROM events").fetchall()
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT COUNT(*) FROM rejected").fetchone()[0] <= 1000
    ingest._landing.close()
    for source, name, tenant, device, boot, seq, kind, model in rows:
        address = parse_events_topic(f"{source}/ev")
        assert (address.tenant, address.device) == (tenant, device)
        assert re.fullmatch(rf"{boot}:{seq}(:[0-9a-f]{{16}})?", name)  # the digest where two contents have one id
        assert kind.isprintable()
        assert model.isprintable()
    assert set(honest) <= {row[1] for row in rows}
    print(f"{count} batches, {len(rows)} rows")


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_no_stream_of_a_broker_breaks_a_device(rng: random.Random, outbox: Outbox, protocol: str) -> None:
    put_accepted(outbox, 100)
    seeds = stream_seeds(ack_seeds(outbox.boot, [secrets.token_hex(16) for _ in range(5)]), v5=protocol == "5")
    sent: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.read()
        sent.append(mutate(rng, rng.choice(seeds), seeds))
        del sent[:-50]
        peer.send(sent[-1])
        peer.socket.settimeout(0.03)
        while peer.read():
            pass

    options = SendOptions(resend=FAST_SEND.resend, reconnect=Backoff(initial_s=0.001, cap_s=0.002))
    errors: dict[str, int] = {}
    with HostileBroker(script) as broker, memory_within(150 * MIB):
        sender = Sender(outbox, parse_broker_url(f"{broker.url}?protocol={protocol}"), ADDRESS, options=options)
        sender.start()
        end_s, connections = time.monotonic() + PER_TEST_S, 0
        while time.monotonic() < end_s:
            time.sleep(0.01)
            error = sender.stats().last_error
            errors[error] = errors.get(error, 0) + 1
            if "in the MQTT client" in error:
                for data in sent:
                    print(keep("stream", data))
                pytest.fail(error)
            connections = max(connections, len(broker.peers))
            del broker.peers[:-10]
        assert all(thread.is_alive() for thread in (sender._thread, sender._transport._thread))
        assert sender.close()
    assert all(error.isprintable() for error in errors)
    assert (outbox.stats().pending, outbox.stats().dead, outbox.stats().acknowledged) == (100, 0, 0)
    print(errors)


@pytest.mark.slow
def test_through_a_real_broker_everything_accepted_is_stored_once(
    rng: random.Random, outbox: Outbox, tmp_path: Path
) -> None:
    accepted: list[str] = []
    acks = ack_seeds(outbox.boot, [secrets.token_hex(16) for _ in range(20)])
    batches = batch_seeds(Outbox(tmp_path / "stranger", limits=SMALL))
    with (
        running_mosquitto(tmp_path) as broker,
        memory_within(300 * MIB),
        running_ingest(broker.url, tmp_path / "db") as ingest,
    ):
        sender = Sender(outbox, parse_broker_url(broker.url), ADDRESS, options=FAST_SEND)
        sender.start()
        until(lambda: sender.stats().connected and ingest.stats().connected, "both connected")
        stranger = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        stranger.connect("127.0.0.1", broker.port)
        stranger.loop_start()
        end_s, count = time.monotonic() + PER_TEST_S, 0
        while time.monotonic() < end_s or count < AT_LEAST:
            accepted += put_accepted(outbox, 3)
            for _ in range(20):
                topic = rng.choice((ACK, EV, STATUS, "edgecv/acme/other/ev"))
                seeds = acks if topic == ACK else batches
                payload = (mutate if topic == ACK else mutate_batch)(rng, rng.choice(seeds), seeds)
                stranger.publish(topic, payload, qos=rng.choice((0, 1, 2)), retain=rng.random() < 0.1)
                count += 1
            time.sleep(0.02)
        stranger.disconnect()
        stranger.loop_stop()
        assert sender.drain(30.0), sender.stats()
        assert ingest.stats().connected
        assert sender.close()
    stored = stored_ids(tmp_path / "db")
    assert set(accepted) <= set(stored)
    assert outbox.stats().dead == 0
    print(f"{count} messages, {len(accepted)} accepted, {len(stored)} rows, {sender.stats()}")
