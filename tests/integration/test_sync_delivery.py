"""Events from a sink to the landing database, through real brokers."""

from __future__ import annotations

import json
import os
import queue
import random
import resource
import shutil
import sqlite3
import string
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from edgecv.benchmarks.demo.broker import EmbeddedBroker
from edgecv.cloud_sync.envelope import encode, encode_batch
from edgecv.cloud_sync.ingest.ingest import Ingest
from edgecv.cloud_sync.mqtt.broker_url import parse_broker_url
from edgecv.cloud_sync.mqtt.events import Connected, LinkEvent, LinkOptions, Undelivered
from edgecv.cloud_sync.mqtt.topics import Address
from edgecv.cloud_sync.mqtt.transport import MqttTransport
from edgecv.cloud_sync.outbox.outbox import Outbox
from edgecv.cloud_sync.sink import MqttSink
from edgecv.errors import ConfigError, OutboxLocked, SyncError
from edgecv.events import Event
from tests.unit.cloud_sync.support import (
    ADDRESS,
    FAST,
    FAST_SEND,
    SMALL,
    Child,
    Mosquitto,
    counts,
    free_port,
    make_envelope,
    make_result,
    running_ingest,
    running_mosquitto,
    stored_ids,
    until,
)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with running_mosquitto(tmp_path) as broker:
        yield broker


@pytest.fixture(params=["mosquitto", "amqtt"])
def broker_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "mosquitto":
        with running_mosquitto(tmp_path) as broker:
            yield broker.url
    else:
        with EmbeddedBroker() as embedded:
            yield embedded.url


def open_sink(url: str, folder: Path, **more: object) -> MqttSink:
    settings: dict[str, object] = {"tenant": "acme", "device": "cam-1", "limits": SMALL, "options": FAST_SEND}
    return MqttSink(url, outbox=folder, **{**settings, **more})  # type: ignore[arg-type]


def connected(thing: MqttSink | Ingest) -> None:
    until(lambda: thing.stats().connected, "a connection")


class Listener:
    """A plain subscriber, to see what is on the wire."""

    def __init__(self, port: int, topic: str) -> None:
        self.messages: queue.SimpleQueue[tuple[str, bytes, bool]] = queue.SimpleQueue()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda _c, _d, m: self.messages.put((m.topic, m.payload, m.retain))
        ready = threading.Event()
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._client.subscribe(topic, qos=1)
        assert ready.wait(5.0)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def test_every_accepted_event_is_stored_exactly_once(broker_url: str, tmp_path: Path) -> None:
    with running_ingest(broker_url, tmp_path / "db") as ingest:
        sink = open_sink(broker_url, tmp_path / "outbox", drain_s=15.0)
        for index in range(1000):
            sink.emit(make_result(index))
        sink.close()
        stats = sink.stats()
        assert (stats.emitted, stats.accepted, stats.acknowledged, stats.pending) == (1000, 1000, 1000, 0), counts(
            stats
        )
        ids = stored_ids(tmp_path / "db")
        assert len(ids) == len(set(ids)) == 1000
        assert ingest.stats().stored == 1000
        assert ingest.stats().commits < 500


