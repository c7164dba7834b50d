"""The views of a store, what a query may do, and how it answers."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edgecv.cloud_sync.ingest.database import EventDatabase
from edgecv.cloud_sync.store.manifest import read_manifest
from edgecv.cloud_sync.store.sql.output import rows_of, write_file
from edgecv.cloud_sync.store.sql.query import Answers, Bounds, open_answers
from edgecv.cloud_sync.store.writer import StoreWriter
from edgecv.errors import ConfigError, EdgeCVError, SyncError
from tests.command_line import run_here
from tests.unit.cloud_sync.store_support import NEVER, NOON_S, ask, box, event, merge, store, value


@pytest.fixture(params=["hot", "merged"])
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Every kind of event, in landing.db or in Parquet: the answers are the same."""
    results = [
        event(seq, {"index": seq, "source_id": "door", "age_ms": 4.5, "frame_wh": [640, 480], "detections": boxes})
        for seq, boxes in ((1, [box(), box("dog", class_id=2)]), (2, []), (3, [box(keypoints=[[1, 2, 0.5]])]))
    ]
    crossed = {"source_id": "door", "counter": "gate", "direction": "in", "total": 3, "tracker_id": 7, "label": "cat"}
    entered = {"source_id": "door", "counter": "yard", "how": "crossed", "total": 1, "inside": 1}
    happened = [
        event(4, {"source_id": "door"}, kind="edgecv.event.source.live"),
        event(
            5,
            {"source_id": "door", "code": "gone", "error": "no route"},
            kind="edgecv.event.source.lost",
            at_s=NOON_S + 1,
        ),
        event(6, crossed, kind="edgecv.event.line.crossed"),
        event(7, entered, kind="edgecv.event.zone.entered"),
        event(8, {"total": 12, "losses": []}, kind="edgecv.event.sync.losses", at_s=NOON_S, received_s=NOON_S + 5),
    ]
    store(tmp_path, [*results, *happened])
    if request.param == "merged":
        merge(tmp_path)
    return tmp_path


def test_detections_are_typed_columns(filled: Path) -> None:
    rows = ask(filled, "SELECT * FROM detections ORDER BY seq, n")
    assert [(row["seq"], row["n"], row["class_name"], row["class_id"]) for row in rows] == [
        (1, 0, "cat", 1),
        (1, 1, "dog", 2),
        (3, 0, "cat", 1),
    ]
    first = rows[0]
    assert (first["camera"], first["frame"], first["track_id"], first["score"]) == ("door", 1, 7, 0.5)
    assert [round(first[edge], 6) for edge in ("x1", "y1", "x2", "y2")] == [0.1, 0.1, 0.2, 0.2]
    assert json.loads(rows[2]["extra"]) == {"keypoints": [[1, 2, 0.5]]}
    assert str(first["date"]), first["hour"] == ("2026-11-20", 12)


def test_events_keep_the_rest_of_their_payload(filled: Path) -> None:
    (row,) = ask(filled, "SELECT * FROM events WHERE seq = 1")
    assert (row["objects"], row["age_ms"], row["frame_width"], row["id"]) == (2, 4.5, 640, "7:1")
    assert json.loads(row["data"]) == {"index": 1, "source_id": "door", "age_ms": 4.5, "frame_wh": [640, 480]}
    assert value(filled, "SELECT objects FROM events WHERE seq = 2") == 0
    assert value(filled, "SELECT data->>'$.direction' FROM events WHERE kind = 'line.crossed'") == "in"


def test_counts_sources_and_devices(filled: Path) -> None:
    rows = ask(filled, "SELECT counter, direction, total, inside, class_name FROM counts ORDER BY counter")
    assert [tuple(row.values()) for row in rows] == [("gate", "in", 3, None, "cat"), ("yard", "entered", 1, 1, None)]
    (source,) = ask(filled, "SELECT * FROM sources")
    assert (source["camera"], source["state"], source["code"], source["message"]) == (
        "door",
        "lost",
        "gone",
        "no route",
    )
    assert (source["frames"], source["times_live"]) == (3, 1)
    (device,) = ask(filled, "SELECT * FROM devices")
    assert (device["device"], device["events"], device["starts"], device["lost"]) == ("cam-1", 8, 1, 12)
    assert (device["lag_s"], device["model"]) == (5.0, "demo/onnx-int8")


