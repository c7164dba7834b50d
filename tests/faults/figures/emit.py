"""How long ``emit`` takes at worst while the broker is down and the disk stalls.

``python -m tests.faults.figures.emit [--emits 12000] [--rate 400] [--stall-ms 500] [--objects 5]``

A process of its own emits results at a steady rate. Nobody listens at the broker's address, and every flush of the outbox takes
``--stall-ms`` longer (``preload.c``). The figures are those of ``MqttSink.emit`` alone, in milliseconds; ``spin`` is an
empty loop of about 0.1 ms in between, which shows what a busy machine adds to anything.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edgecv.cloud_sync.sink import MqttSink
from tests.faults.events import Camera
from tests.faults.preload import DiskControl, build, environment
from tests.unit.cloud_sync.support import ROOT, free_port


def emits(folder: str, count: int, rate: float, objects: int) -> dict[str, Any]:
    """Emit, and say how long it took."""
    camera = Camera(objects)
    sink = MqttSink(f"mqtt://127.0.0.1:{free_port()}", tenant="acme", device="cam-1", outbox=folder, drain_s=0.0)
    took_ms, idle_ms = [], []
    start_s = time.perf_counter()
    for number in range(count):
        result = camera.next_result()
        begin_s = time.perf_counter()
        sink.emit(result)
        took_ms.append((time.perf_counter() - begin_s) * 1e3)
        idle_ms.append(_spin_ms())
        time.sleep(max(start_s + (number + 1) / rate - time.perf_counter(), 0.0))
    stats = sink.stats()
    took_ms.sort()
    idle_ms.sort()
    figures = {"spin_p99.9": round(idle_ms[int(count * 0.999)], 3)}
    figures |= {f"p{percent}": round(took_ms[int(count * percent / 100)], 3) for percent in (50, 99, 99.9)}
    return figures | {
        "max": round(took_ms[-1], 3),
        "emits": count,
        "refused": stats.refused,
        "queued_at_end": stats.queued,
    }


def _spin_ms() -> float:
    """The wall time of a loop without locks, memory or system calls: what the machine alone adds."""
    begin_s = time.perf_counter()
    for _ in range(4_000):
        pass
    return (time.perf_counter() - begin_s) * 1e3


def measure(folder: Path, count: int, rate: float, stall_ms: int, objects: int) -> dict[str, Any]:
    """The figures of one process."""
    control = DiskControl(folder / "control")
    control.set(stall_ms=stall_ms)
    outbox = folder / "outbox"
    command = [sys.executable, "-m", "tests.faults.figures.emit", "--child", str(outbox), "--emits", str(count)]
    command += ["--rate", str(rate), "--objects", str(objects)]
    preloaded = environment(build(folder), outbox, control=control)
    done = subprocess.run(
        command, env=preloaded, cwd=ROOT, capture_output=True, text=True, timeout=count / rate * 3 + 60, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    figures: dict[str, Any] = json.loads(done.stdout)
    return {"load": os.getloadavg()[0], "stall_ms": stall_ms, **figures}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--emits", type=int, default=12_000)
    parser.add_argument("--rate", type=float, default=400.0)
    parser.add_argument("--stall-ms", type=int, default=500)
    parser.add_argument("--objects", type=int, default=5)
    parser.add_argument("--child", help="internal")
    args = parser.parse_args()
    if args.child:
        print(json.dumps(emits(args.child, args.emits, args.rate, args.objects)), flush=True)
        os._exit(0)  # closing the sink would wait for the disk
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(measure(Path(name), args.emits, args.rate, args.stall_ms, args.objects), indent=1))


if __name__ == "__main__":
    main()
