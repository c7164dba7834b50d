"""Events leave landing.db for Parquet, once, whenever the process is killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from edgecv.cloud_sync.ingest.database import EventDatabase
from edgecv.cloud_sync.ingest.merged import MergedKey
from edgecv.cloud_sync.store.forget import forget, new_tombstone
from edgecv.cloud_sync.store.layout import Partition, hour_of_event
from edgecv.cloud_sync.store.manifest import read_manifest
from edgecv.cloud_sync.store.parts import PartWriter
from edgecv.cloud_sync.store.retention import retain
from edgecv.cloud_sync.store.verify import verify
from edgecv.cloud_sync.store.writer import StoreWriter
from edgecv.errors import SyncError
from tests.unit.cloud_sync.store_support import NEVER, NOON_S, ask, event, merge, store, value
from tests.unit.cloud_sync.support import ROOT

HOUR_S = 3600


def landed_rows(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "landing.db")) as db:
        return int(db.execute("SELECT count(*) FROM events").fetchone()[0])


def test_merged_events_are_in_one_sorted_file_per_hour(tmp_path: Path) -> None:
    events = [event(seq, device=f"cam-{seq % 3}", at_s=NOON_S + seq % 2 * HOUR_S) for seq in range(1, 61)]
    store(tmp_path, events)
    assert merge(tmp_path) == 60
    assert landed_rows(tmp_path) == 0
    parts = read_manifest(tmp_path).parts
    assert [part.hour for part in parts] == ["2026-11-20T12", "2026-11-20T13"]
    assert parts[0].events.path.startswith("parquet/events/tenant=acme/date=2026-11-20/hour=12/part-")
    rows = ask(tmp_path, "SELECT device, boot, seq FROM store.events WHERE hour = 12")
    assert rows == sorted(rows, key=lambda row: (row["device"], row["boot"], row["seq"]))
    assert value(tmp_path, "SELECT count(DISTINCT id || device) FROM events") == 60
    assert verify(tmp_path).damaged == ()


def test_the_hour_that_is_not_over_stays(tmp_path: Path) -> None:
    import time

    store(tmp_path, [event(1), event(2, at_s=time.time())])
    assert merge(tmp_path) == 1
    assert landed_rows(tmp_path) == 1
    assert value(tmp_path, "SELECT count(*) FROM events") == 2


def test_a_repetition_of_a_merged_event_is_one(tmp_path: Path) -> None:
    events = [event(seq) for seq in range(1, 11)]
    store(tmp_path, events)
    merge(tmp_path)
    again = store(tmp_path, [*events, event(11)])
    assert (again.new, again.renamed) == (1, ())
    assert value(tmp_path, "SELECT count(*) FROM events") == 11


def test_another_event_under_a_merged_id_is_kept_beside_it_and_merges_too(tmp_path: Path) -> None:
    store(tmp_path, [event(1), event(2)])
    merge(tmp_path)
    other = event(1, {"index": 99})
    assert [one.row[1] for one in store(tmp_path, [other, event(2)]).renamed] == [f"7:1:{other.digest}"]
    assert store(tmp_path, [other]).new == 0
    assert merge(tmp_path) == 1
    assert store(tmp_path, [other, event(1)]).new == 0
    ids = [row["id"] for row in ask(tmp_path, "SELECT id FROM events ORDER BY id")]
    assert ids == ["7:1", f"7:1:{other.digest}", "7:2"]


def test_a_wrong_clock_makes_no_files_of_its_own_and_its_repetition_is_known(tmp_path: Path) -> None:
    wrong = [event(seq, at_s=seq * HOUR_S, received_s=NOON_S) for seq in range(1, 40)]  # 1970
    ahead = [event(seq, at_s=NOON_S + seq * 86400, received_s=NOON_S) for seq in range(100, 120)]
    store(tmp_path, [*wrong, *ahead])
    merge(tmp_path)
    assert len(read_manifest(tmp_path).parts) == 1
    again = [event(seq, at_s=seq * HOUR_S, received_s=NOON_S + 7 * 86400) for seq in range(1, 40)]
    assert store(tmp_path, again).new == 0
    assert value(tmp_path, "SELECT min(time)::VARCHAR FROM events") == "1970-01-01 01:00:00"


def test_a_late_repetition_is_known_when_its_time_is_out_of_bounds_by_then(tmp_path: Path) -> None:
    store(tmp_path, [event(1)])
    merge(tmp_path)
    assert store(tmp_path, [event(1, received_s=NOON_S + 90 * 86400)]).new == 0


def test_late_events_join_the_file_of_their_hour(tmp_path: Path) -> None:
    for seq in range(1, 5):
        store(tmp_path, [event(seq, received_s=NOON_S + seq * 86400)])
        assert merge(tmp_path) == 1
    manifest = read_manifest(tmp_path)
    assert len(manifest.parts) == 1
    assert manifest.parts[0].events.rows == 4
    assert len(manifest.obsolete) == 12  # two files of each of six parts, until no query reads them any more
    assert value(tmp_path, "SELECT count(*) FROM detections") == 4


def test_a_part_is_cut_where_a_file_would_be_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecv.cloud_sync.store.parts.MAX_FILE_BYTES", 1)
    monkeypatch.setattr("edgecv.cloud_sync.store.parts.EVENTS_PER_GROUP", 20)
    store(tmp_path, [event(seq) for seq in range(1, 51)])
    landing = EventDatabase(tmp_path)
    assert StoreWriter(landing).merge(NEVER).events == 50
    landing.close()
    assert [part.events.rows for part in read_manifest(tmp_path).parts] == [20, 20, 10]


def test_keys_take_a_range_per_start_however_many_events_were_merged(tmp_path: Path) -> None:
    for hour in range(4):
        store(tmp_path, [event(hour * 50 + seq, at_s=NOON_S + hour * HOUR_S) for seq in range(1, 51)])
        merge(tmp_path)
    with closing(sqlite3.connect(tmp_path / "landing.db")) as db:
        assert db.execute("SELECT boot, lo, hi, hour FROM merged").fetchall() == [(7, 1, 200, "")]


def test_files_that_no_manifest_lists_do_not_count_and_are_removed(tmp_path: Path) -> None:
    store(tmp_path, [event(1)])
    merge(tmp_path)
    listed = tmp_path / read_manifest(tmp_path).parts[0].events.path
    stray = listed.with_name("part-00000000-9.parquet")
    stray.write_bytes(listed.read_bytes())
    assert value(tmp_path, "SELECT count(*) FROM events") == 1
    assert verify(tmp_path).strays == 1
    spilled = tmp_path / "work" / "spill-of-a-killed-one"
    spilled.mkdir(parents=True)
    merge(tmp_path)
    assert not stray.exists() and not spilled.exists()


def test_a_changed_file_is_found(tmp_path: Path) -> None:
    store(tmp_path, [event(1)])
    merge(tmp_path)
    path = tmp_path / read_manifest(tmp_path).parts[0].events.path
    data = bytearray(path.read_bytes())
    data[50] ^= 1
    path.write_bytes(data)
    assert "its contents changed" in verify(tmp_path).damaged[0]


def test_a_damaged_manifest_stops_the_merge_and_no_event_is_lost(tmp_path: Path) -> None:
    store(tmp_path, [event(1)])
    merge(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(SyncError, match="damaged"):
        merge(tmp_path)
    assert store(tmp_path, [event(1), event(2)]).new == 2  # that cannot be compared: kept, not lost


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    store(tmp_path / "db", [event(1), event(2)])
    merge(tmp_path / "db")
    store(tmp_path / "db", [event(3)])
    merge(tmp_path / "db")  # written by DuckDB
    assert {oct(path.stat().st_mode & 0o77) for path in (tmp_path / "db").rglob("*")} == {"0o0"}


OLD_SCHEMA = """
CREATE TABLE events (
    source TEXT NOT NULL, id TEXT NOT NULL, tenant TEXT NOT NULL, device TEXT NOT NULL, boot INTEGER NOT NULL,
    seq INTEGER NOT NULL, type TEXT NOT NULL, time TEXT NOT NULL, mono_ns INTEGER NOT NULL,
    clock_synced INTEGER NOT NULL, lane TEXT NOT NULL, model TEXT NOT NULL, data TEXT NOT NULL,
    received_ns INTEGER NOT NULL, PRIMARY KEY (source, id));
