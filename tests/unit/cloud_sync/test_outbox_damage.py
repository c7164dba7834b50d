from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edgecv.cloud_sync.outbox.outbox import Outbox
from tests.unit.cloud_sync.support import SMALL, put_accepted

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


def test_an_outbox_of_an_older_edgecv_is_carried_on(tmp_path: Path) -> None:
    ids = filled(tmp_path, 5)
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as db, db:
        db.execute(
            "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID"
        )
        db.execute("INSERT INTO meta VALUES ('boot', 41, 0)")  # it counted its starts
    outbox, left = reopened_ids(tmp_path)
    assert left == ids
    assert outbox.boot not in (41, 42, int(ids[0].split(":")[0]))
    outbox.close()


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