def test_strange_payloads_are_kept_as_text_and_spoil_nothing(tmp_path: Path) -> None:
    deep: object = 1
    for _ in range(400):
        deep = [deep]
    strange: list[dict[str, object]] = [
        {"detections": 5},
        {"detections": [{"class_id": 10**30, "confidence": 1}]},
        {"detections": [{"class_id": 1}], "source_id": "it's; DROP TABLE events --"},
        {"index": 10**30, "source_id": "cam", "total": "many"},
        {"source_id": "nul\0nul", "detections": [box("\0'\"")]},
        {"source_id": ["no", "text"], "counter": {"a": 1}},
        {"deep": deep, "detections": []},
        {"detections": [box(confidence=1e300, xyxyn=None)], "frame_wh": [0, 0]},
        {"source_id": "x" * 5000},
        {"\u202e": "😀 ünïcode", "detections": [box(label=5)]},
    ]
    store(tmp_path, [event(seq, data, kind="it's\ta 'kind'") for seq, data in enumerate(strange, 1)])
    hot = ask(tmp_path, "SELECT * FROM events ORDER BY seq")
    merge(tmp_path)
    assert ask(tmp_path, "SELECT * FROM events ORDER BY seq") == hot
    kept = [json.loads(row["data"]) for row in hot]
    for found, data in zip(kept, strange, strict=True):
        assert found in (data, {key: one for key, one in data.items() if key != "detections"})
    assert [row["camera"] for row in hot][2:5] == ["it's; DROP TABLE events --", "cam", "nul\0nul"]
    assert value(tmp_path, "SELECT count(*) FROM detections") == 2


def test_names_that_sql_could_take_for_something_else(tmp_path: Path) -> None:
    names = ["NULL", "null", "__HIVE_DEFAULT_PARTITION__", "007", "1e3", "-", "a..b"]
    folder = tmp_path / "sto're [1] *?"
    store(folder, [event(1, tenant=name, device=name) for name in names])
    merge(folder)
    found = ask(folder, "SELECT tenant, device FROM events")
    assert sorted((row["tenant"], row["device"]) for row in found) == sorted((name, name) for name in names)
    store(folder, [event(2, tenant=name, device=name) for name in names])
    merge(folder)  # rewritten by DuckDB
    assert value(folder, "SELECT count(*) FROM detections WHERE tenant = '007'") == 2


def test_a_folder_that_would_change_the_tenant_is_refused(tmp_path: Path) -> None:
    store(tmp_path / "tenant=evil" / "db", [event(1)])
    with pytest.raises(ConfigError, match="tenant=evil"):
        value(tmp_path / "tenant=evil" / "db", "SELECT 1")


@pytest.fixture(scope="module")
def one_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Answers]]:
    """A store with one event in Parquet and one that is not, open for queries."""
    folder = tmp_path_factory.mktemp("store")
    store(folder, [event(1)])
    merge(folder)
    store(folder, [event(2)])
    with open_answers([folder]) as answers:
        yield folder, answers


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_csv('http://127.0.0.1:9/x.csv')",
        "SELECT * FROM read_text('{store}/landing.db')",
        "SELECT * FROM read_text('{store}/parquet/../landing.db')",
        "COPY (SELECT 1) TO '{store}/parquet/x.csv'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{store}/parquet/x.csv'",
        "ATTACH '{store}/parquet/x.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET threads = 64",
        "PRAGMA database_list",
        "CREATE TABLE t AS SELECT 1",
        "DELETE FROM store_0.hot_events",
        "SELECT 1; SELECT 2",
        "",
        "SELECT",
        "SELECT nothing FROM events",
        "SELECT * FROM strange",
        "SELECT CAST('x' AS INTEGER)",
        "SELECT getenv('HOME')",
    ],
)
def test_a_query_that_does_more_than_read_the_store_is_refused(one_store: tuple[Path, Answers], sql: str) -> None:
    folder, answers = one_store
    strange = [{"a": 1}]  # what DuckDB would find in the program by itself
    with pytest.raises(ConfigError) as refused:
        answers.run(sql.format(store=folder), list)
    assert strange and "\n" not in refused.value.message
    assert not list(folder.glob("parquet/x*"))
    assert answers.run("SELECT count(*) AS n FROM events", lambda reader: reader.read_all().to_pylist()) == [{"n": 2}]


def test_a_query_that_needs_too_much_memory_says_so(tmp_path: Path) -> None:
    store(tmp_path, [event(1)])
    with open_answers([tmp_path], Bounds(memory_mb=64, threads=1)) as answers, pytest.raises(SyncError, match="memory"):
        answers.run("SELECT list(range) FROM range(100000000)", lambda reader: reader.read_all())


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SyncError, match="no store"):
        value(tmp_path, "SELECT 1")
    assert list(tmp_path.iterdir()) == []