CREATE INDEX events_by_device ON events (tenant, device, time);
CREATE TABLE rejected (
    n INTEGER PRIMARY KEY AUTOINCREMENT, received_ns INTEGER NOT NULL, topic TEXT NOT NULL, reason TEXT NOT NULL,
    bytes INTEGER NOT NULL, sample BLOB NOT NULL);
"""


def test_a_database_of_before_is_read_taken_over_and_merged(tmp_path: Path) -> None:
    events = [event(seq) for seq in range(1, 31)]
    with closing(sqlite3.connect(tmp_path / "landing.db")) as db:
        db.executescript(OLD_SCHEMA)
        db.executemany(f"INSERT INTO events VALUES ({', '.join('?' * 14)})", [one.row[:14] for one in events])
        db.commit()
    assert value(tmp_path, "SELECT count(*) FROM detections") == 30  # nobody has opened it for writing yet
    assert store(tmp_path, events).new == 0
    assert merge(tmp_path) == 30
    assert store(tmp_path, events).new == 0
    assert value(tmp_path, "SELECT count(*) FROM events") == 30


def test_a_database_of_a_newer_edgecv_is_left_alone(tmp_path: Path) -> None:
    store(tmp_path, [event(1)])
    with closing(sqlite3.connect(tmp_path / "landing.db")) as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(SyncError, match="newer"):
        EventDatabase(tmp_path)


def test_the_hour_of_an_event(tmp_path: Path) -> None:
    received_ns = NOON_S * 10**9
    assert hour_of_event("2026-11-20T11:59:59.999999999Z", received_ns) == "2026-11-20T11"
    assert hour_of_event("2026-11-20T13:29:59Z", received_ns) == "2026-11-20T13"
    assert hour_of_event("2026-11-20T13:31:00Z", received_ns) == "2026-11-20T12"  # more than an hour ahead
    assert hour_of_event("2026-10-19T00:00:00Z", received_ns) == "2026-11-20T12"  # more than 31 days ago
    assert hour_of_event("0001-01-01T00:00:00Z", received_ns) == "2026-11-20T12"
    assert hour_of_event("9999-12-31T23:59:59Z", received_ns) == "2026-11-20T12"


KILLED = """
import os, signal, sys, threading
from pathlib import Path
from edgecv.cloud_sync.ingest import database
from edgecv.cloud_sync.store import forget, writer
step, action, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
count = 0
def counted(call):
    def counting(*args, **more):
        global count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)  # before the step ...
        result = call(*args, **more)
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)  # ... or after it
        return result
    return counting
