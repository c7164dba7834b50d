"""How fast the store of an ingest answers, and how many files it is.

``python -m edgecv.benchmarks.lab store_speed DIR [--detections 10000000] [--devices 1000] [--threads 2] [--json]``

A day of simulated devices goes the way that real events go: ``EventDatabase.store``, an hour at a time, and a merge after each
hour. An event in fifty comes some hours late. One device in a hundred believes in 1970, and one in a hundred is a year ahead.
While the merges run, another thread stores single events: what it waits for is what an acknowledgement would wait for. At the
end the night's merge makes one file of those of each hour, and the question is asked: detections per class, hour and device.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from statistics import median, quantiles

import msgspec

from edgecv.benchmarks.lab.figures import print_figures
from edgecv.cloud_sync.envelope import Envelope, decode, encode
from edgecv.cloud_sync.ingest.database import EventDatabase
from edgecv.cloud_sync.ingest.landed import Landed
from edgecv.cloud_sync.mqtt.topics import Address
from edgecv.cloud_sync.store.manifest import read_manifest
from edgecv.cloud_sync.store.sql.query import Bounds, open_answers
from edgecv.cloud_sync.store.writer import StoreWriter

SECONDS_LIMIT = 1.0
FILES_LIMIT = 50
QUESTION = "SELECT device, date, hour, class_name, count(*) AS n FROM detections GROUP BY ALL"
_OBJECTS = 5
_HOURS = 24
_BATCH = 500
_SEED = 17
_CLASSES = ("person", "car", "bicycle", "dog", "truck", "bus", "cat", "horse")


class StoreTask(msgspec.Struct, frozen=True, kw_only=True):
    """What to simulate; ``folder`` must not exist."""

    folder: str
    detections: int = 10_000_000
    devices: int = 1000
    threads: int = 2


class StoreSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured.

    Attributes:
        detections: How many the store holds.
        stored_per_s: Events stored per second by ``EventDatabase.store``, in batches of 500.
        merged_per_s: Events merged per second.
        ack_p50_ms, ack_p99_ms, ack_max_ms: How long one event waited for its commit while a merge ran.
        files_per_day: Files after the night's merge.
        bytes_per_detection: All files, over the detections.
        answer_s: Median of five answers to the question.
        open_s: What opening the store takes before, once.
        cells: Rows of the answer.
    """

    detections: int
    stored_per_s: float
    merged_per_s: float
    ack_p50_ms: float
    ack_p99_ms: float
    ack_max_ms: float
    files_per_day: int
    bytes_per_detection: float
    answer_s: float
    open_s: float
    cells: int


