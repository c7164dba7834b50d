"""Which events go to the cloud, and which of them people are told of: through a real broker to a real ingest."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgecv.cloud_sync.blobs.options import SnapshotOptions
from edgecv.cloud_sync.delivery.options import SendOptions
from edgecv.cloud_sync.ingest.blobs.limits import BlobLimits
from edgecv.cloud_sync.notify import NotifyOptions
from edgecv.cloud_sync.sink import MqttSink
from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.pipelines.sinks import open_sink
from tests.command_line import run_here
from tests.unit.cloud_sync.support import FAST, SMALL, Mosquitto, counts, running_ingest, running_mosquitto
from tests.unit.pipelines.made_results import made_result

SEND = SendOptions(reconnect=FAST)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with running_mosquitto(tmp_path) as broker:
        yield broker


def sink_to(url: str, folder: Path, **options: Any) -> MqttSink:
    return MqttSink(
        url, tenant="acme", device="cam-1", outbox=folder, limits=SMALL, options=SEND, **{"drain_s": 20.0, **options}
    )


def made(kind: str, at_s: float, **more: Any) -> Event:
    return Event(
        kind=kind, time_ns=1_700_000_000_000_000_000 + round(at_s * 1e9), source_id="door", data={"n": at_s}, **more
    )


def stored(db_dir: Path) -> list[tuple[str, dict[str, Any]]]:
    """Type and data of every event, in the order of the device."""
    with closing(sqlite3.connect(f"file:{db_dir / 'landing.db'}?mode=ro", uri=True, timeout=5.0)) as db:
        rows = db.execute("SELECT type, data FROM events ORDER BY boot, seq").fetchall()
    return [(kind.removeprefix("edgecv.event."), json.loads(data)) for kind, data in rows]


@pytest.mark.parametrize(
    ("events", "kinds"),
    [
        ("events", ["line.crossed", "zone.left", "crowd.began", "source.stale"]),
        ("detections", ["edgecv.result", "line.crossed", "zone.left", "crowd.began", "source.stale"]),
        ("all", ["edgecv.result", "edgecv.result", "line.crossed", "zone.left", "crowd.began", "source.stale"]),
        (["line.crossed", "zone.*"], ["line.crossed", "zone.left"]),
        ("source.*,crowd.began", ["crowd.began", "source.stale"]),
    ],
)
def test_what_is_sent_is_what_was_chosen(
    mosquitto: Mosquitto, tmp_path: Path, events: str | Sequence[str], kinds: list[str]
) -> None:
    with running_ingest(mosquitto.url, tmp_path / "db"):
        sink = sink_to(mosquitto.url, tmp_path / "outbox", events=events)
        sink.emit(made_result(0.0, class_ids=()))
        sink.emit(
            made_result(0.1, events=tuple(made(kind, 0.1) for kind in ("line.crossed", "zone.left", "crowd.began")))
        )
        sink.emit_event(made("source.stale", 0.2))
        sink.close()
    assert [kind for kind, _ in stored(tmp_path / "db")] == kinds
    stats = sink.stats()
    assert stats.emitted == stats.accepted == len(kinds), counts(stats)
    assert stats.refused == stats.evicted == 0, "what was not chosen is no loss"


def test_a_wrong_choice_says_what_is_valid(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'event' is no choice") as caught:
        sink_to("mqtt://127.0.0.1:9", tmp_path / "outbox", events="event")
    assert "Did you mean 'events'?" in caught.value.hint
    assert not (tmp_path / "outbox").exists()


def test_limits_hold_back_the_mark_and_never_an_event(mosquitto: Mosquitto, tmp_path: Path) -> None:
    notify = NotifyOptions(events=("line.crossed", "source.*"), at_most="3/h")
    with running_ingest(mosquitto.url, tmp_path / "db"):
        sink = sink_to(mosquitto.url, tmp_path / "outbox", events="events", notify=notify)
        for number in range(500):
            sink.emit(made_result(number / 10, events=(made("line.crossed", number), made("zone.left", number))))
        sink.emit_event(made("source.failed", 501, priority="alarm"))
        sink.close()
    found = stored(tmp_path / "db")
    assert Counter(kind for kind, _ in found) == {"line.crossed": 500, "zone.left": 500, "source.failed": 1}
    marks = [(kind, data["n"], data["notify"]) for kind, data in found if "notify" in data]
    assert [(kind, at) for kind, at, _ in marks] == [
        ("line.crossed", 0), ("line.crossed", 1), ("line.crossed", 2), ("source.failed", 501)
    ]  # fmt: skip
    assert marks[-1][2] == {"more": 497, "held_back": {"line.crossed": 497}}
    stats = sink.stats()
    assert (stats.notified, stats.held_back, stats.accepted) == (4, 497, 1001), counts(stats)


def test_a_state_with_the_mark_is_not_replaced_by_a_newer_one(tmp_path: Path) -> None:
    sink = sink_to("mqtt://127.0.0.1:9", tmp_path / "outbox", notify=NotifyOptions(at_most="1/h"), drain_s=0.0)
    for number in range(5):
        sink.emit_event(made("source.reconnecting", number, coalesce_key="source/door/reconnecting"))
    sink.close()  # nobody is there: all waits
    stats = sink.stats()
    assert stats.accepted == 5
    assert stats.coalesced == 3, "of the four without the mark the newest stays"
    assert stats.pending == 2


@pytest.mark.parametrize("kind", ["line.crossed", "crowd.began", "my.own.kind"])
def test_a_picture_is_named_by_its_hash_for_every_kind_that_is_chosen(
    mosquitto: Mosquitto, tmp_path: Path, kind: str
) -> None:
    options = SnapshotOptions(events=["*"], free_mb=0)
    with running_ingest(mosquitto.url, tmp_path / "db", blobs=BlobLimits(floor_bytes=0)):
        sink = sink_to(
            mosquitto.url, tmp_path / "outbox", events=[kind], snapshots=options, notify=NotifyOptions(cooldown_s=60.0)
        )
        result = made_result(0.0)
        sink.emit(replace(result.with_event(kind, rule="hall"), detections=None))
        sink.emit(made_result(0.1).with_event("other.kind"))
        sink.close()
    ((found, data),) = stored(tmp_path / "db")
    assert found == kind
    assert data["notify"] == {"more": 0, "held_back": {}}
    sha256 = data["snapshot"]["sha256"]
    assert (tmp_path / "db" / "blobs" / sha256[:2] / sha256).stat().st_size == data["snapshot"]["bytes"]
    assert sink.stats().snapshots == 1, "an event that is not sent gets no picture"


def app(tmp_path: Path, text: str) -> str:
    (tmp_path / "app.toml").write_text(
        '[model]\nbundle = "none.ecv"\n[[sources]]\nuri = "synthetic://"\n'
        f'[mqtt]\nurl = "mqtt://127.0.0.1:9"\ntenant = "t"\ndevice = "d"\n{text}'
    )
    return str(tmp_path / "app.toml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('events = "event"', "Did you mean 'events'?"),
        ('events = "crossings"', "line.crossed, zone.*"),
        ('events = ["all", "zone.left"]', "lists 'all', which is no kind of event"),
        ("events = []", "names no kind of event"),
        ('[mqtt.notify]\nat_most = "ten"', "Write a number from 1 to 10000 and a period: 10/h"),
        ("[mqtt.notify]\nevents = []", "names no kind of event"),
        ("[mqtt.notify]\ncooldown = 3", "Did you mean 'cooldown_s'?"),
    ],
)
def test_mistakes_in_the_file_are_said_before_anything_opens(tmp_path: Path, text: str, said: str) -> None:
    done = run_here("run", "--config", app(tmp_path, text))
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "outbox").exists()


@pytest.mark.parametrize("uri", ["mqtt://me@broker.example", "mqtts:broker.example"])
def test_a_broker_among_the_sinks_is_sent_to_its_table(uri: str) -> None:
    with pytest.raises(ConfigError, match="is a broker") as caught:
        open_sink(uri)
    assert all(word in caught.value.hint for word in ("[mqtt]", "--mqtt", "MqttSink"))
    done = run_here("run", "none.ecv", "--source", "synthetic://", "--out", uri)
    assert (done.returncode, "[mqtt] with url, tenant and device" in done.stderr) == (2, True)
