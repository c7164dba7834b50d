"""The processes that the fault tests start and kill: ``python -m tests.faults.programs NAME URL FOLDER [RATE]``.

``edgecv``, ``naive``, ``frigate``, ``dlstreamer`` are devices: each emits about ``RATE`` events a second until the file ``stop``
is in the folder, then ten more, and delivers what is left. They write ``offered`` (a name before each event is given away) and
``obligations`` (a name, flushed to the disk, once the event is accepted). ``ingest`` is EdgeCV's other side; ``subscriber`` is
that of the others, a plain program that stores each message in one commit before paho acknowledges it. ``power`` and ``landing``
are an outbox and a landing database alone, for power cuts (their URL is a number of events).
"""

from __future__ import annotations

import json
import os
import random
import resource
import secrets
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

import paho.mqtt.client as paho

from edgecv._internal.timing import Backoff
from edgecv.cloud_sync.acks import to_ranges
from edgecv.cloud_sync.delivery.options import SendOptions
from edgecv.cloud_sync.envelope import Stamp, decode, encode, envelope_from_event
from edgecv.cloud_sync.ingest.database import EventDatabase, Landed
from edgecv.cloud_sync.ingest.ingest import Ingest
from edgecv.cloud_sync.mqtt.broker_url import parse_broker_url
from edgecv.cloud_sync.outbox.limits import OutboxLimits
from edgecv.cloud_sync.outbox.outbox import Outbox
from edgecv.cloud_sync.sink import MqttSink
from tests.faults.events import made_event, text_of
from tests.faults.others import OTHERS, TOPIC
from tests.unit.cloud_sync.support import ADDRESS, FAST, SMALL, until

KEEPALIVE_S = 2  # instead of 15
OPTIONS = SendOptions(
    resend=Backoff(initial_s=0.5, cap_s=1.0), reconnect=FAST, keepalive_s=KEEPALIVE_S
)  # scaled as the keepalive is
_GROUP = 32
_LAST = 10
_DRAIN_S = 60.0


