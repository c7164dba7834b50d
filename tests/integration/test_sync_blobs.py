"""Pictures of events, from a frame to a file: through a real broker, to a real HTTP server, with kills in the middle."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv._internal.timing import Backoff
from edgecv.cloud_sync.blobs.options import SnapshotOptions, UploadPace
from edgecv.cloud_sync.delivery.options import SendOptions
from edgecv.cloud_sync.ingest.blobs.limits import BlobLimits
from edgecv.cloud_sync.ingest.blobs.signers import parse_signer
from edgecv.cloud_sync.sink import MqttSink
from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.results import Frame, Result
from tests.unit.cloud_sync.object_store import Behaviour, ObjectStore, hang, lie, refuse, refuse_unread, take
from tests.unit.cloud_sync.support import (
    FAST,
    SMALL,
    Child,
    Mosquitto,
    counts,
    running_ingest,
    running_mosquitto,
    stored_ids,
    until,
)

QUICK = Backoff(initial_s=0.05, cap_s=0.2)
PACE = UploadPace(ask=Backoff(initial_s=0.5, cap_s=1.0), put=QUICK, part=Backoff(initial_s=0.5, cap_s=1.0), calm_s=0.02)
SEND = SendOptions(resend=Backoff(initial_s=0.5, cap_s=1.0), reconnect=FAST, snapshots=PACE)
LIMITS = BlobLimits(floor_bytes=0)
OPTIONS: dict[str, Any] = {"events": ["line.*"], "free_mb": 0, "url_hosts": ["127.0.0.1"], "max_per_minute": 6000}


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with running_mosquitto(tmp_path) as broker:
        yield broker


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    with ObjectStore() as running:
        yield running


def open_sink(url: str, folder: Path, drain_s: float = 15.0, **options: Any) -> MqttSink:
    chosen = SnapshotOptions(**{**OPTIONS, **options})
    return MqttSink(
        url, tenant="acme", device="cam-1", outbox=folder, limits=SMALL, options=SEND, drain_s=drain_s, snapshots=chosen
    )


def pictured(seed: int, side: int = 320, kinds: Sequence[str] = ("line.crossed",)) -> Result:
    """A frame of noise, which makes large JPEGs, and its events."""
    image = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    events = tuple(Event(kind=kind, time_ns=1_700_000_000_000_000_000, source_id="cam") for kind in kinds)
    return Result(frame=Frame(image=image, source_id="cam"), events=events)


def blob_rows(db_dir: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(f"file:{db_dir / 'landing.db'}?mode=ro", uri=True, timeout=5.0)) as db:
        db.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in db.execute("SELECT * FROM blobs ORDER BY first_seen_ns")]
        except sqlite3.OperationalError:
            return []


def snapshots_of_events(db_dir: Path) -> list[dict[str, Any] | None]:
    with closing(sqlite3.connect(db_dir / "landing.db", timeout=5.0)) as db:
        return [json.loads(data).get("snapshot") for (data,) in db.execute("SELECT data FROM events ORDER BY seq")]


def waiting(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "blobs").iterdir())


def test_a_picture_goes_to_the_signed_url_and_its_event_names_it(
    mosquitto: Mosquitto, store: ObjectStore, tmp_path: Path
) -> None:
    signer = parse_signer(store.signer_uri(tmp_path))
    with running_ingest(mosquitto.url, tmp_path / "db", blobs=LIMITS, signer=signer) as ingest:
        sink = open_sink(mosquitto.url, tmp_path / "outbox")
        sink.emit(pictured(1, kinds=("line.crossed", "zone.entered")))
        sink.close()
    stats = sink.stats()
    assert (stats.emitted, stats.accepted, stats.snapshots, stats.snapshots_sent) == (2, 2, 1, 1), counts(stats)
    ((path, data),) = store.objects.items()
    sha256 = hashlib.sha256(data).hexdigest()
    assert path == f"/pictures/field/acme/cam-1/{sha256}.jpg"
    assert data[:2] == b"\xff\xd8"
    (row,) = blob_rows(tmp_path / "db")
    assert (row["sha256"], row["tenant"], row["device"], row["state"]) == (sha256, "acme", "cam-1", "stored")
    assert (row["bytes"], row["type"], row["named"]) == (len(data), "image/jpeg", 1)
    assert row["place"] == f"s3:/{path}"
    named = [one for one in snapshots_of_events(tmp_path / "db") if one]
    assert named == [{"sha256": sha256, "bytes": len(data), "type": "image/jpeg"}]
    assert waiting(tmp_path / "outbox") == []
    assert ingest.stats().blobs == 1


def test_without_urls_pictures_come_in_parts_to_a_private_file(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with running_ingest(mosquitto.url, tmp_path / "db", blobs=LIMITS):
        sink = open_sink(mosquitto.url, tmp_path / "outbox")
        for seed in range(3):
            sink.emit(pictured(seed, side=480))
        sink.close()
    rows = blob_rows(tmp_path / "db")
    assert [row["state"] for row in rows] == ["stored"] * 3, counts(sink.stats())
    for row in rows:
        path = tmp_path / "db" / row["place"]
        assert path == tmp_path / "db" / "blobs" / row["sha256"][:2] / row["sha256"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]
        assert row["bytes"] > 3 * 48 * 1024  # several windows
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert waiting(tmp_path / "outbox") == []


@pytest.mark.parametrize(
    ("behaviours", "ends_at_url"),
    [
        ([refuse(500), refuse(503), take], True),
        ([refuse(403), take], True),
        ([refuse_unread] * 9, False),
        ([hang] * 9, False),
        ([refuse(302, Location="http://127.0.0.1:9/elsewhere")] * 9, False),
        pytest.param([refuse(403)] * 9, False, marks=pytest.mark.slow),
        pytest.param([refuse(500)] * 9, False, marks=pytest.mark.slow),
    ],
    ids=["500 then taken", "403 then taken", "403 before the body", "no answer", "redirect", "403", "500"],
)
def test_a_server_that_fails_is_asked_again_and_then_left_for_mqtt(
    mosquitto: Mosquitto, store: ObjectStore, tmp_path: Path, behaviours: list[Behaviour], ends_at_url: bool
) -> None:
    store.behaviours = behaviours
    signer = parse_signer(store.signer_uri(tmp_path))
    with running_ingest(mosquitto.url, tmp_path / "db", blobs=LIMITS, signer=signer):
        sink = open_sink(mosquitto.url, tmp_path / "outbox", timeout_s=0.2 if hang in behaviours else 5.0)
        sink.emit(pictured(1))
        sink.close()
    (row,) = blob_rows(tmp_path / "db")
    assert row["state"] == "stored", counts(sink.stats())
    assert row["place"].startswith("s3://" if ends_at_url else "blobs/")
    assert len(store.objects) == ends_at_url
    assert store.puts >= 2
    shown = repr(sink.stats())
    assert "X-Amz" not in shown
    assert "/field" not in shown


def test_an_upload_that_is_not_there_is_not_believed(mosquitto: Mosquitto, store: ObjectStore, tmp_path: Path) -> None:
    store.behaviours = [lie]
    signer = parse_signer(store.signer_uri(tmp_path))
    with running_ingest(mosquitto.url, tmp_path / "db", blobs=LIMITS, signer=signer) as ingest:
        sink = open_sink(mosquitto.url, tmp_path / "outbox", drain_s=0.0)
        sink.emit(pictured(1))
        until(lambda: ingest.stats().blobs_refused, "the upload is looked for")
        assert [row["state"] for row in blob_rows(tmp_path / "db")] == ["expected"]
        sink.close()
    assert len(waiting(tmp_path / "outbox")) == 1


def test_a_url_of_another_host_gets_nothing(mosquitto: Mosquitto, store: ObjectStore, tmp_path: Path) -> None:
    signer = parse_signer(store.signer_uri(tmp_path))
    with running_ingest(mosquitto.url, tmp_path / "db", blobs=LIMITS, signer=signer):
        sink = open_sink(mosquitto.url, tmp_path / "outbox", url_hosts=["pictures.example"])
        sink.emit(pictured(1))
        sink.close()
    (row,) = blob_rows(tmp_path / "db")
    assert row["place"].startswith("blobs/")
    assert store.puts == 0


def test_a_program_may_give_the_urls_and_nobody_looks(mosquitto: Mosquitto, store: ObjectStore, tmp_path: Path) -> None:
    program = tmp_path / "sign.py"
    program.write_text(
        "import json, sys\nasked = json.load(sys.stdin)\n"
        f"print(json.dumps({{'url': '{store.endpoint}/x/' + asked['sha256'] + '?sig=hidden', 'place': 'mine'}}))\n"
    )
    store.behaviours = [lie]
    signer = parse_signer(f"command:python3 {program}")
    with running_ingest(mosquitto.url, tmp_path / "db", blobs=LIMITS, signer=signer):
        sink = open_sink(mosquitto.url, tmp_path / "outbox")
        sink.emit(pictured(1))
        sink.close()
    (row,) = blob_rows(tmp_path / "db")
    assert (row["state"], row["place"]) == ("claimed", "mine")


def test_a_signer_that_breaks_leaves_the_parts(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with running_ingest(mosquitto.url, tmp_path / "db", blobs=LIMITS, signer=parse_signer("command:false")):
        sink = open_sink(mosquitto.url, tmp_path / "outbox")
        sink.emit(pictured(1))
        sink.close()
    (row,) = blob_rows(tmp_path / "db")
    assert row["place"].startswith("blobs/")


def test_events_do_not_wait_for_a_cloud_that_takes_no_pictures(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with running_ingest(mosquitto.url, tmp_path / "db", blobs=BlobLimits(device_bytes=1000, floor_bytes=0)):
        sink = open_sink(mosquitto.url, tmp_path / "outbox", drain_s=0.0)
        for seed in range(5):
            sink.emit(pictured(seed))
            time.sleep(0.03)
        until(lambda: len(stored_ids(tmp_path / "db")) == 5, "all events are there")
        sink.close()
    assert {row["state"] for row in blob_rows(tmp_path / "db")} == {"expected"}
    assert len(waiting(tmp_path / "outbox")) == sink.stats().snapshots_waiting == sink.stats().snapshots > 0


def test_a_picture_that_does_not_come_is_missing_and_may_still_come(mosquitto: Mosquitto, tmp_path: Path) -> None:
    sink = open_sink(mosquitto.url, tmp_path / "outbox", drain_s=0.0)
    sink.emit(pictured(1))
    until(lambda: sink.stats().snapshots_waiting == 1 and sink.stats().accepted == 1, "both are on disk")
    sink.close()
    (name,) = waiting(tmp_path / "outbox")
    data = (tmp_path / "outbox" / "blobs" / name).read_bytes()
    (tmp_path / "outbox" / "blobs" / name).unlink()
    hasty = BlobLimits(missing_after_s=0.0, floor_bytes=0)
    with running_ingest(mosquitto.url, tmp_path / "db", blobs=hasty):
        open_sink(mosquitto.url, tmp_path / "outbox").close()
    with running_ingest(mosquitto.url, tmp_path / "db", blobs=hasty):
        until(lambda: [row["state"] for row in blob_rows(tmp_path / "db")] == ["missing"], "it is called missing")
        (tmp_path / "outbox" / "blobs" / name).write_bytes(data)
        open_sink(mosquitto.url, tmp_path / "outbox").close()
    assert [(row["state"], row["named"]) for row in blob_rows(tmp_path / "db")] == [("stored", 1)]


@pytest.mark.parametrize("kills", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_a_device_killed_in_the_middle_loses_no_picture_that_was_on_disk(
    mosquitto: Mosquitto, store: ObjectStore, tmp_path: Path, kills: int
) -> None:
    outbox, db = tmp_path / "outbox", tmp_path / "db"
    seen: set[str] = set()
    signer = parse_signer(store.signer_uri(tmp_path))
    with running_ingest(mosquitto.url, db, blobs=LIMITS, signer=signer):
        for kill in range(kills):
            upload = ("mqtt", "auto")[kill % 2]
            before = len(stored_ids(db))
            with Child("pictures", mosquitto.url, outbox, upload, 10_000) as device:
                until(lambda before=before: len(stored_ids(db)) > before + 6, f"events before kill {kill}")
                device.kill()
            seen |= {name.partition(".")[0] for name in waiting(outbox) if not name.startswith(".")}
        with Child("pictures", mosquitto.url, outbox, "auto", 1) as device:
            assert device.wait(80.0) == 0
    assert waiting(outbox) == []
    rows = {row["sha256"]: row for row in blob_rows(db)}
    assert seen
    assert {rows[sha256]["state"] for sha256 in seen} == {"stored"}
    # An event goes to disk beside its picture, not behind it: each kill may part one or a few of them.
    apart = [row for row in rows.values() if row["state"] != "stored"]
    assert {row["state"] for row in apart} <= {"expected"}
    assert len(apart) <= kills * 5
    for row in rows.values():
        if row["place"].startswith("blobs/"):
            assert hashlib.sha256((db / row["place"]).read_bytes()).hexdigest() == row["sha256"]


@pytest.mark.slow
def test_an_ingest_killed_in_the_middle_gets_every_picture(mosquitto: Mosquitto, tmp_path: Path) -> None:
    outbox, db = tmp_path / "outbox", tmp_path / "db"
    sink = open_sink(mosquitto.url, outbox, upload="mqtt")
    for seed in range(4):
        sink.emit(pictured(seed, side=480))
        until(lambda seed=seed: sink.stats().snapshots_waiting == seed + 1, "it is on disk")
    for count in (1, 2):
        with Child("ingest", mosquitto.url, db) as ingest:
            until(lambda count=count: len([r for r in _rows(db) if r["state"] == "stored"]) >= count, "a picture")
            ingest.kill()
    with running_ingest(mosquitto.url, db, blobs=LIMITS):
        sink.close()
    assert [row["state"] for row in blob_rows(db)] == ["stored"] * 4, counts(sink.stats())


def _rows(db: Path) -> list[dict[str, Any]]:
    return blob_rows(db) if (db / "landing.db").exists() else []


def test_pictures_need_an_ingest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Snapshots need an ingest"):
        MqttSink(
            "mqtt://localhost",
            tenant="t",
            device="d",
            outbox=tmp_path,
            ack="broker",
            snapshots=SnapshotOptions(events=["*"]),
        )


def test_pictures_that_are_given_up_stand_in_the_loss_ledger(mosquitto: Mosquitto, tmp_path: Path) -> None:
    sink = open_sink(mosquitto.url, tmp_path / "outbox", drain_s=0.0, quota_mb=0.1)
    for seed in range(3):
        sink.emit(pictured(seed))
        until(lambda seed=seed: sink.stats().snapshots == seed + 1, "a picture")
    until(lambda: sink.stats().snapshots_dropped == 2, "only one fits")
    sink.close()
    with running_ingest(mosquitto.url, tmp_path / "db", blobs=LIMITS):
        open_sink(mosquitto.url, tmp_path / "outbox").close()
    with closing(sqlite3.connect(tmp_path / "db" / "landing.db")) as db:
        (data,) = db.execute("SELECT data FROM events WHERE type = 'edgecv.event.sync.losses'").fetchone()
    losses = json.loads(data)["losses"]
    assert {one["lane"] for one in losses} == {"blob"}
    assert {one["reason"] for one in losses} <= {
        "evicted",
        "refused_full",
    }  # the one under way is not dropped for another
    assert sum(one["count"] for one in losses) == 2
