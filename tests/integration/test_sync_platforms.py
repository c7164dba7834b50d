"""Devices on platforms: brokers with their rules, and every event there in the form that they read."""

from __future__ import annotations

import json
import random
import sqlite3
import string
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edgecv.cloud_sync.sink import MqttSink
from edgecv.events import Event
from tests.integration.platform_brokers import DEVICE, IMITATIONS, TENANT, Inside, imitated, refusals, url_of
from tests.unit.cloud_sync.support import (
    FAST_SEND,
    SMALL,
    Child,
    Mosquitto,
    make_result,
    running_ingest,
    running_mosquitto,
    stored_ids,
    until,
)

EVENTS = {
    "aws": "edgecv/acme/cam-1/ev",
    "aws-basic-ingest": "$aws/rules/edgecv/edgecv/acme/cam-1/ev",
    "azure": "devices/cam-1/messages/events/$.ct=application%2Fjson&$.ce=utf-8",
    "azure-eventgrid": "edgecv/acme/cam-1/ev",
    "thingsboard": "v1/devices/me/telemetry",
}
SHADOW = "$aws/things/cam-1/shadow/name/edgecv/update"
REPORTED = "$iothub/twin/PATCH/properties/reported/"
STATES: dict[str, tuple[str, Any]] = {
    "aws": (SHADOW, {"state": {"reported": {"state": "online"}}}),
    "aws-basic-ingest": (SHADOW, {"state": {"reported": {"state": "online"}}}),
    "azure": (REPORTED, {"edgecv": {"state": "online"}}),
    "azure-eventgrid": ("edgecv/acme/cam-1/status", {"state": "online"}),
    "thingsboard": ("v1/devices/me/attributes", {"edgecv_state": "online"}),
}


def open_sink(url: str, folder: Path, **more: Any) -> MqttSink:
    settings = {"tenant": TENANT, "device": DEVICE, "limits": SMALL, "options": FAST_SEND, "ack": "broker", **more}
    return MqttSink(url, outbox=folder, **settings)


def ids_in(platform: str, documents: list[Any]) -> list[str]:
    """The ids of all events in the messages of a platform."""
    if platform == "thingsboard":
        values = [value for rows in documents for row in rows for value in row["values"].values()]
        return [one["id"] for value in values if isinstance(value, list) for one in value]
    lists = [one if isinstance(one, list) else one["events"] for one in documents]
    return [event["id"] for events in lists for event in events]


