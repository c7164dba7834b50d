"""How many events a second one device brings durably into one ingest, and how many bytes an event takes on the wire.

``python -m tests.faults.figures.rate [--events 60000] [--objects 5] [--wire 5000] [--url URL]``

Three processes: device, mosquitto, ingest. The device emits as fast as its outbox takes the results; the clock runs from the
first ``emit`` until ingest has acknowledged the last one, so the rate is that of the whole road. The bytes are counted in a run
of its own, by a proxy between device and broker, both directions, with everything that MQTT adds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edgecv.cloud_sync.sink import MqttSink
from tests.faults.events import Camera
from tests.faults.proxy import FaultProxy
from tests.unit.cloud_sync.support import ROOT, Child, running_mosquitto, stored_ids, until

_QUEUED = 2_000  # results that may wait for their commit


def device(url: str, folder: str, events: int, objects: int) -> dict[str, Any]:
    """Emit and wait until all is acknowledged."""
    camera = Camera(objects)
    ready = [camera.next_result() for _ in range(min(events, 2_000))]
    sink = MqttSink(url, tenant="acme", device="cam-1", outbox=folder, drain_s=60.0)
    until(lambda: sink.stats().connected, "a connection")
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    for number in range(events):
        sink.emit(ready[number % len(ready)])
        if number % 100 == 0:
            while sink.stats().queued > _QUEUED:
                time.sleep(0.002)
    emitted_s = time.perf_counter() - start_s
    until(lambda: sink.stats().acknowledged >= events, "all is acknowledged", timeout_s=300.0)
    wall_s = time.perf_counter() - start_s
    stats = sink.stats()
    sink.close()
    return {
        "events": events,
        "accepted": stats.accepted,
        "refused": stats.refused,
        "resent_batches": stats.resent,
        "emit_s": round(emitted_s, 2),
        "wall_s": round(wall_s, 2),
        "events_s": round(events / wall_s),
        "device_cpu_us_per_event": round((time.process_time() - start_cpu_s) / events * 1e6, 1),
        "device_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
    }


def _cpu_s(pid: int) -> float:
    """Processor time of a process up to now, its start included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(events: int, objects: int, *, counted: bool) -> dict[str, Any]:
    """One run; ``counted``: through the proxy, for the bytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            running_mosquitto(folder) as broker,
            FaultProxy(broker.port) as proxy,
            Child("ingest", broker.url, folder / "db") as ingest,
        ):
            command = [sys.executable, "-m", "tests.faults.figures.rate", "--device", str(folder / "outbox")]
            command += [
                "--events",
                str(events),
                "--objects",
                str(objects),
                "--url",
                proxy.url if counted else broker.url,
            ]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=ROOT)
            if done.returncode:
                raise SystemExit(done.stderr)
            figures: dict[str, Any] = json.loads(done.stdout)
            for who, process in (("ingest", ingest._process), ("broker", broker._process)):
                figures[f"{who}_cpu_us_per_event"] = round(_cpu_s(process.pid) / events * 1e6, 1)
            figures["stored"] = len(set(stored_ids(folder / "db")))
            if counted:
                figures["up_bytes_per_event"] = round(proxy.up_bytes / events, 1)
                figures["down_bytes_per_event"] = round(proxy.down_bytes / events, 1)
        return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--objects", type=int, default=5)
    parser.add_argument("--wire", type=int, default=5_000)
    parser.add_argument("--url")
    parser.add_argument("--device", help="internal: be the device, with this outbox")
    args = parser.parse_args()
    if args.device:
        print(json.dumps(device(args.url, args.device, args.events, args.objects)))
        return
    print(json.dumps({"load": os.getloadavg()[0], **measure(args.events, args.objects, counted=False)}, indent=1))
    if args.wire:
        print(json.dumps(measure(args.wire, args.objects, counted=True), indent=1))


if __name__ == "__main__":
    main()