def test_two_members_give_each_event_once(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    store(one, [event(seq) for seq in range(1, 21)])
    store(two, [event(seq) for seq in range(11, 31)])
    other = event(5, {"index": 77})
    store(one, [other])
    store(two, [other])  # there it has its id: nobody had it before
    for merged in (None, one, two):
        if merged is not None:
            merge(merged)
        assert value([one, two], "SELECT count(*) FROM events") == 31
        assert value([two, one], "SELECT count(*) FROM detections") == 30
    with pytest.raises(ConfigError, match="twice"):
        value([one, tmp_path / "two" / ".." / "one"], "SELECT 1")


def test_a_store_without_its_landing_database_answers_from_parquet(tmp_path: Path) -> None:
    store(tmp_path / "db", [event(1)])
    merge(tmp_path / "db")
    shutil.copytree(tmp_path / "db" / "parquet", tmp_path / "copy" / "parquet")
    shutil.copy(tmp_path / "db" / "manifest.json", tmp_path / "copy")
    assert value(tmp_path / "copy", "SELECT count(*) FROM events") == 1


def test_queries_beside_a_merge_see_every_event_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecv.cloud_sync.store.writer._SETTLED_AT_ONCE", 25)
    store(tmp_path, [event(seq, at_s=NOON_S + seq % 4 * 3600) for seq in range(1, 201)])
    landing = EventDatabase(tmp_path)
    done = threading.Event()

    def work() -> None:
        writer = StoreWriter(landing)
        writer.merge(NEVER)
        for late in range(2):
            landing.store([event(1000 + late * 4 + hour, at_s=NOON_S + hour * 3600) for hour in range(4)], [])
            writer.merge(NEVER)
            writer.compact(NEVER)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    seen = []
    while not done.is_set():
        try:
            seen.append(ask(tmp_path, "SELECT count(*) AS n, count(DISTINCT id) AS ids FROM events")[0])
        except SyncError as error:
            assert "change all the time" in error.message  # the merge of a moment, on a slow machine
    thread.join()
    landing.close()
    assert seen and all(one["n"] == one["ids"] >= 200 for one in seen), seen
    assert value(tmp_path, "SELECT count(*) FROM events") == 208


def test_an_interrupted_query_ends_at_once(tmp_path: Path) -> None:
    store(tmp_path, [event(1)])
    with open_answers([tmp_path]) as answers:
        threading.Timer(0.5, answers.interrupt).start()
        began_s = time.monotonic()
        with pytest.raises(EdgeCVError):
            answers.run("SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range % 7 = 3", list)
        assert time.monotonic() - began_s < 10


def test_rejected_messages_and_blobs_are_views(tmp_path: Path) -> None:
    store(tmp_path, [event(1)])
    with closing(sqlite3.connect(tmp_path / "landing.db")) as db:
        db.execute(
            "INSERT INTO rejected (received_ns, topic, reason, bytes, sample) VALUES (1000, 't', 'bad', 3, x'00ff')"
        )
        db.execute("INSERT INTO blobs VALUES ('ab', 'acme', 'cam-1', 5, 'image/jpeg', 'missing', '', 1000, NULL, 1, 1)")
        db.commit()
    assert value(tmp_path, "SELECT reason FROM rejected") == "bad"
    assert value(tmp_path, "SELECT state FROM blobs WHERE stored IS NULL") == "missing"


def test_a_difference_of_times_is_seconds(tmp_path: Path) -> None:
    store(tmp_path, [event(1)])
    with open_answers([tmp_path]) as answers:
        sql = "SELECT INTERVAL 1 DAY + INTERVAL 2 SECOND AS a, CAST(NULL AS INTERVAL) AS b, INTERVAL 1 MONTH AS c"
        (row,) = answers.run(sql, lambda reader: list(rows_of(reader)))
        assert row == [86_402.0, None, "1 months 0 s"]
        with pytest.raises(ConfigError, match="interval a") as refused:
            answers.run(sql, lambda reader: write_file(reader, tmp_path / "a.parquet", "parquet"))
    assert "epoch" in refused.value.hint
    assert not (tmp_path / "a.parquet").exists()


@pytest.mark.parametrize("sql", ["SELECT 'infinity'::TIMESTAMP", "SELECT TIMESTAMP_NS '2026-01-01 00:00:00.123456789'"])
def test_a_value_that_json_and_csv_cannot_hold_is_said(tmp_path: Path, sql: str) -> None:
    store(tmp_path, [event(1)])
    done = run_here("query", sql, "--db", str(tmp_path), "--format", "json", "--to", str(tmp_path / "a.json"))
    assert (done.returncode, "::VARCHAR" in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "a.json").exists()


def test_a_file_that_turns_out_to_be_damaged_between_two_rows_is_said_too(tmp_path: Path) -> None:
    store(tmp_path, [event(1)])

    def stumble(about: str) -> None:
        raise OSError(f"Invalid Input Error: No magic bytes found at end of file '{about}'")

    with open_answers([tmp_path]) as answers, pytest.raises(SyncError) as damaged:
        answers.run("SELECT 1", lambda _: stumble(f"{tmp_path}/parquet/events/part-1.parquet"))
    assert "store verify" in damaged.value.hint
    with open_answers([tmp_path]) as answers, pytest.raises(OSError, match="answer"):
        answers.run("SELECT 1", lambda _: stumble("/else/answer.csv"))


@pytest.mark.parametrize("number", [0, 1])
def test_a_damaged_file_is_no_fault_of_the_query(tmp_path: Path, number: int) -> None:
    store(tmp_path, [event(1), event(2, at_s=NOON_S + 86400)])
    merge(tmp_path)
    (tmp_path / read_manifest(tmp_path).parts[number].events.path).write_bytes(b"x" * 100)
    done = run_here("query", "SELECT seq FROM events", "--db", str(tmp_path))
    assert (done.returncode, "store verify" in done.stderr) == (1, True), done.stderr