@pytest.fixture(params=IMITATIONS)
def platform(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def broker(platform: str, tmp_path: Path) -> Iterator[tuple[Mosquitto, Inside]]:
    with imitated(platform, tmp_path) as found:
        yield found


def test_every_event_reaches_the_platform_by_its_rules(
    broker: tuple[Mosquitto, Inside], platform: str, tmp_path: Path
) -> None:
    mosquitto, inside = broker
    crossed = Event(kind="line.crossed", time_ns=1, source_id="door", data={"direction": "in"}, priority="alarm")
    sink = open_sink(url_of(mosquitto, platform), tmp_path / "outbox", platform=platform, drain_s=15.0)
    for index in range(120):
        sink.emit(make_result(index * 1_000_000, events=(crossed,) if index % 20 == 0 else ()))
    topic, state = STATES[platform]
    until(lambda: state in inside.documents(topic), "it says that it is online")
    sink.close()
    stats = sink.stats()
    assert (stats.accepted, stats.acknowledged, stats.pending, stats.dead) == (126, 126, 0, 0), stats
    until(lambda: len(set(ids_in(platform, inside.documents(EVENTS[platform])))) == 126, "all of them are there")
    assert {one.topic.split("?")[0] for one in inside.seen} == {EVENTS[platform], topic}
    offline = json.loads(json.dumps(state).replace("online", "offline"))
    until(lambda: offline in inside.documents(topic), "it says that it went")
    assert not refusals(tmp_path)


def test_a_device_without_the_platform_is_kept_out_by_the_same_rules(
    broker: tuple[Mosquitto, Inside], platform: str, tmp_path: Path
) -> None:
    """The imitation can say no; only Event Grid and AWS have room for the plain topics, and both forbid something of it."""
    mosquitto, inside = broker
    sink = open_sink(url_of(mosquitto, platform), tmp_path / "outbox", drain_s=0.3)
    sink.emit(make_result())
    until(lambda: refusals(tmp_path) or sink.stats().last_error, "it is refused")
    sink.close()
    assert not inside.on("edgecv/acme/cam-1/ev")


@pytest.mark.parametrize(
    ("platform", "large"), [("aws", 140_000), ("aws-basic-ingest", 140_000), ("thingsboard", 70_000)]
)
def test_what_a_platform_never_takes_is_a_dead_letter_and_holds_nothing_up(
    broker: tuple[Mosquitto, Inside], platform: str, large: int, tmp_path: Path
) -> None:
    """Azure takes whatever an outbox takes."""
    mosquitto, inside = broker
    noise = "".join(random.Random(0).choices(string.ascii_letters, k=large))
    sink = open_sink(url_of(mosquitto, platform), tmp_path / "outbox", platform=platform, drain_s=0.0)
    sink.emit(make_result(1))
    sink.emit_event(Event(kind="loud", time_ns=0, data={"noise": noise}))
    sink.emit(make_result(3_000_000))
    until(lambda: sink.stats().acknowledged == 2 and sink.stats().dead == 1, "the others arrive")
    assert "takes messages of" in sink.stats().last_error
    sink.close()
    with closing(sqlite3.connect(tmp_path / "outbox/outbox.db")) as db:
        assert "takes messages of" in repr(db.execute("SELECT dead FROM outbox").fetchall())
    until(lambda: len(ids_in(platform, inside.documents(EVENTS[platform]))) == 2, "somebody reads the others")
    assert not refusals(tmp_path)


def test_batches_of_large_events_stay_within_the_limits(
    broker: tuple[Mosquitto, Inside], platform: str, tmp_path: Path
) -> None:
    mosquitto, inside = broker
    sink = open_sink(url_of(mosquitto, platform), tmp_path / "outbox", platform=platform, drain_s=15.0)
    noise = "".join(random.Random(0).choices(string.ascii_letters, k=25_000))
    for index in range(40):
        sink.emit_event(Event(kind=f"loud-{index}", time_ns=index * 10**9, data={"noise": noise}))
    sink.close()
    assert (sink.stats().acknowledged, sink.stats().dead) == (40, 0)
    until(lambda: len(ids_in(platform, inside.documents(EVENTS[platform]))) == 40, "all of them are there")
    assert max(len(one.payload) for one in inside.seen) <= 65_536
    assert not refusals(tmp_path)


def test_ingest_behind_aws_acknowledges_as_ever(tmp_path: Path) -> None:
    with imitated("aws", tmp_path) as (mosquitto, inside):
        with running_ingest(url_of(mosquitto, "aws", "ingest"), tmp_path / "db") as ingest:
            until(lambda: ingest.stats().connected, "a connection")
            sink = open_sink(mosquitto.url, tmp_path / "outbox", platform="aws", ack="ingest", drain_s=15.0)
            for index in range(100):
                sink.emit(make_result(index))
            sink.close()
            assert (sink.stats().acknowledged, sink.stats().pending) == (100, 0)
        assert len(stored_ids(tmp_path / "db")) == 100
        assert inside.on(SHADOW)
        assert not refusals(tmp_path)


def test_a_device_that_vanishes_leaves_its_will_on_aws(tmp_path: Path) -> None:
    with imitated("aws", tmp_path) as (mosquitto, inside):
        with Child("sink", mosquitto.url, tmp_path / "outbox", "aws") as device:
            until(lambda: inside.on(SHADOW), "it is online")
            device.kill()
        lost = {"state": {"reported": {"state": "lost"}}}
        until(lambda: lost in inside.documents("edgecv/acme/cam-1/status"), "the will")
        assert not any(one.retain for one in inside.seen)


def test_a_platform_that_refuses_the_status_is_heard(tmp_path: Path) -> None:
    with imitated("aws", tmp_path) as (mosquitto, inside):
        sink = open_sink(mosquitto.url, tmp_path / "outbox", platform="aws", drain_s=0.0)
        until(lambda: inside.on(SHADOW), "it is online")
        inside.say(f"{SHADOW}/rejected", b'{"code":413,"message":"too large"}')
        until(lambda: "too large" in sink.stats().last_error, "it is heard")
        assert not sink.stats().ignored
        sink.close()


def test_answers_of_a_twin_are_no_trouble_unless_they_say_so(tmp_path: Path) -> None:
    with imitated("azure", tmp_path) as (mosquitto, inside):
        sink = open_sink(mosquitto.url, tmp_path / "outbox", platform="azure", drain_s=0.0)
        until(lambda: inside.on(REPORTED), "it is online")
        inside.say("$iothub/twin/res/204/?$rid=1&$version=3", b"")
        sink.emit(make_result())
        until(lambda: sink.stats().acknowledged == 1, "it works on")
        assert (sink.stats().ignored, sink.stats().last_error) == (0, "")
        inside.say("$iothub/twin/res/429/?$rid=1", b"")
        until(lambda: "res/429" in sink.stats().last_error, "it is heard")
        sink.close()


def test_rules_of_a_platform_read_what_nobody_subscribes_to(tmp_path: Path) -> None:
    """Its broker says so (0x10), and its rules have the message all the same."""
    with running_mosquitto(tmp_path) as mosquitto:
        sink = open_sink(mosquitto.url, tmp_path / "outbox", platform="aws", drain_s=15.0)
        for index in range(20):
            sink.emit(make_result(index))
        sink.close()
    assert (sink.stats().acknowledged, sink.stats().unplaced) == (20, 0)


def test_json_for_every_reader_says_what_it_is(tmp_path: Path) -> None:
    with running_mosquitto(tmp_path) as mosquitto:
        reader = Inside(mosquitto.port, ("edgecv/#",))
        sink = open_sink(mosquitto.url, tmp_path / "outbox", drain_s=15.0)
        sink.emit(make_result())
        sink.close()
        until(lambda: reader.on("edgecv/acme/cam-1/ev"), "it arrives")
        (message,) = reader.on("edgecv/acme/cam-1/ev")
        reader.close()
    assert message.properties.ContentType == "application/cloudevents-batch+json"
    assert json.loads(message.payload)[0]["data"]["detections"][0]["label"] == "cat"
    assert "nobody says whether it is stored" in sink.promise


@pytest.mark.parametrize("wire", ["json", "zlib"])
def test_ingest_stores_what_passes_by_for_others_too(tmp_path: Path, wire: str) -> None:
    """Node-RED reads the topic, and so may ingest; rows are the same for either wire."""
    with running_mosquitto(tmp_path) as mosquitto, running_ingest(mosquitto.url, tmp_path / "db") as ingest:
        until(lambda: ingest.stats().connected, "a connection")
        sink = open_sink(mosquitto.url, tmp_path / "outbox", wire=wire, drain_s=15.0)
        for index in range(30):
            sink.emit(make_result(index))
        sink.close()
        until(lambda: ingest.stats().stored == 30, "they are stored")
        assert ingest.stats().rejected == 0
        with closing(sqlite3.connect(ingest.db_path)) as db:
            rows = db.execute("SELECT id, boot, seq, mono_ns, lane, model, data FROM events ORDER BY seq").fetchall()
    assert [row[2] for row in rows] == list(range(1, 31))
    assert all(row[0] == f"{row[1]}:{row[2]}" and row[3] == 999 + row[2] for row in rows)
    assert {row[4:6] for row in rows} == {("telemetry", "demo/onnx-int8")}
    assert json.loads(rows[0][6])["detections"]


def test_an_old_broker_takes_json_without_a_content_type(tmp_path: Path) -> None:
    with running_mosquitto(tmp_path) as mosquitto:
        reader = Inside(mosquitto.port, ("edgecv/#",))
        sink = open_sink(f"{mosquitto.url}?protocol=3.1.1", tmp_path / "outbox", drain_s=15.0)
        sink.emit(make_result())
        sink.close()
        until(lambda: reader.documents("edgecv/acme/cam-1/ev"), "it arrives")
        reader.close()
    assert sink.stats().protocol == "3.1.1"
