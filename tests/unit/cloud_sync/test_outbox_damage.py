from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edgecv.cloud_sync.outbox.outbox import Outbox
from edgecv.cloud_sync.outbox.rows import Row
from edgecv.cloud_sync.outbox.store import OutboxStore
from edgecv.errors import OutboxFull
from tests.unit.cloud_sync.support import SMALL, make_envelope, put_accepted, until

PAGE = 4096


def filled(folder: Path, count: int = 200) -> list[str]:
    outbox = Outbox(folder, limits=SMALL)
    ids = put_accepted(outbox, count, bulk=500)
    assert outbox.close(10.0)
    return ids


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as handle:
        handle.seek(offset)
        handle.write(data)


def reopened_ids(folder: Path) -> tuple[Outbox, list[str]]:
    outbox = Outbox(folder, limits=SMALL)
    rows = []
    while found := outbox.claim(limit=1000, max_bytes=10**9):
        rows += found.rows
        if not (found.rows or found.corrupt):
            break
    return outbox, [f"{row.boot}:{row.seq}" for row in rows]


def quarantined(folder: Path) -> list[Path]:
    return [path for path in folder.glob("outbox.db.corrupt-*") if not path.name.endswith("-wal")]


def test_damaged_pages_cost_only_their_own_events(tmp_path: Path) -> None:
    ids = filled(tmp_path)
    leaf = 20  # in the middle of the events
    overwrite(tmp_path / "outbox.db", (leaf - 1) * PAGE, b"\xff" * PAGE)
    outbox, left = reopened_ids(tmp_path)
    stats = outbox.stats()
    assert stats.quarantined_files == 1
    assert len(quarantined(tmp_path)) == 1
    assert 150 < len(left) < 200
    assert set(left) < set(ids)
    assert (stats.salvaged, stats.lost) == (len(left), 200 - len(left))
    assert put_accepted(outbox, 1)[0] not in ids
    outbox.close()


@pytest.mark.parametrize("damage", [b"this is no database", b"\0" * 100], ids=["text", "zeros"])
def test_a_file_that_is_no_database_is_kept_and_replaced(tmp_path: Path, damage: bytes) -> None:
    filled(tmp_path, 10)
    overwrite(tmp_path / "outbox.db", 0, damage)
    before = (tmp_path / "outbox.db").read_bytes()
    outbox, left = reopened_ids(tmp_path)
    assert left == []
    assert [path.read_bytes() for path in quarantined(tmp_path)] == [before]
    assert "kept as outbox.db.corrupt-" in outbox.stats().last_error
    put_accepted(outbox, 3)
    outbox.close()


@pytest.mark.parametrize(
    "change",
    [
        "body = CAST(replace(body, 'xxxx', 'xyxx') AS BLOB)",
        "body = replace(body, 'xxxx', 'xyxx')",
        "boot = boot + 1",
        "seq = 'x'",
        "crc = 'x'",
        "expires_ns = 'x', crc = 1",
    ],
)
def test_an_event_whose_checksum_fails_is_buried_and_its_neighbours_are_offered(tmp_path: Path, change: str) -> None:
    ids = filled(tmp_path, 5)
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as db, db:
        db.execute(f"UPDATE outbox SET {change} WHERE seq = 3")
    outbox, left = reopened_ids(tmp_path)
    assert left == [name for name in ids if not name.endswith(":3")]
    assert (outbox.stats().dead, outbox.stats().pending) == (1, 4)
    outbox.close()


# What EdgeCV 0.1 made, and what it did with it.
OLD_SCHEMA = """
PRAGMA journal_mode=WAL;
CREATE TABLE outbox (
    n INTEGER PRIMARY KEY, boot INTEGER NOT NULL, seq INTEGER NOT NULL, lane INTEGER NOT NULL,
    body BLOB NOT NULL, crc INTEGER NOT NULL, expires_ns INTEGER, dead TEXT, UNIQUE (boot, seq));
CREATE INDEX outbox_by_lane ON outbox (lane, n) WHERE dead IS NULL;
CREATE INDEX outbox_by_end ON outbox (expires_ns) WHERE expires_ns IS NOT NULL;
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('boot', 41, 0);
"""
OLD_INSERT = "INSERT INTO outbox (n, boot, seq, lane, body, crc, expires_ns) VALUES (?, ?, ?, ?, ?, ?, ?)"


def put_as_of_old(db: sqlite3.Connection, seqs: range) -> None:
    for seq in seqs:
        row = Row(boot=41, seq=seq, priority=seq % 3, body=b'{"x":%d}' % seq)
        db.execute(OLD_INSERT, (seq, row.boot, seq, row.priority, row.body, row.crc, None))


