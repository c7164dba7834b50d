"""What is forgotten or too old leaves the store and does not come back, with ingest running and without."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from edgecv.cloud_sync.ingest.database import EventDatabase
from edgecv.cloud_sync.store.audit import write_audit
from edgecv.cloud_sync.store.manifest import Forgotten, read_manifest
from edgecv.cloud_sync.store.requests import new_request, waiting
from edgecv.cloud_sync.store.retention import retain
from edgecv.cloud_sync.store.upkeep import Upkeep, UpkeepOptions, next_due_s, order, tidy
from edgecv.cloud_sync.store.writer import StoreWriter
from edgecv.errors import ConfigError, SyncError
from tests.command_line import run_here
from tests.unit.cloud_sync.store_support import NEVER, NOON_S, ask, event, merge, store, value
from tests.unit.cloud_sync.support import ROOT, free_port, until

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def utc(moment_s: float) -> str:
    return f"{datetime.fromtimestamp(moment_s, tz=timezone.utc):%Y-%m-%dT%H:%M:%S}"


def test_forget_takes_a_device_and_a_time_out_of_both_places_for_good(tmp_path: Path) -> None:
    events = [event(seq, device=f"cam-{seq % 2}", at_s=NOON_S + seq) for seq in range(1, 21)]
    odd = event(50, device="cam-1", at_s=0, received_s=NOON_S + 5)  # believes in 1970: its arrival counts
    store(tmp_path, [*events[:10], odd])
    merge(tmp_path)
    store(tmp_path, events[10:])
    between = ("--from", utc(NOON_S + 5), "--to", utc(NOON_S + 15))
    done = run_here("forget", "--db", str(tmp_path), "--tenant", "acme", "--device", "cam-1", *between, "--json")
    assert json.loads(done.stdout) == {"landed": 2, "stored": 4, "rewritten": 1}, done.stderr
    left = [row["seq"] for row in ask(tmp_path, "SELECT seq FROM events WHERE device = 'cam-1' ORDER BY seq")]
    assert left == [1, 3, 15, 17, 19]
    assert value(tmp_path, "SELECT count(*) FROM events WHERE device = 'cam-0'") == 10
    late = event(99, device="cam-1", at_s=NOON_S + 14)
    again = store(tmp_path, [*events, odd, late])
    assert (again.new, again.erased) == (0, 7)
    assert [one.device for one in read_manifest(tmp_path).forgotten] == ["cam-1"]
    assert b"cam-1" in (tmp_path / "audit.jsonl").read_bytes()
    merge(tmp_path)
    assert value(tmp_path, "SELECT count(*) FROM detections WHERE device = 'cam-1'") == 5


@pytest.mark.parametrize("is_merged", [False, True])
def test_an_event_under_an_id_of_its_own_is_known_when_the_first_one_was_forgotten(
    tmp_path: Path, is_merged: bool
) -> None:
    second = event(1, {"v": 2}, at_s=NOON_S + 60)
    folder = tmp_path / "db"
    store(folder, [event(1, {"v": 1})])
    assert len(store(folder, [second]).renamed) == 1
    if is_merged:
        merge(folder)
    span = ("--from", utc(NOON_S), "--to", utc(NOON_S + 30))
    run_here("forget", "--db", str(folder), "--tenant", "acme", "--device", "cam-1", *span)
    assert store(folder, [second]).new == 0
    assert [row["v"] for row in ask(folder, "SELECT data->>'$.v' AS v FROM events")] == ["2"]


def test_what_was_forgotten_is_in_no_file_any_more(tmp_path: Path) -> None:
    secret = "c2VjcmV0IG9mIHRoZSBjYW1lcmE"
    for seq in range(3):
        store(
            tmp_path, [event(seq, {"source_id": secret, "bulk": secret * 20}, at_s=NOON_S), event(seq, device="other")]
        )
        if seq < 2:
            merge(tmp_path)  # the second one leaves files that others took the place of
    run_here(
        "forget",
        "--db",
        str(tmp_path),
        "--tenant",
        "acme",
        "--device",
        "cam-1",
        "--from",
        "2026-11-20",
        "--to",
        "2026-11-21",
    )
    holding = [path for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert holding == []
    assert value(tmp_path, "SELECT count(*) FROM events") == 3


def test_retention_drops_whole_hours_and_takes_no_older_events(tmp_path: Path) -> None:
    now_s = time.time()
    old, new = [event(1, at_s=now_s - 10 * 86400)], [event(2, at_s=now_s - 3600)]
    other = [event(1, tenant="other", at_s=now_s - 10 * 86400)]
    store(tmp_path, [*old, *new, *other])
    merge(tmp_path)
    store(tmp_path, [event(3, at_s=now_s - 9 * 86400)])
    done = run_here("store", "retain", str(tmp_path), "--days", "7", "--tenant", "acme", "--json")
    assert json.loads(done.stdout)["stored"] == 1, done.stderr
    assert [row["seq"] for row in ask(tmp_path, "SELECT seq FROM events WHERE tenant = 'acme'")] == [2]
    assert value(tmp_path, "SELECT count(*) FROM events WHERE tenant = 'other'") == 1
    assert store(tmp_path, [*old, event(4, at_s=now_s - 8 * 86400)]).erased == 2
    assert len(list(tmp_path.glob("parquet/*/*/*/*/*.parquet"))) == 4


def test_a_clock_that_jumps_ahead_does_not_empty_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = time.time()
    store(
        tmp_path, [event(1, at_s=now_s - 20 * 86400), event(2, at_s=now_s - 29.5 * 86400), event(3, at_s=now_s - 3600)]
    )
    options = UpkeepOptions(merge_at="hourly", retain_days=30)
    for ahead_s in (0, 0, 50 * 365 * 86400):
        monkeypatch.setattr(time, "time_ns", lambda ahead_s=ahead_s: int((now_s + ahead_s) * 1e9))
        landing = EventDatabase(tmp_path)
        tidy(StoreWriter(landing), options, NEVER)
        landing.close()
    monkeypatch.undo()
    assert [row["seq"] for row in ask(tmp_path, "SELECT seq FROM events ORDER BY seq")] == [1, 3]


def test_an_ingest_that_runs_is_asked(tmp_path: Path) -> None:
    store(tmp_path, [event(seq) for seq in range(1, 6)])
    command = [
        sys.executable,
        "-m",
        "edgecv",
        "ingest",
        "--mqtt",
        f"mqtt://127.0.0.1:{free_port()}",
        "--db",
        str(tmp_path),
    ]
    running = subprocess.Popen([*command, "--merge-at", "hourly"], env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    try:
        until(lambda: read_manifest(tmp_path).parts, "what is over is merged at the start", 30.0)
        until(lambda: not read_manifest(tmp_path).settling, "it is settled", 30.0)
        day = ("--from", "2026-11-20", "--to", "2026-11-21")
        done = run_here("forget", "--db", str(tmp_path), "--tenant", "acme", "--device", "cam-1", *day, "--json")
        assert json.loads(done.stdout) == {"landed": 0, "stored": 5, "rewritten": 1}, done.stderr
        assert value(tmp_path, "SELECT count(*) FROM events") == 0
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0
    assert list((tmp_path / "requests").iterdir()) == []


def test_an_ingest_that_does_not_answer_is_said(tmp_path: Path) -> None:
    landing = EventDatabase(tmp_path)
    with pytest.raises(SyncError, match="did not answer"):
        order(tmp_path, new_request("merge"), 0.3)
    landing.close()


def test_what_an_owner_that_ends_did_not_do_is_done_here(tmp_path: Path) -> None:
    """Such as another ``edgecv store merge``, which answers nobody, or an ingest that is killed."""
    store(tmp_path, [event(1)])
    landing = EventDatabase(tmp_path)
    ending = threading.Timer(0.5, landing.close)
    ending.start()
    assert order(tmp_path, new_request("merge"), 30.0)["events"] == 1
    ending.join()
    assert list((tmp_path / "requests").iterdir()) == []


def test_files_among_the_requests_that_are_none_are_removed(tmp_path: Path) -> None:
    place = tmp_path / "requests"
    place.mkdir()
    (place / "a.json").write_text('{"id": "b", "action": "forget"}')
    (place / "b.json").write_text("[" * 5000)
    (place / "c.json").symlink_to("/etc/passwd")
    (place / "d.json").write_bytes(b" " * 100_000)
    assert waiting(tmp_path) == []
    assert list(place.iterdir()) == []
    assert Path("/etc/passwd").exists()


def test_upkeep_goes_on_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecv.cloud_sync.store.upkeep._AGAIN_S", 0.1)
    monkeypatch.setattr("edgecv.cloud_sync.store.upkeep._POLL_S", 0.05)
    store(tmp_path, [event(1)])
    manifest = tmp_path / "manifest.json"
    manifest.mkdir()  # cannot be read
    landing = EventDatabase(tmp_path)
    upkeep = Upkeep(landing, UpkeepOptions(merge_at="hourly"))
    upkeep.start()
    time.sleep(0.3)
    manifest.rmdir()
    until(lambda: manifest.is_file() and read_manifest(tmp_path).parts, "it merges once it can")
    upkeep.close()
    landing.close()


@pytest.mark.parametrize(
    ("merge_at", "now", "due"),
    [
        ("hourly", "2026-11-20T12:00:00", "2026-11-20T13:02:00"),
        ("hourly", "2026-12-31T23:59:59", "2027-01-01T00:02:00"),
        ("03:00", "2026-11-20T02:59:59", "2026-11-20T03:00:00"),
        ("03:00", "2026-11-20T03:00:00", "2026-11-21T03:00:00"),
    ],
)
def test_when_a_merge_is_due(merge_at: str, now: str, due: str) -> None:
    at = datetime.fromisoformat(now).replace(tzinfo=timezone.utc).timestamp()
    assert utc(next_due_s(merge_at, at)) == due


@pytest.mark.parametrize(
    "options",
    [{"merge_at": "24:00"}, {"merge_at": "daily"}, {"merge_at": "hourly", "retain_days": 0}, {"retain_days": 5}],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        UpkeepOptions(**options)


def test_each_line_of_the_audit_holds_the_hash_of_the_one_before(tmp_path: Path) -> None:
    for number in range(3):
        write_audit(tmp_path, "query", {"sql": f"SELECT {number}\n'\0"})
    lines = (tmp_path / "audit.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["sql"] for line in lines] == [f"SELECT {number}\n'\0" for number in range(3)]
    assert [json.loads(line)["prev"] for line in lines[1:]] == [hashlib.sha256(line).hexdigest() for line in lines[:-1]]
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o77 == 0


def test_the_command_answers_as_table_csv_json_and_parquet(tmp_path: Path) -> None:
    folder, out = tmp_path / "db", tmp_path / "out"
    out.mkdir()
    store(folder, [event(seq, {"source_id": "=cmd\x1b[31m", "total": 2**53 + seq}) for seq in (1, 2)])
    sql = "SELECT seq, camera, total, time, 'nan'::DOUBLE AS nan, [1, 2] AS list, sum(total) OVER () AS s FROM events ORDER BY seq"
    shown = run_here("query", sql, "--db", str(folder))
    assert "\x1b" not in shown.stdout and "=cmd" in shown.stdout, shown.stderr
    rows = json.loads(run_here("query", sql, "--db", str(folder), "--format", "json").stdout)
    assert [row["total"] for row in rows] == [2**53 + 1, 2**53 + 2]
    assert (rows[0]["nan"], rows[0]["list"], rows[0]["time"]) == (None, [1, 2], "2026-11-20T12:30:00Z")
    assert rows[0]["s"] == 2**54 + 3
    for name in ("a.csv", "a.parquet", "a.json"):
        run_here("query", sql, "--db", str(folder), "--to", str(out / name))
        assert (out / name).stat().st_mode & 0o77 == 0
    assert (out / "a.csv").read_text().splitlines()[0] == "seq,camera,total,time,nan,list,s"
    refused = run_here("query", sql, "--db", str(folder), "--to", str(out / "a.csv"))
    wrong = run_here("query", "SELEC 1", "--db", str(folder), "--to", str(out / "b.csv"))
    assert (refused.returncode, wrong.returncode) == (2, 2)
    assert "exists" in refused.stderr and "syntax error" in wrong.stderr
    assert sorted(path.name for path in out.iterdir()) == ["a.csv", "a.json", "a.parquet"]


def test_a_line_that_a_power_cut_left_half_spoils_no_other(tmp_path: Path) -> None:
    write_audit(tmp_path, "query", {"sql": "SELECT 1"})
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(b'{"time": "2026')
    write_audit(tmp_path, "query", {"sql": "SELECT 2"})
    _, half, last = (tmp_path / "audit.jsonl").read_bytes().splitlines()
    assert json.loads(last)["sql"] == "SELECT 2"
    assert json.loads(last)["prev"] == hashlib.sha256(half).hexdigest()


@pytest.mark.parametrize("days", [400_000, 4_000_000, 10**18])
def test_days_beyond_the_calendar_keep_everything(tmp_path: Path, days: int) -> None:
    store(tmp_path, [event(1), event(2, at_s=time.time())])
    merge(tmp_path)
    landing = EventDatabase(tmp_path)
    done = retain(StoreWriter(landing), days)
    landing.close()
    assert (done.landed, done.stored) == (0, 0)
    assert value(tmp_path, "SELECT count(*) FROM events") == 2
    assert store(tmp_path, [event(3, at_s=time.time())]).new == 1


def test_a_request_that_fails_unexpectedly_is_answered_and_keeps_no_other_waiting(tmp_path: Path) -> None:
    store(tmp_path, [event(1)])
    landing = EventDatabase(tmp_path)
    upkeep = Upkeep(landing, UpkeepOptions())
    upkeep.start()
    try:
        too_large = Forgotten(id="a", tenant="acme", device="cam-1", from_us=0, to_us=2**70, at_us=0)
        with pytest.raises(SyncError, match="could not be done"):
            order(tmp_path, new_request("forget", tombstone=too_large), 20.0)
        assert order(tmp_path, new_request("merge"), 20.0)["events"] == 1
    finally:
        upkeep.close()
        landing.close()


def damaged_store(folder: Path) -> None:
    """Two days with two parts each; a part of the first day is damaged."""
    for day in (0, 1):
        for seq in (1, 2):
            at_s = NOON_S + day * 86400
            store(folder, [event(10 * day + seq, at_s=at_s), event(10 * day + seq, device="cam-2", at_s=at_s)])
            landing = EventDatabase(folder)
            StoreWriter(landing).merge(NEVER)
            landing.close()
    (folder / read_manifest(folder).parts[0].events.path).write_bytes(b"PAR1 no more")


def test_a_damaged_file_keeps_no_other_hour_from_its_upkeep(tmp_path: Path) -> None:
    damaged_store(tmp_path)
    landing = EventDatabase(tmp_path)
    now_day = int((time.time() - NOON_S) // 86400)
    try:
        with pytest.raises(SyncError, match="could not be rewritten"):
            tidy(StoreWriter(landing), UpkeepOptions(merge_at="03:00"), NEVER)
        assert [part.hour for part in read_manifest(tmp_path).parts] == ["2026-11-20T12"] * 2 + ["2026-11-21T12"]
        with pytest.raises(SyncError, match="could not be rewritten"):
            tidy(StoreWriter(landing), UpkeepOptions(merge_at="03:00", retain_days=max(now_day, 1)), NEVER)
        assert [part.hour for part in read_manifest(tmp_path).parts] == ["2026-11-21T12"]  # too old: gone all the same
    finally:
        landing.close()


def test_what_can_be_forgotten_is_though_a_file_is_damaged_and_the_store_works_on(tmp_path: Path) -> None:
    damaged_store(tmp_path)
    damaged = read_manifest(tmp_path).parts[0].events.path
    day = ("--from", "2026-11-01", "--to", "2026-12-01")
    done = run_here("forget", "--db", str(tmp_path), "--tenant", "acme", "--device", "cam-1", *day)
    assert done.returncode == 1 and "store verify" in done.stderr
    manifest = read_manifest(tmp_path)
    assert [part.events.rows for part in manifest.parts if part.events.path != damaged] == [1, 1, 1]
    assert manifest.forgotten == ()  # it is not done yet
    store(tmp_path, [event(20, device="cam-3")])
    landing = EventDatabase(tmp_path)
    upkeep = Upkeep(landing, UpkeepOptions(merge_at="03:00"))
    upkeep.start()
    try:
        until(lambda: len(read_manifest(tmp_path).parts) == 4, "the merge of what came since", 30.0)
    finally:
        upkeep.close()
        landing.close()