class Diary:
    """What a device offered and what was accepted, in files that survive it."""

    def __init__(self, folder: Path) -> None:
        self.run = secrets.token_hex(4)
        self.count = 0
        self._offered: TextIO = (folder / "offered").open("a", encoding="utf-8")
        self._accepted = os.open(folder / "obligations", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def offer(self) -> int:
        """The number of the next event; it is written down before it is given away."""
        self.count += 1
        self._offered.write(f"{self.run}:{self.count}\n")
        self._offered.flush()
        return self.count

    def accept(self, numbers: list[int]) -> None:
        """These were accepted: flushed before anything else happens."""
        os.write(self._accepted, "".join(f"{self.run}:{number}\n" for number in numbers).encode())
        os.fsync(self._accepted)


def edgecv(url: str, folder: Path, rate: float) -> int:
    diary = Diary(folder)
    took_ms: list[float] = []
    sink = MqttSink(
        url, tenant="acme", device="cam-1", outbox=folder / "outbox", limits=SMALL, options=OPTIONS, drain_s=_DRAIN_S
    )

    def group(size: int) -> None:
        before = sink.stats()
        numbers = []
        for _ in range(size):
            numbers.append(diary.offer())
            event = made_event(diary.run, numbers[-1])
            start_s = time.perf_counter()
            sink.emit_event(event)
            took_ms.append((time.perf_counter() - start_s) * 1e3)
        while (now := sink.stats()).queued:
            time.sleep(0.001)
        if now.refused == before.refused and now.evicted == before.evicted:
            diary.accept(numbers)

    _until_told(folder, rate, group)
    sink.close()
    stats = sink.stats()
    took_ms.sort()
    answer = {name: getattr(stats, name) for name in stats.__slots__}
    answer["emit_p999_ms"] = took_ms[int(len(took_ms) * 0.999)]
    answer["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    (folder / "stats.json").write_text(json.dumps(answer))
    return 0 if not stats.pending else 1


def power(folder: Path, events: int) -> int:
    """An outbox alone: what was accepted (``+``) and what was acknowledged (``-``) stands in a diary on the same disk."""
    outbox = Outbox(folder, limits=OutboxLimits(floor_bytes=0, ballast_bytes=4096, group_rows=8))
    rng = random.Random(5)
    diary = os.open(folder / "diary", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    waiting: list[int] = []
    done = 0
    while done < events:
        group = [outbox.next_seq() for _ in range(rng.randrange(1, 9))]
        for seq in group:
            stamp = Stamp(address=ADDRESS, boot=outbox.boot, seq=seq)
            outbox.put(envelope_from_event(made_event("power", seq, bulk=rng.randrange(3000)), stamp, mono_ns=0))
        done += len(group)
        until(lambda: not outbox.stats().queued, "the events are stored", pause_s=0.001)
        assert outbox.stats().accepted == done
        os.write(diary, "".join(f"+{outbox.boot}:{seq}\n" for seq in group).encode())
        waiting += group
        if rng.random() < 0.5:
            gone, waiting = waiting[: len(waiting) * 3 // 4], waiting[len(waiting) * 3 // 4 :]
            os.write(diary, "".join(f"-{outbox.boot}:{seq}\n" for seq in gone).encode())
            outbox.acknowledge(to_ranges((outbox.boot, seq) for seq in gone))
    outbox.close()
    return 0


def landing(folder: Path, events: int) -> int:
    """A landing database alone: what it committed stands in a diary on the same disk."""
    database = EventDatabase(folder)
    diary = os.open(folder / "diary", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for first in range(1, events, 5):
        envelopes = [
            envelope_from_event(
                made_event("power", seq, bulk=seq * 37 % 2000), Stamp(address=ADDRESS, boot=1, seq=seq), mono_ns=0
            )
            for seq in range(first, first + 5)
        ]
        database.store([Landed.from_envelope(decode(encode(one)), ADDRESS, 0) for one in envelopes], [])
        os.write(diary, "".join(f"+{one.id}\n" for one in envelopes).encode())
    database.close()
    return 0


def other(name: str, url: str, folder: Path, rate: float) -> int:
    diary = Diary(folder)
    device = OTHERS[name](parse_broker_url(url).port)

    def group(size: int) -> None:
        numbers = []
        for _ in range(size):
            number = diary.offer()
            event = f"{diary.run}:{number}"
            if device.publish(json.dumps({"name": event, "text": text_of(event)}).encode()):
                numbers.append(number)
        diary.accept(numbers)

    _until_told(folder, rate, group)
    return 0 if device.close(_DRAIN_S) else 1


def _until_told(folder: Path, rate: float, group: object) -> None:
    assert callable(group)
    next_s = time.monotonic()
    while not (folder / "stop").exists():
        group(_GROUP)
        next_s = max(next_s + _GROUP / rate, time.monotonic())
        time.sleep(max(next_s - time.monotonic(), 0.0))
    group(_LAST)


def ingest(url: str, folder: Path) -> int:
    running = Ingest(url, folder, reconnect=FAST)

    def tell() -> None:
        while not running.stats().connected:
            time.sleep(0.005)
        with (folder / "up").open("a") as up:
            up.write(f"{os.getpid()}\n")

    threading.Thread(target=tell, daemon=True).start()
    running.run(threading.Event())
    return 0


def subscriber(url: str, folder: Path) -> int:
    folder.mkdir(exist_ok=True)
    db = sqlite3.connect(folder / "landing.db", isolation_level=None, check_same_thread=False)
    # NORMAL: safe against kill -9, and fast enough that no loss is the store's.
    db.executescript(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; CREATE TABLE IF NOT EXISTS events (id TEXT, type TEXT, data TEXT)"
    )

    def store(_client: object, _data: object, message: paho.MQTTMessage) -> None:
        db.execute("INSERT INTO events VALUES ('', ?, ?)", ("other", message.payload.decode()))

    def subscribe(client: paho.Client, *_: object) -> None:
        client.subscribe(TOPIC, qos=1)
        with (folder / "up").open("a") as up:
            up.write(f"{os.getpid()}\n")

    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="subscriber", clean_session=False)
    client.on_connect, client.on_message = subscribe, store
    client.reconnect_delay_set(1, 1)
    client.connect_async("127.0.0.1", parse_broker_url(url).port, keepalive=KEEPALIVE_S)
    client.loop_forever(retry_first_connection=True)
    return 0


if __name__ == "__main__":
    program, broker_url, where, *pace = sys.argv[1:]
    if program in OTHERS:
        sys.exit(other(program, broker_url, Path(where), float(pace[0])))
    if program in ("power", "landing"):  # here URL is the number of events
        sys.exit({"power": power, "landing": landing}[program](Path(where), int(broker_url)))
    if program == "edgecv":
        sys.exit(edgecv(broker_url, Path(where), float(pace[0])))
    sys.exit({"ingest": ingest, "subscriber": subscriber}[program](broker_url, Path(where)))
