"""``edgecv sync`` beside a run, and with a real broker and ingest."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from edgecv.cli.app import _app
from edgecv.cloud_sync.outbox.limits import OutboxLimits
from edgecv.cloud_sync.outbox.outbox import Outbox
from edgecv.errors import ConfigError, OutboxFull, OutboxLocked, SyncError
from tests.unit.cloud_sync.support import (
    ADDRESS,
    SMALL,
    free_port,
    make_envelope,
    put_accepted,
    running_ingest,
    running_mosquitto,
    stored_ids,
)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(_app(), ["sync", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An outbox with four events, an alarm, a dead letter and a loss, at rest."""
    outbox = Outbox(tmp_path / "outbox", limits=SMALL)
    put_accepted(outbox, 5)
    put_accepted(outbox, 1, priority="alarm")
    with pytest.raises(OutboxFull):
        outbox.put(make_envelope(outbox, bulk=300_000))
    outbox.bury((outbox.boot, 2), "schema: x is no number")
    assert outbox.close()
    return tmp_path / "outbox"


@pytest.fixture
def owned(folder: Path) -> Iterator[Path]:
    """The same, while somebody runs."""
    outbox = Outbox(folder, limits=SMALL)
    yield folder
    assert outbox.close()


def dead_ids(folder: Path) -> list[str]:
    return [letter["id"] for letter in json.loads(call("dead", folder, "--json").stdout)["dead"]]


def test_status_says_what_waits_what_is_dead_and_what_was_lost(folder: Path) -> None:
    document = json.loads(call("status", folder, "--json").stdout)
    assert {name: lane["events"] for name, lane in document["lanes"].items()} == {
        "alarm": 1,
        "event": 4,
        "telemetry": 0,
        "blob": 0,
    }
    assert document["dead"]["events"] == 1
    assert [(loss["reason"], loss["lane"], loss["count"]) for loss in document["losses"]] == [("too_large", "event", 1)]
    assert document["owner"] == ""
    text = call("status", folder).stdout
    assert "1 too_large of lane event" in text
    assert "nothing is sent" in text


def test_status_export_and_the_list_work_while_a_run_owns_the_outbox(owned: Path, tmp_path: Path) -> None:
    assert json.loads(call("status", owned, "--json").stdout)["owner"].isdigit()
    assert len(dead_ids(owned)) == 1
    assert call("export", owned, tmp_path / "events.jsonl").exit_code == 0
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    "arguments", [("dead", "retry", "--all"), ("drain", "--mqtt", "mqtt://127.0.0.1:1")], ids=lambda found: found[0]
)
def test_nothing_is_written_while_a_run_owns_the_outbox(owned: Path, arguments: tuple[str, ...]) -> None:
    before = call("status", owned, "--json").stdout
    refused = call(arguments[0], owned, *arguments[1:])
    assert isinstance(refused.exception, OutboxLocked)
    assert "running process" in refused.exception.message
    assert call("status", owned, "--json").stdout == before


