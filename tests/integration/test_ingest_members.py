"""Several ingests that share a broker, and the numbers of one for Prometheus."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from edgecv.cloud_sync.ingest.ingest import Ingest
from edgecv.cloud_sync.ingest.metrics import MAX_LABELLED, IngestCollector
from edgecv.cloud_sync.ingest.seen import DeviceSeen, DevicesSeen
from edgecv.cloud_sync.ingest.stats import IngestStats
from edgecv.cloud_sync.mqtt.topics import Address
from edgecv.cloud_sync.sink import MqttSink
from edgecv.errors import ConfigError
from tests.unit.cloud_sync.support import (
    FAST_SEND,
    ROOT,
    SMALL,
    Mosquitto,
    free_port,
    make_result,
    running_ingest,
    running_mosquitto,
    stored_ids,
    until,
)

DEADLINE_S = 30.0


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with running_mosquitto(tmp_path) as broker:
        yield broker


@contextmanager
def running_command(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """``edgecv ingest`` as a process of its own."""
    command = [sys.executable, "-m", "edgecv", "ingest", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=DEADLINE_S)


def rows(folder: Path) -> int:
    if not (folder / "landing.db").exists():
        return 0
    with closing(sqlite3.connect(folder / "landing.db")) as db:
        tables = db.execute("SELECT count(*) FROM sqlite_master WHERE name='events'").fetchone()[0]
        return int(db.execute("SELECT count(*) FROM events").fetchone()[0]) if tables else 0


def test_three_members_share_the_events_and_one_is_killed(mosquitto: Mosquitto, tmp_path: Path) -> None:
    folders = [tmp_path / f"member-{number}" for number in range(3)]
    members = [running_command("--mqtt", mosquitto.url, "--db", str(folder), "--group", "store") for folder in folders]
    with members[0] as first, members[1], members[2]:
        until(lambda: all((folder / "landing.db").exists() for folder in folders), "three members", DEADLINE_S)
        sink = MqttSink(
            mosquitto.url, tenant="acme", device="cam-1", outbox=tmp_path / "outbox", limits=SMALL, options=FAST_SEND
        )
        emitted = 0
        while min(rows(folder) for folder in folders) < 20:
            assert emitted < 60_000, "not every member got its share"
            emitted = emit_some(sink, emitted)
        first.send_signal(signal.SIGKILL)
        first.wait(DEADLINE_S)
        for _ in range(10):
            emitted = emit_some(sink, emitted)
        until(lambda: not (sink.stats().pending or sink.stats().queued), "all delivered", DEADLINE_S)
        accepted = sink.stats().accepted
        sink.close()
    ids = [name for folder in folders for name in stored_ids(folder)]
    assert accepted == emitted
    # An event that the killed member committed and did not acknowledge lies in another's store as well, under the same id.
    assert len(set(ids)) == emitted
    assert len(ids) - len(set(ids)) <= len(stored_ids(folders[0]))


def emit_some(sink: MqttSink, before: int) -> int:
    for index in range(before, before + 50):
        sink.emit(make_result(index))
    time.sleep(0.05)
    return before + 50


@pytest.mark.parametrize("group", ["", "a/b", "a+", "#", "x" * 65, "a b"])
def test_a_group_that_no_topic_can_hold_is_refused(group: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="group"):
        Ingest("mqtt://localhost", tmp_path / "db", group=group)
    assert not (tmp_path / "db").exists()


def test_the_numbers_of_an_ingest_are_served(mosquitto: Mosquitto, tmp_path: Path) -> None:
    port = free_port()
    asked = ("--mqtt", mosquitto.url, "--db", str(tmp_path / "db"), "--metrics", str(port))
    with running_command(*asked) as process:
        sink = MqttSink(
            mosquitto.url, tenant="acme", device="cam-1", outbox=tmp_path / "outbox", limits=SMALL, options=FAST_SEND
        )
        for index in range(7):
            sink.emit(make_result(index))
        until(lambda: sink.stats().acknowledged == 7, "all stored", DEADLINE_S)
        sink.close()
        mosquitto.publish("edgecv/acme/cam-2/ev", b"no batch")
        until(lambda: 'outcome="rejected"} 1.0' in text_of(port), "the rejected one is counted")
        numbers = text_of(port)
        assert json.loads(urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).read())["ok"] is True
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
        assert process.stderr is not None
        said = process.stderr.read()
    assert f"port {port}" in said and "server process" not in said
    for line in (
        "edgecv_ingest_connected 1.0",
        'edgecv_ingest_events_total{outcome="stored"} 7.0',
        "edgecv_ingest_devices 1.0",
        "edgecv_ingest_devices_active 1.0",
        'edgecv_ingest_device_events_total{device="cam-1",tenant="acme"} 7.0',
        "edgecv_ingest_waiting_messages 0.0",
    ):
        assert line in numbers
    assert "edgecv_ingest_commits_total" in numbers
    assert 'edgecv_ingest_device_lag_seconds{device="cam-1",tenant="acme"}' in numbers


def text_of(port: int) -> str:
    try:
        return str(urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode())
    except OSError:
        return ""


def test_a_port_in_use_is_said(mosquitto: Mosquitto, tmp_path: Path) -> None:
    asked = ["--mqtt", mosquitto.url, "--db", str(tmp_path / "db"), "--metrics", str(mosquitto.port)]
    command = [sys.executable, "-m", "edgecv", "ingest", *asked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 2
    assert str(mosquitto.port) in done.stderr


def test_lag_is_from_the_event_to_its_arrival() -> None:
    devices = DevicesSeen()
    cam = Address(tenant="acme", device="cam-1")
    devices.note(cam, 3, "2026-01-01T00:00:00.500000000Z", 1_767_225_602_500_000_000)
    devices.note(cam, 2, "2026-01-01T00:00:09Z", 1_767_225_602_500_000_000)  # its clock runs ahead
    (seen,) = devices.all()
    assert (seen.events, seen.lag_s) == (5, 0.0)
    devices.note(cam, 1, "2026-01-01T00:00:00.500000000Z", 1_767_225_602_500_000_000)
    assert devices.all()[0].lag_s == pytest.approx(2.0)


def test_the_device_that_was_silent_for_longest_is_forgotten_first() -> None:
    devices = DevicesSeen(limit=2)
    for number in (1, 2, 1, 3):
        devices.note(Address(tenant="acme", device=f"cam-{number}"), 1, "2026-01-01T00:00:00Z", number)
    assert [one.address.device for one in devices.all()] == ["cam-1", "cam-3"]


def test_many_devices_do_not_become_many_series() -> None:
    seen = [
        DeviceSeen(address=Address(tenant="acme", device=f"cam-{n}"), events=1, received_ns=n, lag_s=0.0)
        for n in range(MAX_LABELLED + 5)
    ]
    families = {family.name: family for family in IngestCollector(IngestStats, lambda: seen).collect()}
    assert len(families["edgecv_ingest_device_lag_seconds"].samples) == MAX_LABELLED
    assert families["edgecv_ingest_devices"].samples[0].value == MAX_LABELLED + 5


def test_an_ingest_is_well_again_once_the_disk_takes_what_it_refused(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with (
        running_ingest(mosquitto.url, tmp_path / "db") as ingest,
        closing(sqlite3.connect(tmp_path / "db/landing.db", isolation_level=None)) as other,
    ):
        until(lambda: ingest.stats().connected, "a connection", DEADLINE_S)
        ingest._landing.write(lambda db: db.execute("PRAGMA busy_timeout=50"))  # else it waits for 5 s
        other.execute("BEGIN IMMEDIATE")
        sink = MqttSink(
            mosquitto.url, tenant="acme", device="cam-1", outbox=tmp_path / "outbox", limits=SMALL, options=FAST_SEND
        )
        emit_some(sink, 0)
        until(lambda: "locked" in ingest.stats().last_error, "the commit fails", DEADLINE_S)
        other.execute("ROLLBACK")
        until(lambda: ingest.stats().stored, "it is stored", DEADLINE_S)
        assert ingest.stats().last_error == ""
        sink.close()


def test_members_say_what_an_old_broker_may_not_know(
    mosquitto: Mosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level("WARNING"),
        running_ingest(f"{mosquitto.url}?protocol=3.1.1", tmp_path / "db", group="store") as ingest,
    ):
        until(lambda: ingest.stats().connected, "a connection", DEADLINE_S)
    assert "shared subscriptions" in caplog.text
