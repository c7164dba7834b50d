"""A power cut at every moment: whatever was accepted before is on the disk.

The process runs once, with every change of its files recorded (``preload.c``). Then the disk is rebuilt as it would be after a cut:
after every flush and every write, with nothing but what was flushed, with everything that was written, and with some of it, torn.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edgecv.cloud_sync.outbox.outbox import Outbox
from tests.faults.disk_images import Disk, put_on_disk, read_changes
from tests.faults.preload import build, environment
from tests.unit.cloud_sync.support import ROOT, SMALL

SEED = 17
_OPENED_EVERY = 25  # images: those are opened by the outbox itself, the others read by SQLite


def recorded(folder: Path, program: str, events: int) -> Path:
    """Run ``program`` in ``folder/disk`` and give the record of what it did."""
    disk, log = folder / "disk", folder / "log"
    disk.mkdir()
    preloaded = environment(build(folder), disk, log=log)
    command = [sys.executable, "-m", "tests.faults.programs", program, str(events), str(disk)]
    done = subprocess.run(command, cwd=ROOT, env=preloaded, capture_output=True, text=True, timeout=60, check=False)
    assert not done.returncode, done.stderr
    return log


def images(log: Path, rng: random.Random) -> Iterator[tuple[str, dict[str, bytes], str]]:
    """Every state of the disk, how it came about, and what the diary says by then."""
    disk = Disk()
    for change in read_changes(log):
        if change.path == "diary":
            disk.apply(change)
            continue
        diary = bytes(disk.written.get("diary", b"")).decode()
        if change.op == "S" and not change.path.endswith("-shm"):
            for kind, files in (("flushed", disk.flushed), ("torn", disk.torn(rng))):
                yield f"{kind}, before flush {disk.flushes + 1}", dict(files), diary
        disk.apply(change)
        if not change.path.endswith(("-shm", "ballast", "lock")):
            yield f"written, flush {disk.flushes}", {name: bytes(data) for name, data in disk.written.items()}, diary
    assert disk.flushes > 20, "nothing was recorded"


def promised(diary: str) -> set[str]:
    """Accepted and not acknowledged."""
    lines = diary.split()
    return {one[1:] for one in lines if one[0] == "+"} - {one[1:] for one in lines if one[0] == "-"}


def rows_of(path: Path, table: str) -> set[str]:
    """Ids in the database; none before there is one."""
    if not path.exists():
        return set()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA quick_check").fetchone() == ("ok",)
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name=?", (table,)).fetchone():
            return set()
        return {f"{boot}:{seq}" for boot, seq in db.execute(f"SELECT boot, seq FROM {table}")}


def opened(folder: Path) -> set[str]:
    """Ids that an outbox offers after its start on this disk."""
    (folder / "lock").unlink(missing_ok=True)
    outbox = Outbox(folder, limits=SMALL)
    found: set[str] = set()
    while claim := outbox.claim(limit=1000, max_bytes=1 << 24).rows:
        found |= {f"{row.boot}:{row.seq}" for row in claim}
    stats = outbox.stats()
    assert (stats.dead, stats.lost, stats.quarantined_files) == (0, 0, 0), stats
    assert outbox.close()
    return found


def cut_everywhere(tmp_path: Path, program: str, events: int, database: str, table: str) -> int:
    """Check every image; returns how many there were."""
    log = recorded(tmp_path, program, events)
    rng = random.Random(SEED)
    place = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    image = place / f"edgecv-power-{os.getpid()}"
    count = 0
    try:
        for how, files, diary in images(log, rng):
            count += 1
            put_on_disk({name: data for name, data in files.items() if name != "ballast"}, image)
            by_itself = program == "power" and count % _OPENED_EVERY == 0
            found = opened(image) if by_itself else rows_of(image / database, table)
            missing = promised(diary) - found
            assert not missing, f"{len(missing)} of {len(promised(diary))} are lost: image {count}, {how}"
            shutil.rmtree(image)
    finally:
        shutil.rmtree(image, ignore_errors=True)
    return count


def test_whatever_an_outbox_accepted_survives_a_power_cut_at_every_moment(tmp_path: Path) -> None:
    assert cut_everywhere(tmp_path, "power", 90, "outbox.db", "outbox") > 200


def test_whatever_ingest_acknowledges_survives_a_power_cut_at_every_moment(tmp_path: Path) -> None:
    assert cut_everywhere(tmp_path, "landing", 60, "landing.db", "events") > 150


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("program", "database", "table"), [("power", "outbox.db", "outbox"), ("landing", "landing.db", "events")]
)
def test_the_same_over_many_checkpoints(tmp_path: Path, program: str, database: str, table: str) -> None:
    print(cut_everywhere(tmp_path, program, 1500, database, table), "images")
