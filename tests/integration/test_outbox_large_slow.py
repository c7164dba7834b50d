"""An outbox with a backlog of a million events opens at once, in little memory."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edgecv.cloud_sync.outbox.limits import OutboxLimits
from edgecv.cloud_sync.outbox.outbox import Outbox
from edgecv.cloud_sync.outbox.rows import ROW_OVERHEAD_BYTES, Row

COUNT = 1_000_000
BODY_BYTES = 600
QUOTA_BYTES = 4 * 2**30
OPEN = f"""
import json, pathlib, sys, time
from edgecv.cloud_sync.outbox.limits import OutboxLimits
from edgecv.cloud_sync.outbox.outbox import Outbox
start_s = time.perf_counter()
outbox = Outbox(sys.argv[1], limits=OutboxLimits(quota_bytes={QUOTA_BYTES}))
rows = outbox.claim(limit=50, max_bytes=65536).rows
took_s = time.perf_counter() - start_s
status = pathlib.Path("/proc/self/status").read_text()
peak_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
print(json.dumps([took_s, peak_kb, outbox.stats().pending, len(rows), outbox.close()]))
"""


def _rows() -> Iterator[tuple[int, int, int, int, bytes, int]]:
    for seq in range(1, COUNT + 1):
        row = Row(boot=5, seq=seq, priority=2, body=b"%d" % seq + b"x" * (BODY_BYTES - len(str(seq))))
        yield seq, row.boot, seq, row.priority, row.body, row.crc


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_backlog_of_a_million_events_opens_in_five_seconds_and_150_mb(tmp_path: Path) -> None:
    Outbox(tmp_path, limits=OutboxLimits(quota_bytes=QUOTA_BYTES)).close()
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as db, db:
        db.execute("PRAGMA synchronous=OFF")
        db.executemany("INSERT INTO outbox (n, boot, seq, lane, body, crc) VALUES (?, ?, ?, ?, ?, ?)", _rows())
        db.execute(
            "UPDATE totals SET rows=?, bytes=? WHERE place=2", (COUNT, COUNT * (BODY_BYTES + ROW_OVERHEAD_BYTES))
        )
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(tmp_path)], capture_output=True, text=True, timeout=120, check=True
    )
    took_s, peak_kb, pending, claimed, closed = json.loads(done.stdout)
    assert (pending, claimed, closed) == (COUNT, 50, True)
    assert took_s <= 5.0, f"{took_s:.2f} s"
    assert peak_kb <= 150 * 1024, f"{peak_kb / 1024:.0f} MB"