def test_an_outbox_of_an_older_edgecv_is_carried_on(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as db, db:
        db.executescript(OLD_SCHEMA)
        put_as_of_old(db, range(1, 31))
        db.execute("UPDATE outbox SET dead='too large' WHERE seq=3")
    outbox, left = reopened_ids(tmp_path)
    assert sorted(left) == sorted(f"41:{seq}" for seq in range(1, 31) if seq != 3)
    assert outbox.boot not in (41, 42)
    stats = outbox.stats()
    assert (stats.pending, stats.dead, stats.quarantined_files) == (29, 1, 0)
    assert stats.used_bytes == sum(len(b'{"x":%d}' % seq) + 96 for seq in range(1, 31))
    assert outbox.retry_dead() == 1
    put_accepted(outbox, 1)
    assert outbox.close()


def test_an_older_edgecv_may_use_the_file_in_between(tmp_path: Path) -> None:
    ids = filled(tmp_path, 5)
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as db, db:
        put_as_of_old(db, range(101, 104))
        db.execute("DELETE FROM outbox WHERE dead IS NULL AND seq BETWEEN 2 AND 3")
    outbox = Outbox(tmp_path, limits=SMALL)
    size = sqlite3.connect(tmp_path / "outbox.db").execute("SELECT SUM(LENGTH(body) + 96) FROM outbox").fetchone()[0]
    assert (outbox.stats().pending, outbox.stats().used_bytes) == (len(ids) - 2 + 3, size)
    assert outbox.close()


def with_history(folder: Path) -> list[str]:
    """An outbox with events, a dead letter and a ledger; the ids of the events."""
    outbox = Outbox(folder, limits=SMALL)
    ids = put_accepted(outbox, 200, bulk=500)
    with pytest.raises(OutboxFull):
        outbox.put(make_envelope(outbox, bulk=300_000))
    outbox.bury((outbox.boot, 1), "schema")
    assert outbox.close(10.0)
    return ids[1:]


def ledger(outbox: Outbox) -> dict[str, int]:
    return {loss.reason: loss.count for loss in outbox.losses()}


def test_ledger_and_dead_letters_survive_damage(tmp_path: Path) -> None:
    ids = with_history(tmp_path)
    overwrite(tmp_path / "outbox.db", 19 * PAGE, b"\xff" * PAGE)
    outbox, left = reopened_ids(tmp_path)
    assert outbox.stats().quarantined_files == 1
    assert ledger(outbox) == {"too_large": 1, "corrupt": len(ids) - len(left)}
    assert outbox.stats().dead == 1
    assert outbox.retry_dead() == 1
    assert outbox.close()


def test_the_ledger_is_carried_over_when_the_whole_file_is_lost_while_running(tmp_path: Path) -> None:
    with_history(tmp_path)
    store = OutboxStore(tmp_path, SMALL, lambda: 5)
    overwrite(tmp_path / "outbox.db", 0, b"this is no database" * 100)
    store.damaged(sqlite3.DatabaseError("noticed"))
    assert {loss.reason: loss.count for loss in store.losses()} == {"too_large": 1}
    assert store.counts().quarantined_files == 1
    store.close()


def test_a_large_file_is_checked_while_the_outbox_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecv.cloud_sync.outbox.schema.CHECKED_AT_ONCE_BYTES", 0)
    ids = filled(tmp_path, 400)
    outbox = Outbox(tmp_path, limits=SMALL)  # a whole one stays
    put_accepted(outbox, 1)
    assert outbox.close()
    assert outbox.stats().quarantined_files == 0
    overwrite(tmp_path / "outbox.db", 39 * PAGE, b"\xff" * PAGE)
    outbox = Outbox(tmp_path, limits=SMALL)
    until(lambda: outbox.stats().quarantined_files == 1, "the damage is found though nobody reads there")
    assert 300 < outbox.stats().pending < len(ids)
    put_accepted(outbox, 1)
    assert outbox.close()


@pytest.mark.parametrize("done", range(4))
def test_a_kill_while_a_damaged_file_is_replaced_costs_nothing(tmp_path: Path, done: int) -> None:
    ids = filled(tmp_path, 20)
    path = tmp_path / "outbox.db"
    path.with_name("outbox.db.saving-done").write_bytes(path.read_bytes())
    overwrite(path, 0, b"this is no database")
    path.with_name("outbox.db-wal").write_bytes(b"of the damaged one")
    path.with_name("outbox.db-shm").write_bytes(b"of the damaged one")
    kept_as = path.with_name("outbox.db.corrupt-1")
    if done > 0:
        path.with_name("outbox.db-wal").rename(kept_as.with_name("outbox.db.corrupt-1-wal"))
    if done > 1:
        path.rename(kept_as)
    if done > 2:
        path.with_name("outbox.db-shm").unlink()
    outbox, left = reopened_ids(tmp_path)
    assert left == ids
    assert len(quarantined(tmp_path)) == 1
    assert not list(tmp_path.glob("*saving*"))
    assert outbox.close()


def test_damage_while_running_is_survived(tmp_path: Path) -> None:
    ids = filled(tmp_path, 6000)  # larger than SQLite's cache, so that the damage is read
    outbox = Outbox(tmp_path, limits=SMALL)
    boot = outbox.boot
    for page in range(200, 220):
        overwrite(tmp_path / "outbox.db", page * PAGE, b"\xff" * PAGE)
    found = set()
    while rows := outbox.claim(limit=500, max_bytes=10**9).rows:
        found |= {f"{row.boot}:{row.seq}" for row in rows}
    put_accepted(outbox, 1)
    stats = outbox.stats()
    assert stats.quarantined_files == 1
    assert outbox.boot == boot
    assert found >= set(ids[:500]) | set(ids[-500:])
    assert 0 < len(ids) - len(found) <= stats.lost
    outbox.close()


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bytes_never_lose_an_event_silently(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    ids = filled(tmp_path, 100)
    path = tmp_path / "outbox.db"
    data = bytearray(path.read_bytes())
    for _ in range(8):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    outbox, left = reopened_ids(tmp_path)
    stats = outbox.stats()
    assert set(left) <= set(ids)
    assert len(left) == len(set(left))
    if len(left) < len(ids):
        assert stats.dead + stats.lost + stats.quarantined_files > 0
    put_accepted(outbox, 1)
    assert outbox.close(10.0)
