"""How much is on its way at a time, and in which order it leaves."""

from __future__ import annotations

import queue
import random
import sqlite3
import string
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest

from edgecv.cloud_sync.delivery.options import SendOptions
from edgecv.cloud_sync.envelope import Stamp, envelope_from_event, envelope_from_result
from edgecv.cloud_sync.outbox.outbox import Outbox
from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.results import Detections, Frame, Result
from tests.security.hostile_broker import (
    MAXIMUM_PACKET_SIZE,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBLISH,
    RECEIVE_MAXIMUM,
    HostileBroker,
    Peer,
    connack,
    packet,
)
from tests.unit.cloud_sync.support import (
    ADDRESS,
    FAST,
    FAST_SEND,
    SMALL,
    put_accepted,
    running_ingest,
    running_mosquitto,
    running_sender,
    until,
)

KIB = 1024
NOISE = random.Random(0)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path / "outbox", limits=SMALL)
    yield outbox
    outbox.close()


def put_noise(outbox: Outbox, count: int, size: int) -> None:
    """Events that zlib cannot shrink to less than three quarters."""
    before = outbox.stats().accepted
    for _ in range(count):
        noise = "".join(NOISE.choices(string.ascii_letters + string.digits, k=size))
        stamp = Stamp(address=ADDRESS, boot=outbox.boot, seq=outbox.next_seq())
        outbox.put(envelope_from_event(Event(kind="loud", time_ns=0, data={"noise": noise}), stamp, mono_ns=0))
    until(lambda: outbox.stats().accepted == before + count, "all are accepted")


class Meter:
    """A broker that takes its time, and notes what was on its way to it at once."""

    def __init__(self, properties: bytes = b"") -> None:
        self.most_messages = self.most_bytes = self.largest = 0
        self._properties = properties
        self._open: queue.SimpleQueue[tuple[bytes, int]] = queue.SimpleQueue()
        self._bytes = 0

    def __call__(self, peer: Peer) -> None:
        peer.read()  # with ack="broker" nothing is subscribed to
        peer.send(connack(self._properties))
        threading.Thread(target=self._answer, args=(peer,), daemon=True).start()
        while True:
            first, body = peer.read()
            if first & 0xF0 == PUBLISH:
                size = int.from_bytes(body[:2], "big")
                self._bytes += len(body)
                self._open.put((body[2 + size : 4 + size], len(body)))
                self.most_messages = max(self.most_messages, self._open.qsize())
                self.most_bytes = max(self.most_bytes, self._bytes)
                self.largest = max(self.largest, len(body))
            elif first == PINGREQ:
                peer.send(packet(PINGRESP))

    def _answer(self, peer: Peer) -> None:
        with suppress(OSError):  # the client is gone
            while True:
                time.sleep(0.02)  # a network: what is sent in the meantime piles up
                for _ in range(self._open.qsize()):
                    mid, size = self._open.get()
                    self._bytes -= size
                    peer.send(packet(PUBACK, mid))


def test_no_more_bytes_are_on_their_way_than_azure_event_grid_takes(outbox: Outbox) -> None:
    """It allows 64 KB in flight and ends the connection of who sends more."""
    put_noise(outbox, 300, 2000)
    meter = Meter()
    options = SendOptions(ack="broker", resend=FAST_SEND.resend, reconnect=FAST, batch_events=10)
    with HostileBroker(meter) as broker, running_sender(f"{broker.url}?protocol=5", outbox, options) as sender:
        assert sender.drain(20.0)
    assert 30 * KIB < meter.most_bytes <= 60 * KIB
    assert meter.largest <= 60 * KIB
    assert sender.stats().resent == 0


@pytest.mark.parametrize(("window", "allowed"), [(8 * KIB, 8 * KIB), (200 * KIB, 200 * KIB)])
def test_the_window_in_bytes_can_be_chosen(outbox: Outbox, window: int, allowed: int) -> None:
    put_noise(outbox, 120, 2000)
    meter = Meter()
    options = SendOptions(ack="broker", resend=FAST_SEND.resend, reconnect=FAST, batch_events=2, window_bytes=window)
    with HostileBroker(meter) as broker, running_sender(f"{broker.url}?protocol=5", outbox, options) as sender:
        assert sender.drain(20.0)
    assert allowed / 4 < meter.most_bytes <= allowed


def test_a_batch_is_never_larger_than_60_kib_and_an_event_that_is_goes_alone(outbox: Outbox) -> None:
    put_noise(outbox, 40, 4000)
    put_noise(outbox, 1, 100_000)
    put_noise(outbox, 3, 4000)
    meter = Meter()
    with HostileBroker(meter) as broker:
        options = SendOptions(ack="broker", resend=FAST_SEND.resend, reconnect=FAST)
        with running_sender(f"{broker.url}?protocol=5", outbox, options) as sender:
            assert sender.drain(20.0)
    assert meter.largest == meter.most_bytes > 60 * KIB  # the large one, and nothing beside it
    assert outbox.stats().acknowledged == 44