def test_a_row_holds_the_event_and_where_it_came_from(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with running_ingest(mosquitto.url, tmp_path / "db") as ingest:
        sink = open_sink(mosquitto.url, tmp_path / "outbox", drain_s=15.0)
        sink.emit(make_result(4))
        sink.close()
        with closing(sqlite3.connect(ingest.db_path)) as db:
            db.row_factory = sqlite3.Row
            (row,) = db.execute("SELECT * FROM events").fetchall()
    assert (row["tenant"], row["device"], row["source"]) == ("acme", "cam-1", "edgecv/acme/cam-1")
    assert (row["id"], row["type"], row["lane"]) == (f"{row['boot']}:1", "edgecv.result", "telemetry")
    assert (row["model"], row["time"]) == ("demo/onnx-int8", "2023-11-14T22:13:20.000000004Z")
    data = json.loads(row["data"])
    assert data["detections"][0]["xyxyn"] == [0.1, 0.1, 0.5, 0.5]
    assert row["received_ns"] > 0


@pytest.mark.parametrize(("events", "expected"), [("detections", 2), ("all", 5)])
def test_frames_without_detections_go_only_when_asked_for(
    mosquitto: Mosquitto, tmp_path: Path, events: str, expected: int
) -> None:
    with running_ingest(mosquitto.url, tmp_path / "db"):
        sink = open_sink(mosquitto.url, tmp_path / "outbox", events=events, drain_s=15.0)
        for boxes in (0, 3, 0, 1, 0):
            sink.emit(make_result(boxes=boxes))
        sink.close()
    assert len(stored_ids(tmp_path / "db")) == sink.stats().emitted == expected


def test_events_of_steps_go_even_from_empty_frames(mosquitto: Mosquitto, tmp_path: Path) -> None:
    event = Event(kind="line.crossed", time_ns=5, data={"count": 1}, priority="alarm")
    broken = Event(kind="broken", time_ns=5, data={"x": object()})
    with running_ingest(mosquitto.url, tmp_path / "db") as ingest:
        sink = open_sink(mosquitto.url, tmp_path / "outbox", drain_s=15.0)
        sink.emit(make_result(boxes=0, events=(event, broken)))
        sink.close()
        with closing(sqlite3.connect(ingest.db_path)) as db:
            assert sorted(db.execute("SELECT type, lane FROM events")) == [
                ("edgecv.event.line.crossed", "alarm"),
                ("edgecv.event.sync.losses", "event"),  # it tells of the broken one
            ]
    assert (sink.stats().emitted, sink.stats().refused) == (2, 1)


def test_events_wait_on_disk_while_the_broker_is_unreachable(tmp_path: Path) -> None:
    port = free_port()
    sink = open_sink(f"mqtt://127.0.0.1:{port}", tmp_path / "outbox", drain_s=0.1)
    for index in range(100):
        sink.emit(make_result(index))
    sink.close()
    stats = sink.stats()
    assert (stats.accepted, stats.pending, stats.connected) == (100, 100, False)
    assert "cannot be reached" in stats.last_error
    with running_mosquitto(tmp_path) as broker, running_ingest(broker.url, tmp_path / "db"):
        later = open_sink(broker.url, tmp_path / "outbox", drain_s=15.0)
        later.close()
        assert later.stats().pending == 0
    ids = stored_ids(tmp_path / "db")
    assert len(ids) == len(set(ids)) == 100


def test_results_that_waited_too_long_are_deleted_and_events_stay(tmp_path: Path) -> None:
    port = free_port()
    sink = open_sink(f"mqtt://127.0.0.1:{port}", tmp_path / "outbox", drain_s=0.0, telemetry_ttl_s=0.2)
    crossed = Event(kind="line.crossed", time_ns=5, data={"count": 1})
    for index in range(20):
        sink.emit(make_result(index, events=(crossed,) if index == 7 else ()))
    sink.close()
    assert sink.stats().pending == 21
    time.sleep(0.25)
    with running_mosquitto(tmp_path) as broker, running_ingest(broker.url, tmp_path / "db") as ingest:
        later = open_sink(broker.url, tmp_path / "outbox", drain_s=15.0, telemetry_ttl_s=0.2)
        later.close()
        # The event, and the report that tells of the others.
        assert (later.stats().expired, later.stats().acknowledged, later.stats().pending) == (20, 2, 0)
        assert ingest.stats().stored == 2


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), True])
def test_a_time_to_live_that_is_none_is_a_config_error(tmp_path: Path, wrong: float) -> None:
    with pytest.raises(ConfigError, match="telemetry_ttl_s"):
        open_sink("mqtt://127.0.0.1:1", tmp_path / "outbox", telemetry_ttl_s=wrong)


def test_broker_acknowledgements_suffice_when_asked_for(mosquitto: Mosquitto, tmp_path: Path) -> None:
    listener = Listener(mosquitto.port, "edgecv/acme/cam-1/ev")
    sink = open_sink(mosquitto.url, tmp_path / "outbox", ack="broker", drain_s=15.0)
    for index in range(50):
        sink.emit(make_result(index))
    sink.close()
    assert (sink.stats().acknowledged, sink.stats().pending) == (50, 0)
    assert listener.messages.get(timeout=5.0)[0] == ADDRESS.topic("ev")
    listener.close()


@pytest.mark.parametrize("ack", ["broker", "ingest"])
def test_a_message_without_subscribers_is_not_delivered(mosquitto: Mosquitto, tmp_path: Path, ack: str) -> None:
    sink = open_sink(mosquitto.url, tmp_path / "outbox", ack=ack, drain_s=0.5)
    sink.emit(make_result())
    until(lambda: "nobody subscribes" in sink.stats().last_error, "PUBACK 0x10 noticed")
    sink.close()
    assert (sink.stats().acknowledged, sink.stats().pending) == (0, 1)