landing = database.EventDatabase(folder)
store = writer.StoreWriter(landing)
os.fsync = counted(os.fsync)
Path.replace = counted(Path.replace)
Path.unlink = counted(Path.unlink)
database.EventDatabase.settle = counted(database.EventDatabase.settle)
database.EventDatabase.forget = counted(database.EventDatabase.forget)
writer._SETTLED_AT_ONCE = 5
never = threading.Event()
if action == "merge":
    store.merge(never)
    store.compact(never)
    store.drop_obsolete(now=True)
else:
    forget.forget(store, forget.new_tombstone("acme", "cam-1", 0, 2**60))
print(count)
"""


def killed_at(step: int, action: str, folder: Path) -> bool:
    """Run a merge or a forget that is killed at a step; whether it was."""
    command = [sys.executable, "-c", KILLED, str(step), action, str(folder)]
    ended = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=60, check=False
    )
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr.decode()
    return ended.returncode == -signal.SIGKILL


def survives_kill_at(step: int, folder: Path) -> bool:
    """Kill a merge with late events in it; every event is there once, before and after the next one."""
    store(folder, [event(seq, device=f"cam-{seq % 2}") for seq in range(1, 13)])
    merge(folder)
    late = [event(seq, device=f"cam-{seq % 2}", at_s=NOON_S + seq % 2 * HOUR_S) for seq in range(13, 31)]
    store(folder, [*late, event(1, {"index": 5}, device="cam-1")])
    was_killed = killed_at(step, "merge", folder)
    everything = "SELECT count(*) AS n, count(DISTINCT device || id) AS ids FROM events"
    assert ask(folder, everything) == [{"n": 31, "ids": 31}]
    assert store(folder, late).new == 0
    merge(folder)
    assert store(folder, late).new == 0
    assert ask(folder, everything) == [{"n": 31, "ids": 31}]
    assert value(folder, "SELECT count(*) FROM detections") == 30
    found = verify(folder)
    assert (found.damaged, found.strays) == ((), 0)
    return was_killed


@pytest.mark.parametrize("step", [24])
def test_a_killed_merge_loses_and_doubles_nothing(tmp_path: Path, step: int) -> None:
    assert survives_kill_at(step, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_merge_killed_at_every_step_loses_and_doubles_nothing(tmp_path: Path) -> None:
    step = 1
    while survives_kill_at(step, tmp_path / str(step)):
        step += 1
    assert step > 60


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_forget_killed_at_every_step_is_finished_by_the_next(tmp_path: Path) -> None:
    from edgecv.cloud_sync.store import forget

    step = 1
    while True:
        folder = tmp_path / str(step)
        store(
            folder, [event(seq, device=f"cam-{seq % 2}", at_s=NOON_S + seq % 4 // 2 * HOUR_S) for seq in range(1, 13)]
        )
        merge(folder)
        store(folder, [event(20), event(21, device="cam-0")])
        if not killed_at(step, "forget", folder):
            break
        landing = EventDatabase(folder)
        begun = landing.tombstones()
        forget.finish(StoreWriter(landing))
        landing.close()
        assert value(folder, "SELECT count(*) FROM events WHERE device = 'cam-1'") == (0 if begun else 7)
        assert value(folder, "SELECT count(*) FROM events WHERE device = 'cam-0'") == 7
        assert verify(folder).damaged == ()
        step += 1
    assert step > 15


def test_a_writer_that_is_discarded_leaves_nothing(tmp_path: Path) -> None:
    writer = PartWriter(tmp_path, Partition("acme", "2026-11-20T12"), "part-00000000-1")
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_rows_that_could_not_leave_the_database_are_not_merged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path, [event(1), event(2)])
    landing = EventDatabase(tmp_path)
    landing.write(lambda db: db.execute("PRAGMA busy_timeout=10"))
    real = EventDatabase.settle
    with closing(sqlite3.connect(tmp_path / "landing.db", isolation_level=None)) as other:

        def settle_beside_another(self: EventDatabase, keys: list[MergedKey]) -> int:
            other.execute("BEGIN IMMEDIATE")
            try:
                return real(self, keys)
            finally:
                other.execute("ROLLBACK")

        writer = StoreWriter(landing)
        monkeypatch.setattr(EventDatabase, "settle", settle_beside_another)
        with pytest.raises(SyncError, match="locked"):
            writer.merge(NEVER)
    monkeypatch.setattr(EventDatabase, "settle", real)
    writer.merge(NEVER)
    landing.close()
    assert [row["seq"] for row in ask(tmp_path, "SELECT seq FROM events ORDER BY seq")] == [1, 2]
    assert landed_rows(tmp_path) == 0


def test_a_repetition_is_known_while_its_file_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, [event(1), event(1, device="cam-2")])
    merge(tmp_path)
    landing = EventDatabase(tmp_path)
    writer = StoreWriter(landing)
    read = pyarrow.parquet.read_table
    gone: list[int] = []

    def read_late(path: str, **options: Any) -> Any:
        if not gone:
            gone.append(1)
            forget(writer, new_tombstone("acme", "cam-2", NOON_S * 1_000_000, (NOON_S + 1) * 1_000_000))
        return read(path, **options)

    monkeypatch.setattr(pyarrow.parquet, "read_table", read_late)
    stored = landing.store([event(1)], [])
    landing.close()
    assert gone and (stored.new, stored.renamed) == (0, ())


def test_retention_also_deletes_what_an_older_ingest_stored(tmp_path: Path) -> None:
    store(tmp_path, [event(1, at_s=time.time() - 40 * 86400), event(2, at_s=time.time())])
    with closing(sqlite3.connect(tmp_path / "landing.db", isolation_level=None)) as db:
        db.execute("UPDATE events SET hour=''")  # as they are after an update
    landing = EventDatabase(tmp_path)
    assert retain(StoreWriter(landing), 30).landed == 1
    landing.close()
    assert value(tmp_path, "SELECT seq FROM events") == 2