def test_export_writes_events_as_they_are_and_leaves_them(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "events.jsonl"
    assert call("export", folder, target).exit_code == 0
    events = [json.loads(line) for line in target.read_text().splitlines()]
    assert sorted(event["lane"] for event in events) == ["alarm", "event", "event", "event", "event"]
    assert {event["source"] for event in events} == {"edgecv/acme/cam-1"}
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert json.loads(call("status", folder, "--json").stdout)["lanes"]["event"]["events"] == 4
    assert isinstance(call("export", folder, target).exception, ConfigError)  # it exists
    assert call("export", folder, target, "--dead", "--force").exit_code == 0
    assert len(target.read_text().splitlines()) == 1


def test_a_file_that_could_not_be_written_whole_does_not_appear(folder: Path, tmp_path: Path) -> None:
    data = bytearray((folder / "outbox.db").read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    (folder / "outbox.db").write_bytes(data)
    failed = call("export", folder, tmp_path / "events.jsonl")
    assert isinstance(failed.exception, SyncError)
    assert "damaged" in failed.exception.message
    assert not (tmp_path / "events.jsonl").exists()


def test_dead_letters_are_listed_with_their_reason_and_retried(folder: Path) -> None:
    (letter,) = json.loads(call("dead", folder, "--json").stdout)["dead"]
    assert (letter["reason"], letter["type"], letter["lane"]) == (
        "schema: x is no number",
        "edgecv.event.test",
        "event",
    )
    assert letter["died_ns"] > 0
    assert isinstance(call("dead", folder, "retry").exception, ConfigError)
    assert isinstance(call("dead", folder, "retry", "1:1").exception, ConfigError)
    assert call("dead", folder, "retry", letter["id"]).exit_code == 0
    assert dead_ids(folder) == []
    assert json.loads(call("status", folder, "--json").stdout)["lanes"]["event"]["events"] == 5


@pytest.mark.parametrize("command", ["status", "export", "dead", "drain"])
def test_a_folder_without_an_outbox_is_not_made(tmp_path: Path, command: str) -> None:
    more = {"export": [tmp_path / "file"], "drain": ["--mqtt", "mqtt://127.0.0.1:1"]}.get(command, [])
    failed = call(command, tmp_path / "none", *more)
    assert isinstance(failed.exception, SyncError)
    assert not (tmp_path / "none").exists()


def test_drain_sends_everything_and_takes_the_device_from_the_events(folder: Path, tmp_path: Path) -> None:
    with running_mosquitto(tmp_path) as broker, running_ingest(broker.url, tmp_path / "db"):
        done = call("drain", folder, "--mqtt", broker.url, "--timeout-s", 20)
        assert done.exit_code == 0, done.stderr
        assert len(stored_ids(tmp_path / "db")) == 6  # and the report of what was lost
        again = call("drain", folder, "--mqtt", broker.url)
        assert (again.exit_code, "Nothing waits" in again.stderr) == (0, True)


def put_snapshot(folder: Path) -> str:
    """A snapshot that a run left on the disk; gives its name."""
    data = b"\xff\xd8\xff" + bytes(100_000)
    sha256 = hashlib.sha256(data).hexdigest()
    (folder / "blobs").mkdir(mode=0o700)
    (folder / "blobs" / f"{sha256}.jpg").write_bytes(data)
    return sha256


def test_status_says_how_many_snapshots_wait_beside_the_events(folder: Path) -> None:
    assert json.loads(call("status", folder, "--json").stdout)["snapshots"] == {"files": 0, "bytes": 0}
    put_snapshot(folder)
    (folder / "blobs" / ".half.tmp").write_bytes(b"half")
    assert json.loads(call("status", folder, "--json").stdout)["snapshots"] == {"files": 1, "bytes": 100_003}
    assert "snapshots  1, 0.1 MB" in call("status", folder).stdout
    assert (folder / "blobs" / ".half.tmp").exists()  # it only looks


def test_drain_says_that_snapshots_are_left(folder: Path, tmp_path: Path) -> None:
    """No picture leaves a device unless its configuration asks for it."""
    put_snapshot(folder)
    with running_mosquitto(tmp_path) as broker, running_ingest(broker.url, tmp_path / "db"):
        for _ in ("with events", "with snapshots alone"):
            left = call("drain", folder, "--mqtt", broker.url, "--timeout-s", 20)
            assert (left.exit_code, "1 snapshots wait still" in left.stderr) == (1, True), left.stderr
            assert "Nothing waits" not in left.stderr
    assert len(list((folder / "blobs").glob("*.jpg"))) == 1


def test_drain_by_a_configuration_says_what_is_left(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "app.toml"
    table = f'url = "mqtt://127.0.0.1:{free_port()}"\ntenant = "acme"\ndevice = "cam-1"\noutbox = "{folder}"\n'
    config.write_text(f"[mqtt]\n{table}[mqtt.lanes.event]\nttl_s = 1000\n")
    left = call("drain", "--config", config, "--timeout-s", 0.3)
    assert left.exit_code == 1
    assert "wait still" in left.stderr
    assert "cannot be reached" in left.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mqtt", "mqtt://127.0.0.1:1", "--device", "other"], "not of acme/other"),
        ([], "no broker"),
    ],
)
def test_drain_refuses_what_cannot_be_meant(folder: Path, arguments: list[str], words: str) -> None:
    refused = call("drain", folder, *arguments)
    assert isinstance(refused.exception, ConfigError)
    assert words in refused.exception.message
    assert ADDRESS.tenant == "acme"


def test_limits_of_lanes_come_from_the_configuration(tmp_path: Path) -> None:
    from edgecv.cli.app_config import read_app_file
    from edgecv.cli.outbox_limits import outbox_limits

    config = tmp_path / "app.toml"
    config.write_text(
        '[mqtt]\nurl = "mqtt://h"\ntenant = "t"\ndevice = "d"\noutbox_mb = 10\n'
        '[mqtt.lanes.telemetry]\nquota_mb = 2.5\nttl_s = 60\nwhen_full = "refuse"\n'
        "[mqtt.lanes.alarm]\nreserved_mb = 1\n"
    )
    table = read_app_file(config).mqtt
    assert table is not None
    limits = outbox_limits(table)
    assert (limits.quota_bytes, limits.lane_bytes("telemetry"), limits.ttl_s("telemetry")) == (
        10_000_000,
        2_500_000,
        60,
    )
    assert not limits.drops_oldest("telemetry")
    assert (limits.reserved_bytes("alarm"), limits.lane_bytes("event")) == (1_000_000, 10_000_000)
    config.write_text('[mqtt]\nurl = "mqtt://h"\ntenant = "t"\ndevice = "d"\n[mqtt.lanes.telemetri]\nttl_s = 6\n')
    with pytest.raises(ConfigError, match="telemetri") as caught:
        read_app_file(config)
    assert "telemetry" in caught.value.hint


def test_drain_brings_the_pictures_too_where_the_configuration_asks_for_them(tmp_path: Path) -> None:
    folder = tmp_path / "outbox"
    assert Outbox(folder, limits=SMALL).close()
    data = b"\xff\xd8\xff" + b"x" * 1000
    name = f"{hashlib.sha256(data).hexdigest()}.jpg"
    (folder / "blobs").mkdir()
    (folder / "blobs" / name).write_bytes(data)
    config = tmp_path / "app.toml"
    with running_mosquitto(tmp_path) as broker:
        table = f'url = "{broker.url}"\ntenant = "acme"\ndevice = "cam-1"\noutbox = "{folder}"\n'
        config.write_text(f'[mqtt]\n{table}[mqtt.snapshots]\nevents = ["*"]\nupload = "mqtt"\n')
        left = call("drain", "--config", config, "--timeout-s", 0.1)
        assert (left.exit_code, "1 wait still" in left.stderr) == (1, True)
        with running_ingest(broker.url, tmp_path / "db"):
            done = call("drain", "--config", config, "--timeout-s", 20)
        assert (done.exit_code, "1 snapshots delivered" in done.stderr) == (0, True), done.stderr
    assert not (folder / "blobs" / name).exists()


def test_drain_without_a_configuration_keeps_the_dead_letters_of_a_larger_outbox(tmp_path: Path) -> None:
    """Of an outbox of the usual size they may take 8 MB."""
    large = OutboxLimits(quota_bytes=2**30, floor_bytes=0, ballast_bytes=4096)
    outbox = Outbox(tmp_path / "outbox", limits=large)
    put_accepted(outbox, 45, bulk=250_000)
    for seq in range(1, 46):
        assert outbox.bury((outbox.boot, seq), "schema")
    outbox.put(msgspec.structs.replace(make_envelope(outbox), type="x" * 201))
    assert outbox.close()
    with running_mosquitto(tmp_path) as broker, running_ingest(broker.url, tmp_path / "db"):
        done = call("drain", tmp_path / "outbox", "--mqtt", broker.url, "--timeout-s", 20)
    assert (done.exit_code, "1 given up" in done.stderr) == (1, True), done.stderr
    assert len(dead_ids(tmp_path / "outbox")) == 46