def measure(task: StoreTask) -> StoreSpeed:
    """Fill a store, and ask it."""
    folder = Path(task.folder)
    begin_s = (int(time.time()) // 86400 - 2) * 86400  # the day before yesterday
    landing = EventDatabase(folder)
    store = StoreWriter(landing)
    waits_s: list[float] = []
    stored_s = merged_s = 0.0
    events = 0
    day = _Day(task, begin_s)
    for hour in range(_HOURS + 4):
        for batch in day.batches(hour):
            began_s = time.perf_counter()
            events += landing.store(batch, []).new
            stored_s += time.perf_counter() - began_s
        began_s = time.perf_counter()
        with _probing(landing, waits_s, begin_s):
            store.merge(threading.Event())
        merged_s += time.perf_counter() - began_s
    store.compact(threading.Event())
    store.drop_obsolete(now=True)
    landing.close()
    answers_s, open_s, cells = _ask(folder, task.threads)
    parts = read_manifest(folder).parts
    detections = sum(part.detections.rows for part in parts if part.detections)
    per_mille = quantiles(waits_s, n=1000)
    days = {part.hour[:10] for part in parts}
    return StoreSpeed(
        detections=detections,
        stored_per_s=events / stored_s,
        merged_per_s=events / merged_s,
        ack_p50_ms=per_mille[499] * 1e3,
        ack_p99_ms=per_mille[989] * 1e3,
        ack_max_ms=max(waits_s) * 1e3,
        files_per_day=max(sum(len(part.files) for part in parts if part.hour.startswith(one)) for one in days),
        bytes_per_detection=sum(part.bytes for part in parts) / detections,
        answer_s=median(answers_s),
        open_s=open_s,
        cells=cells,
    )


class _Day:
    """The events of a day, in the order in which they come in."""

    def __init__(self, task: StoreTask, begin_s: int) -> None:
        self._task, self._begin_s = task, begin_s
        self._random = random.Random(_SEED)
        self._seq = 0
        self._late: list[list[Landed]] = [[] for _ in range(_HOURS + 4)]

    def batches(self, hour: int) -> Iterator[list[Landed]]:
        """The batches of an hour."""
        batch, self._late[hour] = self._late[hour], []
        count = self._task.detections // _OBJECTS // _HOURS if hour < _HOURS else 0
        for number in range(count):
            delay = self._random.randrange(1, 4) if self._random.random() < 0.02 else 0
            at_s = self._begin_s + hour * 3600 + 3600 * number // count
            event = self._event(at_s, at_s + delay * 3600)
            (self._late[hour + delay] if delay else batch).append(event)
            if len(batch) >= _BATCH:
                yield batch
                batch = []
        yield batch

    def _event(self, at_s: float, received_s: float) -> Landed:
        self._seq += 1
        device = self._random.randrange(self._task.devices)
        clock_s = {0: at_s - self._begin_s, 1: at_s + 365 * 86400}.get(device % 100, at_s)
        return make_event(f"device-{device:04d}", self._seq, clock_s, received_s, self._random)


def make_event(device: str, seq: int, at_s: float, received_s: float, chance: random.Random) -> Landed:
    """A frame with five objects, as a device sends it."""
    address = Address(tenant="acme", device=device)
    moment = datetime.fromtimestamp(at_s, tz=timezone.utc)
    boxes = []
    for _ in range(_OBJECTS):
        class_id = min(int(chance.expovariate(0.7)), len(_CLASSES) - 1)
        x, y, w, h = (round(chance.random(), 6) for _ in range(4))
        boxes.append(
            {
                "xyxy": [round(x * 1920, 3), round(y * 1080, 3), round(w * 1920, 3), round(h * 1080, 3)],
                "confidence": round(chance.random(), 6),
                "class_id": class_id,
                "label": _CLASSES[class_id],
                "tracker_id": chance.randrange(5000),
                "xyxyn": [x, y, w, h],
            }
        )
    data = {"index": seq, "source_id": "door", "captured_ns": int(at_s * 1e9), "age_ms": 41.5, "detections": boxes}
    envelope = Envelope(
        id=f"7:{seq}",
        source=address.source,
        type="edgecv.result",
        time=f"{moment:%Y-%m-%dT%H:%M:%S.%f}000Z",
        boot=7,
        seq=seq,
        mono_ns=int(at_s * 1e9),
        clock_synced=True,
        model="yolov8n/onnx-int8",
        priority="telemetry",
        data={**data, "timings_ms": {"preprocess": 2.1, "inference": 30.2}, "frame_wh": [1920, 1080]},
    )
    return Landed.from_envelope(decode(encode(envelope)), address, int(received_s * 1e9))


@contextmanager
def _probing(landing: EventDatabase, waits_s: list[float], begin_s: int) -> Iterator[None]:
    """Store an event every 10 ms, as ingest does beside a merge, and note how long each took."""
    ended = threading.Event()
    chance = random.Random(_SEED)

    def probe() -> None:
        while not ended.wait(0.01):
            event = make_event("probe", len(waits_s) + 1, begin_s, begin_s, chance)
            began_s = time.perf_counter()
            landing.store([event], [])
            waits_s.append(time.perf_counter() - began_s)

    thread = threading.Thread(target=probe, name="probe")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _ask(folder: Path, threads: int) -> tuple[list[float], float, int]:
    began_s = time.perf_counter()
    with open_answers([folder], Bounds(threads=threads)) as answers:
        open_s = time.perf_counter() - began_s
        times_s = []
        cells = 0
        for _ in range(5):
            began_s = time.perf_counter()
            cells = answers.run(QUESTION, lambda reader: sum(batch.num_rows for batch in reader))
            times_s.append(time.perf_counter() - began_s)
    return times_s, open_s, cells


def main() -> None:
    """Read the arguments, measure, print; exit code 1 when a limit is missed."""
    parser = argparse.ArgumentParser(prog="store_speed", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder")
    parser.add_argument("--detections", type=int, default=10_000_000)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    task = StoreTask(folder=asked.folder, detections=asked.detections, devices=asked.devices, threads=asked.threads)
    found = measure(task)
    print_figures(msgspec.structs.asdict(found), asked.json)
    if found.answer_s > SECONDS_LIMIT or found.files_per_day > FILES_LIMIT:
        sys.exit(1)
