"""A device that starts with a long backlog: how long it takes to start, what it holds in memory, and how late live events are.

``python -m tests.faults.figures.backlog [--rows 1000000] [--lane event] [--live-s 30]``

A first process fills the outbox while there is no broker. Then broker and ingest run, and a second process opens the outbox and
emits ten live events a second while the backlog drains. An event is late by ingest's ``received_ns`` minus the moment of ``emit``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgecv.cloud_sync.outbox.limits import OutboxLimits
from edgecv.cloud_sync.sink import MqttSink
from edgecv.events import Event, Priority
from tests.faults.events import made_event
from tests.unit.cloud_sync.support import ROOT, Child, free_port, running_mosquitto, until

LIMITS = OutboxLimits(quota_bytes=2**30)
_LIVE = "live.test"
_EVERY_S = 0.1


def fill(folder: str, rows: int, lane: Priority) -> dict[str, Any]:
    """Put events on disk while nobody can be reached."""
    sink = MqttSink(
        f"mqtt://127.0.0.1:{free_port()}", tenant="acme", device="cam-1", outbox=folder, limits=LIMITS, drain_s=0.0
    )
    start_s = time.perf_counter()
    for number in range(rows):
        sink.emit_event(replace(made_event("backlog", number), priority=lane))
        if number % 500 == 0:
            while sink.stats().queued > 5_000:
                time.sleep(0.002)
    sink.close()
    return {"pending": sink.stats().pending, "fill_s": round(time.perf_counter() - start_s, 1)}


def drain(folder: str, url: str, live_s: float) -> dict[str, Any]:
    """Start on the backlog and emit live events meanwhile."""
    start_s = time.perf_counter()
    sink = MqttSink(url, tenant="acme", device="cam-1", outbox=folder, limits=LIMITS, drain_s=5.0)
    started_s = time.perf_counter() - start_s
    pending = sink.stats().pending
    until(lambda: sink.stats().acknowledged > 0, "the first acknowledgement", timeout_s=60.0)
    first_s = time.perf_counter() - start_s
    count = int(live_s / _EVERY_S)
    for number in range(count):
        sink.emit_event(Event(kind=_LIVE, time_ns=time.time_ns(), data={"at_ns": time.time_ns(), "number": number}))
        time.sleep(_EVERY_S)
    left = sink.stats().pending
    stats = sink.stats()
    sink.close()
    return {
        "pending_at_start": pending,
        "start_s": round(started_s, 2),
        "first_acknowledgement_s": round(first_s, 2),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        "live_events": count,
        "pending_after_live": left,
        "drained_s": round(stats.acknowledged / live_s),
    }


def lateness(db_dir: Path) -> dict[str, Any]:
    """How late the live events were, of those that arrived."""
    with closing(sqlite3.connect(db_dir / "landing.db")) as db:
        rows = db.execute(
            "SELECT received_ns, json_extract(data, '$.at_ns') FROM events WHERE type = ?", (f"edgecv.event.{_LIVE}",)
        )
        late_s = sorted((received - at) / 1e9 for received, at in rows)
    return {
        "live_arrived": len(late_s),
        "late_median_s": round(late_s[len(late_s) // 2], 3),
        "late_max_s": round(late_s[-1], 3),
    }


def _child(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.faults.figures.backlog", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, cwd=ROOT)
    if done.returncode:
        raise SystemExit(done.stderr)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def measure(folder: Path, rows: int, lane: Priority, live_s: float) -> dict[str, Any]:
    """Fill if need be, then drain."""
    figures: dict[str, Any] = {"rows": rows, "lane": lane, "load": os.getloadavg()[0]}
    figures |= _child("--fill", folder / "outbox", "--rows", rows, "--lane", lane)
    with running_mosquitto(folder) as broker, Child("ingest", broker.url, folder / "db"):
        figures |= _child("--drain", folder / "outbox", "--url", broker.url, "--live-s", live_s)
    return figures | lateness(folder / "db")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument(
        "--lane",
        default="event",
        choices=("alarm", "event", "telemetry"),
        help="of the backlog; live events are of lane event",
    )
    parser.add_argument("--live-s", type=float, default=30.0)
    parser.add_argument("--url")
    parser.add_argument("--fill", help="internal")
    parser.add_argument("--drain", help="internal")
    args = parser.parse_args()
    if args.fill:
        print(json.dumps(fill(args.fill, args.rows, args.lane)))
    elif args.drain:
        print(json.dumps(drain(args.drain, args.url, args.live_s)))
    else:
        with tempfile.TemporaryDirectory() as name:
            print(json.dumps(measure(Path(name), args.rows, args.lane, args.live_s), indent=1))


if __name__ == "__main__":
    main()