def test_results_that_grow_when_they_are_written_for_readers_keep_to_60_kib(outbox: Outbox) -> None:
    frame = Frame(image=np.zeros((1080, 1920, 3), np.uint8))
    boxes = np.random.default_rng(0).uniform(0, 1000, (20, 4)).astype(np.float32)
    found = Detections(xyxy=boxes, confidence=np.full(20, 0.5, np.float32), class_id=np.zeros(20, np.int64))
    for _ in range(200):
        stamp = Stamp(address=ADDRESS, boot=outbox.boot, seq=outbox.next_seq())
        outbox.put(envelope_from_result(Result(frame=frame, detections=found), stamp))
    until(lambda: outbox.stats().accepted == 200, "all are accepted")
    meter = Meter()
    options = SendOptions(ack="broker", resend=FAST_SEND.resend, reconnect=FAST)
    with HostileBroker(meter) as broker, running_sender(f"{broker.url}?protocol=5", outbox, options) as sender:
        assert sender.drain(20.0)
    assert 20 * KIB < meter.largest <= 60 * KIB


def test_what_a_broker_says_of_itself_narrows_the_window(outbox: Outbox) -> None:
    put_noise(outbox, 100, 2000)
    says = bytes([RECEIVE_MAXIMUM]) + (3).to_bytes(2, "big") + bytes([MAXIMUM_PACKET_SIZE]) + (5000).to_bytes(4, "big")
    meter = Meter(says)
    options = SendOptions(ack="broker", resend=FAST_SEND.resend, reconnect=FAST)
    with HostileBroker(meter) as broker, running_sender(f"{broker.url}?protocol=5", outbox, options) as sender:
        assert sender.drain(20.0)
    assert meter.most_messages <= 3
    assert meter.largest <= 5000
    assert (outbox.stats().dead, sender.stats().parked) == (0, 0)


def test_a_slow_line_is_not_filled_with_repetitions(outbox: Outbox) -> None:
    """On one connection nothing is lost: what the broker has not taken yet is not sent again."""

    def script(peer: Peer) -> None:
        peer.welcome()
        peer.serve(acknowledge=False)

    put_accepted(outbox, 100)
    with HostileBroker(script) as broker, running_sender(broker.url, outbox) as sender:
        until(lambda: sender.stats().published == 2, "both batches are out")
        time.sleep(1.5)  # three times the delay of a repetition
        assert sender.stats().published == 2


def test_live_events_overtake_a_backlog_that_is_capped(tmp_path: Path, outbox: Outbox) -> None:
    put_accepted(outbox, 3000, priority="telemetry")
    options = SendOptions(resend=FAST_SEND.resend, reconnect=FAST, drain_events_s=400.0)
    with running_mosquitto(tmp_path) as broker, running_ingest(broker.url, tmp_path / "db"):
        began_s = time.monotonic()
        with running_sender(broker.url, outbox, options):
            until(lambda: outbox.stats().acknowledged > 0, "the backlog drains")
            for _ in range(5):
                live = put_accepted(outbox, 3, priority="telemetry")
                emitted_s = time.monotonic()
                until(lambda live=live: set(live) <= stored(tmp_path / "db"), "live events arrive", timeout_s=5.0)
                assert time.monotonic() - emitted_s < 2.0
                time.sleep(0.25)
            drained, took_s = outbox.stats().acknowledged - 15, time.monotonic() - began_s
            assert 0.4 * 400 * took_s < drained <= 400 * (took_s + 1.0) + options.batch_events
            late = put_accepted(outbox, 1, priority="alarm")
            until(lambda: set(late) <= stored(tmp_path / "db"), "an alarm arrives", timeout_s=2.0)
            assert outbox.stats().pending > 0


def stored(folder: Path) -> set[str]:
    with closing(sqlite3.connect(f"file:{folder}/landing.db?mode=ro", uri=True, timeout=5.0)) as db:
        return {row[0] for row in db.execute("SELECT id FROM events")}


@pytest.mark.parametrize(
    "wrong",
    [
        {"window_bytes": 100},
        {"batch_bytes": 0},
        {"drain_events_s": 0.0},
        {"drain_events_s": -1},
        {"window_bytes": True},
    ],
    ids=str,
)
def test_a_window_or_rate_that_is_none_is_a_config_error(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        SendOptions(**wrong)  # type: ignore[arg-type]