def test_repeated_batches_are_absorbed_and_acknowledged_again(mosquitto: Mosquitto, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox", limits=SMALL)
    bodies = [encode(make_envelope(outbox)) for _ in range(20)]
    listener = Listener(mosquitto.port, "edgecv/acme/cam-1/ack")
    with running_ingest(mosquitto.url, tmp_path / "db") as ingest:
        connected(ingest)
        for _ in range(3):
            mosquitto.publish("edgecv/acme/cam-1/ev", encode_batch(bodies))
        until(lambda: ingest.stats().duplicates == 40, "40 duplicates")
        assert ingest.stats().stored == len(stored_ids(tmp_path / "db")) == 20
        acked = [json.loads(listener.messages.get(timeout=5.0)[1])]
    assert acked[0] == [[outbox.boot, 1, 20]]
    listener.close()
    outbox.close()


def test_garbage_on_the_event_topics_is_kept_out_and_counted(mosquitto: Mosquitto, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox", limits=SMALL)
    good = encode(make_envelope(outbox))
    garbage = [
        ("edgecv/acme/cam-1/ev", b"no zlib"),
        ("edgecv/acme/cam-1/ev", encode_batch([b'{"bad":1}'])),
        ("edgecv/acme/other/ev", encode_batch([good])),
        ("edgecv/ac me/cam-1/ev", encode_batch([good])),
        ("edgecv/acme/cam-1/ev", b""),
    ]
    with running_ingest(mosquitto.url, tmp_path / "db") as ingest:
        connected(ingest)
        for topic, payload in garbage:
            mosquitto.publish(topic, payload)
        mosquitto.publish("edgecv/acme/cam-1/ev", encode_batch([b"[]", good]))
        until(lambda: ingest.stats().rejected == 6, "six rejections")
        assert ingest.stats().stored == 1
        with closing(sqlite3.connect(ingest.db_path)) as db:
            reasons = [row[0] for row in db.execute("SELECT reason FROM rejected ORDER BY n")]
    assert "zlib" in reasons[0]
    assert "topic" in reasons[2]
    outbox.close()


def test_garbage_on_the_ack_topic_deletes_nothing(mosquitto: Mosquitto, tmp_path: Path) -> None:
    sink = open_sink(mosquitto.url, tmp_path / "outbox", drain_s=15.0)
    connected(sink)
    sink.emit(make_result())
    until(lambda: "nobody subscribes" in sink.stats().last_error, "the event is on its way")
    for payload in (b"", b"x", b"[[1,2]]", b"[[0,0,9007199254740992]]", b"[[5,9,1]]", b"[" * 9999, b"{}"):
        mosquitto.publish("edgecv/acme/cam-1/ack", payload)
    with running_ingest(mosquitto.url, tmp_path / "db"):
        sink.close()
    assert len(stored_ids(tmp_path / "db")) == sink.stats().acknowledged == 1


def test_the_status_is_retained_and_the_will_reports_a_loss(mosquitto: Mosquitto, tmp_path: Path) -> None:
    listener = Listener(mosquitto.port, "edgecv/+/+/status")
    sink = open_sink(mosquitto.url, tmp_path / "outbox")
    assert json.loads(listener.messages.get(timeout=10.0)[1])["state"] == "online"
    sink.close()
    assert json.loads(listener.messages.get(timeout=10.0)[1])["state"] == "offline"
    # Nobody takes its event, so it stays connected until it is killed.
    with Child("device", mosquitto.url, tmp_path / "outbox", tmp_path / "log", 1) as device:
        assert json.loads(listener.messages.get(timeout=10.0)[1])["state"] == "online"
        device.kill()
    assert json.loads(listener.messages.get(timeout=10.0)[1])["state"] == "lost"
    listener.close()
    late = Listener(mosquitto.port, "edgecv/acme/cam-1/status")
    assert late.messages.get(timeout=10.0)[2] is True
    late.close()


def test_a_broker_that_hangs_on_mqtt_5_is_asked_for_3_1_1(tmp_path: Path) -> None:
    events: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    with EmbeddedBroker() as embedded:
        broker = parse_broker_url(f"mqtt://127.0.0.1:{embedded.port}")
        options = LinkOptions(client_id="probe", timeout_s=1.0, backoff=FAST)
        transport = MqttTransport(broker, options, events.put)
        transport.start()
        found = events.get(timeout=5.0)
        while not isinstance(found, Connected):
            found = events.get(timeout=5.0)
        assert found.protocol == "3.1.1"
        assert transport.close(5.0)


def test_a_message_larger_than_the_broker_takes_waits_and_holds_nothing_up(tmp_path: Path) -> None:
    noise = "".join(random.Random(0).choices(string.ascii_letters, k=20_000))  # zlib cannot shrink it to 3,000
    loud = Event(kind="loud", time_ns=0, data={"noise": noise})
    with running_mosquitto(tmp_path, ("allow_anonymous true", "max_packet_size 3000")) as broker:
        listener = Listener(broker.port, ADDRESS.topic("ev"))
        sink = open_sink(broker.url, tmp_path / "outbox", ack="broker", drain_s=0.0)
        for index in range(10):
            sink.emit(make_result(index, events=(loud,) if index == 5 else ()))
        until(lambda: sink.stats().acknowledged == 10, "the small ones arrive")
        sink.close()
        listener.close()
    stats = sink.stats()
    assert (stats.emitted, stats.dead, stats.pending, stats.parked) == (11, 0, 1, 1)


def test_connections_work_beyond_descriptor_1023(mosquitto: Mosquitto, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("needs 2,048 descriptors")
    with ExitStack() as held:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):
            held.enter_context(Path(os.devnull).open())
        with running_ingest(mosquitto.url, tmp_path / "db"):
            sink = open_sink(mosquitto.url, tmp_path / "outbox", drain_s=15.0)
            sink.emit(make_result())
            sink.close()
    assert sink.stats().acknowledged == 1


def test_a_message_of_an_old_connection_is_dropped(mosquitto: Mosquitto) -> None:
    events: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    transport = MqttTransport(parse_broker_url(mosquitto.url), LinkOptions(client_id="x", backoff=FAST), events.put)
    transport.publish(0, "t/old", b"old")
    transport.start()
    found = events.get(timeout=5.0)
    assert isinstance(found, Connected)
    token = transport.publish(found.epoch, "t/new", b"new")
    answer = events.get(timeout=5.0)
    assert answer == Undelivered(token=token, reason_code=0x10)
    assert transport.close(5.0)


def test_a_second_ingest_on_a_folder_is_a_clear_error(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with running_ingest(mosquitto.url, tmp_path / "db"):
        with pytest.raises(SyncError, match="belongs to the running ingest") as caught:
            Ingest(mosquitto.url, tmp_path / "db")
        assert caught.value.hint


@pytest.mark.parametrize(
    "wrong",
    [{"tenant": "a/b"}, {"device": ""}, {"ack": "maybe"}, {"events": "some"}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_wrong_setting_is_a_config_error_and_holds_nothing(tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        open_sink("mqtt://127.0.0.1:1", tmp_path / "outbox", **wrong)
    open_sink("mqtt://127.0.0.1:1", tmp_path / "outbox", drain_s=0.0).close()


def test_two_sinks_cannot_share_an_outbox(tmp_path: Path) -> None:
    sink = open_sink("mqtt://127.0.0.1:1", tmp_path / "outbox", drain_s=0.0)
    with pytest.raises(OutboxLocked):
        open_sink("mqtt://127.0.0.1:1", tmp_path / "outbox")
    sink.close()
    sink.close()


def test_devices_of_several_tenants_land_side_by_side(mosquitto: Mosquitto, tmp_path: Path) -> None:
    names = [("acme", "a"), ("acme", "b"), ("zeta", "a")]
    with running_ingest(mosquitto.url, tmp_path / "db") as ingest:
        sinks = [
            open_sink(mosquitto.url, tmp_path / f"{tenant}-{device}", tenant=tenant, device=device, drain_s=15.0)
            for tenant, device in names
        ]
        for index in range(50):
            for sink in sinks:
                sink.emit(make_result(index))
        for sink in sinks:
            sink.close()
        with closing(sqlite3.connect(ingest.db_path)) as db:
            found = db.execute("SELECT tenant, device, COUNT(*) FROM events GROUP BY 1, 2 ORDER BY 1, 2").fetchall()
    assert found == [(*name, 50) for name in names]
    assert Address(tenant="zeta", device="a").source == "edgecv/zeta/a"


@pytest.mark.parametrize("restored", ["image", "same process twice"])
def test_a_device_that_was_restored_loses_no_event(mosquitto: Mosquitto, tmp_path: Path, restored: str) -> None:
    """The outbox of the image; and, worse, two devices that resume from one memory image and so share a boot."""
    with running_ingest(mosquitto.url, tmp_path / "db") as ingest:
        Outbox(tmp_path / "image", limits=SMALL).close()
        boot = 0
        for start in range(2):
            shutil.copytree(tmp_path / "image", tmp_path / f"outbox-{start}")
            sink = open_sink(mosquitto.url, tmp_path / f"outbox-{start}", drain_s=15.0)
            if restored != "image":
                boot = sink._outbox.boot = boot or sink._outbox.boot
            for index in range(50):
                sink.emit(make_result(1000 * start + index))
            sink.close()
            assert (sink.stats().accepted, sink.stats().pending) == (50, 0)
        assert (ingest.stats().stored, ingest.stats().duplicates) == (100, 0)
        assert ingest.stats().renamed == (0 if restored == "image" else 50)
    assert len(set(stored_ids(tmp_path / "db"))) == 100
