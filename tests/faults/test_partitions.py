"""Networks that swallow, reset, lie and crawl between a device and its broker.

Times are scaled: the keepalive is 1 s here instead of 15, and the delays between attempts end at 0.4 s instead of 30. The slow test
waits the real 15 s.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from edgecv.cloud_sync.delivery.sender import Sender
from edgecv.cloud_sync.envelope import Stamp, envelope_from_event
from edgecv.cloud_sync.mqtt.broker_url import parse_broker_url
from edgecv.cloud_sync.outbox.outbox import Outbox
from edgecv.cloud_sync.sink import MqttSink
from tests.faults.events import made_event
from tests.faults.harness import World
from tests.faults.proxy import FaultProxy, Mode
from tests.faults.script import PARTITIONS, make_script
from tests.unit.cloud_sync.support import (
    ADDRESS,
    FAST_SEND,
    SMALL,
    Mosquitto,
    running_ingest,
    running_mosquitto,
    stored_ids,
    until,
)

SEED = 17
SILENT: tuple[Mode, ...] = ("black_hole", "upward", "downward", "half_open")
_HOUR_S = 3600


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with running_mosquitto(tmp_path) as broker:
        yield broker


def test_partitions_of_every_kind_lose_nothing(tmp_path: Path) -> None:
    steps = make_script(SEED, len(PARTITIONS), PARTITIONS, pause_s=0.2, hold_s=0.5)
    with World(tmp_path) as world:
        world.play(steps)
        verdict = world.finish()
    verdict.require_perfect()
    assert verdict.faults == dict.fromkeys(PARTITIONS, 1), verdict


def noticed_s(folder: Path, broker: Mosquitto, mode: Mode, keepalive_s: int, *, busy: bool) -> float:
    """How long a device takes to notice a silent partition."""
    options = replace(FAST_SEND, keepalive_s=keepalive_s)
    with FaultProxy(broker.port) as proxy, ExitStack() as held:
        sink = MqttSink(
            proxy.url, tenant="t", device=folder.name, outbox=folder, limits=SMALL, options=options, drain_s=0.0
        )
        held.callback(sink.close)
        until(lambda: sink.stats().connected, "a connection")
        start_s = float("inf")
        for number in range(200 * keepalive_s):  # 0.02 s each: four keepalives
            if busy:  # until the very moment of the fault something comes back
                sink.emit_event(made_event(folder.name, number))
            if number == 25:
                proxy.set(mode)
                start_s = time.monotonic()
            if number > 25 and not sink.stats().connected:
                return time.monotonic() - start_s
            time.sleep(0.02)
        raise AssertionError(f"{mode} is not noticed")


@pytest.mark.parametrize("keepalive_s", [2, pytest.param(15, marks=pytest.mark.slow)])
def test_a_silent_partition_is_noticed_within_two_keepalives(
    mosquitto: Mosquitto, tmp_path: Path, keepalive_s: int
) -> None:
    cases = [(mode, busy) for mode in SILENT for busy in (False, True)]
    with ThreadPoolExecutor(len(cases)) as pool, running_ingest(mosquitto.url, tmp_path / "db"):
        took = pool.map(
            lambda case: noticed_s(tmp_path / f"{case[0]}-{case[1]}", mosquitto, case[0], keepalive_s, busy=case[1]),
            cases,
        )
        found = dict(zip(cases, took, strict=True))
    print({f"{mode}{' busy' if busy else ''}": round(s, 2) for (mode, busy), s in found.items()})
    assert max(found.values()) <= 2 * keepalive_s, found


def test_an_hour_offline_is_delivered_and_what_was_worth_thirty_minutes_is_counted(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    """In fast-forward: the outbox has an injected clock that goes on one second per event, 3,600 of them, in a black hole."""
    now_s = [1_700_000_000]
    outbox = Outbox(tmp_path / "outbox", limits=SMALL, clock=lambda: now_s[0] * 10**9)
    options = replace(FAST_SEND, keepalive_s=1)
    with FaultProxy(mosquitto.port) as proxy, running_ingest(mosquitto.url, tmp_path / "db") as ingest:
        sender = Sender(outbox, parse_broker_url(proxy.url), ADDRESS, options=options)
        sender.start()
        until(lambda: sender.stats().connected and ingest.stats().connected, "both connected")
        proxy.set("black_hole")
        until(lambda: not sender.stats().connected, "the loss is noticed")
        for second in range(_HOUR_S):
            now_s[0] += 1
            event = made_event("hour", second)
            envelope = envelope_from_event(
                event, Stamp(address=ADDRESS, boot=outbox.boot, seq=outbox.next_seq()), mono_ns=0
            )
            outbox.put(envelope, ttl_s=1800.0 if second % 4 == 3 else None)
            if second % 100 == 0:
                until(lambda: outbox.stats().queued < 200, "the disk keeps up", pause_s=0.001)
        until(lambda: not outbox.stats().queued, "everything is on the disk")
        now_s[0] += 1
        proxy.set("passing")
        assert sender.drain(30.0), (sender.stats(), outbox.stats())
        assert sender.close()
    stats = outbox.stats()
    outbox.close()
    old = len([second for second in range(_HOUR_S) if second % 4 == 3 and second + 1 + 1800 <= _HOUR_S + 1])
    assert (stats.accepted, stats.refused, stats.expired) == (_HOUR_S, 0, old), stats
    ids = stored_ids(tmp_path / "db")
    assert len(ids) == len(set(ids)) == _HOUR_S - old
