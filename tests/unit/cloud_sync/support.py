"""Real brokers, real processes and waits with a deadline for the tests of cloud_sync."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paho.mqtt import publish as paho_publish

from edgecv._internal.timing import Backoff
from edgecv.cloud_sync.delivery.options import SendOptions
from edgecv.cloud_sync.delivery.sender import Sender
from edgecv.cloud_sync.envelope import Envelope, Stamp, envelope_from_event
from edgecv.cloud_sync.ingest.ingest import Ingest
from edgecv.cloud_sync.mqtt.broker_url import parse_broker_url
from edgecv.cloud_sync.mqtt.topics import Address
from edgecv.cloud_sync.outbox.limits import OutboxLimits
from edgecv.cloud_sync.outbox.outbox import Outbox
from edgecv.cloud_sync.platforms.route import Route
from edgecv.events import Event, Priority
from edgecv.results import Detections, Frame, Result

ROOT = Path(__file__).resolve().parents[3]
ADDRESS = Address(tenant="acme", device="cam-1")
FAST = Backoff(initial_s=0.05, cap_s=0.4)
FAST_SEND = SendOptions(resend=Backoff(initial_s=0.5, cap_s=1.0), reconnect=FAST)
SMALL = OutboxLimits(floor_bytes=0, ballast_bytes=4096)
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def until(condition: Callable[[], Any], what: str, timeout_s: float = 15.0, pause_s: float = 0.01) -> None:
    """Wait until ``condition`` holds, or fail and say what did not happen."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            pytest.fail(f"not within {timeout_s} s: {what}")
        time.sleep(pause_s)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_result(index: int = 0, boxes: int = 1, events: tuple[Event, ...] = ()) -> Result:
    """A result with ``boxes`` boxes in a 100 x 50 frame."""
    frame = Frame(
        image=np.zeros((50, 100, 3), np.uint8),
        index=index,
        source_id="cam",
        captured_ns=1_700_000_000_000_000_000 + index,
        monotonic_ns=1_000 + index,
    )
    found = Detections(
        xyxy=np.tile(np.array([[10, 5, 50, 25]], np.float32), (boxes, 1)),
        confidence=np.full(boxes, 0.5, np.float32),
        class_id=np.zeros(boxes, np.int64),
    )
    return Result(frame=frame, labels=("cat",), detections=found, model="demo/onnx-int8", events=events)


def make_envelope(outbox: Outbox, *, priority: Priority = "event", bulk: int = 0) -> Envelope:
    """An envelope with the next sequence number of ``outbox`` and ``bulk`` bytes of payload."""
    stamp = Stamp(address=ADDRESS, boot=outbox.boot, seq=outbox.next_seq())
    event = Event(kind="test", time_ns=1_700_000_000_000_000_000, data={"bulk": "x" * bulk}, priority=priority)
    return envelope_from_event(event, stamp, mono_ns=0)


def put_accepted(outbox: Outbox, count: int, **more: Any) -> list[str]:
    """Put ``count`` events and wait until all are durably accepted; returns their ids."""
    envelopes = [make_envelope(outbox, **more) for _ in range(count)]
    before = outbox.stats().accepted
    for envelope in envelopes:
        outbox.put(envelope)
    until(lambda: outbox.stats().accepted == before + count, "all are accepted")
    return [envelope.id for envelope in envelopes]


def stored_ids(db_dir: Path) -> list[str]:
    """The ids in the landing database, in no order; empty before there is one."""
    path = db_dir / "landing.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)) as db:
        try:
            return [row[0] for row in db.execute("SELECT id FROM events")]
        except sqlite3.OperationalError:  # its writer is just making the table
            return []


@contextmanager
def running_ingest(url: str, db_dir: Path, **more: Any) -> Iterator[Ingest]:
    """An ingest in a thread, stopped with a deadline."""
    ingest = Ingest(url, db_dir, reconnect=FAST, **more)
    stop = threading.Event()
    thread = threading.Thread(target=ingest.run, args=(stop,))
    thread.start()
    try:
        yield ingest
    finally:
        stop.set()
        thread.join(10.0)
        assert not thread.is_alive()


@contextmanager
def running_sender(
    url: str, outbox: Outbox, options: SendOptions = FAST_SEND, route: Route | None = None
) -> Iterator[Sender]:
    """A sender of ``outbox``, closed at the end."""
    sender = Sender(outbox, parse_broker_url(url), ADDRESS, options=options, route=route)
    sender.start()
    try:
        yield sender
    finally:
        sender.close()


class Mosquitto:
    """A mosquitto process on loopback that keeps nothing on disk."""

    def __init__(self, folder: Path, config: Sequence[str] = ("allow_anonymous true",)) -> None:
        if MOSQUITTO is None:
            reason = "needs mosquitto (make system-deps)"
            pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._config = folder / "mosquitto.conf"
        # `user root`: started as root it would become `mosquitto`, who cannot read the test's folder.
        lines = [f"listener {self.port} 127.0.0.1", "persistence false", "user root", *config]
        self._config.write_text("\n".join(lines) + "\n")
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [str(MOSQUITTO), "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self._answers, "mosquitto listens")

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait(5.0)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        paho_publish.single(topic, payload, qos=1, retain=retain, hostname="127.0.0.1", port=self.port)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def running_mosquitto(folder: Path, config: Sequence[str] = ("allow_anonymous true",)) -> Iterator[Mosquitto]:
    broker = Mosquitto(folder, config)
    try:
        yield broker
    finally:
        broker.kill()


class Child:
    """One of the programs below in a process of its own, which can be killed."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "tests.unit.cloud_sync.programs", *map(str, arguments)]
        self._process = subprocess.Popen(command, cwd=ROOT)

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait(5.0)

    def wait(self, timeout_s: float = 20.0) -> int:
        return self._process.wait(timeout_s)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()


def counts(thing: Any) -> Mapping[str, Any]:
    """A stats dataclass as a dict, for messages and comparisons."""
    return {name: getattr(thing, name) for name in thing.__slots__}
