"""kill -9 of every part: whatever was accepted is stored exactly once.

The device process writes the id of every accepted event into a log (its obligations); the landing database is judged
against that log.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecv.cloud_sync.sink import MqttSink
from tests.unit.cloud_sync.support import (
    FAST_SEND,
    SMALL,
    Child,
    Mosquitto,
    make_result,
    running_ingest,
    running_mosquitto,
    stored_ids,
    until,
)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with running_mosquitto(tmp_path) as broker:
        yield broker


def obligations(log: Path) -> list[str]:
    """Complete lines only: the last one may have been cut by the kill."""
    return log.read_text().split("\n")[:-1] if log.exists() else []


def assert_nothing_lost_or_doubled(log: Path, db_dir: Path) -> None:
    accepted, stored = obligations(log), stored_ids(db_dir)
    assert set(accepted) <= set(stored), f"lost {len(set(accepted) - set(stored))} of {len(accepted)}"
    assert len(stored) == len(set(stored))


def test_a_device_killed_in_the_middle_loses_nothing_it_accepted(mosquitto: Mosquitto, tmp_path: Path) -> None:
    log, db_dir = tmp_path / "log", tmp_path / "db"
    rng = random.Random(7)
    with running_ingest(mosquitto.url, db_dir):
        for kills in range(1, 4):
            with Child("device", mosquitto.url, tmp_path / "outbox", log, 100_000) as device:
                goal = len(obligations(log)) + rng.randrange(30, 120)
                until(lambda goal=goal: len(obligations(log)) > goal, f"events before kill {kills}")
                device.kill()
        with Child("device", mosquitto.url, tmp_path / "outbox", log, 10) as device:
            assert device.wait() == 0
    assert len(obligations(log)) > 100
    assert len({name.split(":")[0] for name in stored_ids(db_dir)}) == 4  # every boot delivered
    assert_nothing_lost_or_doubled(log, db_dir)


def test_a_broker_killed_without_persistence_loses_nothing(mosquitto: Mosquitto, tmp_path: Path) -> None:
    log, db_dir = tmp_path / "log", tmp_path / "db"
    with (
        running_ingest(mosquitto.url, db_dir) as ingest,
        Child("device", mosquitto.url, tmp_path / "outbox", log, 400) as device,
    ):
        for goal in (50, 150, 250):
            until(lambda goal=goal: len(obligations(log)) > goal, f"{goal} events")
            mosquitto.kill()
            until(lambda: not ingest.stats().connected, "ingest notices")
            mosquitto.start()
        assert device.wait() == 0
    assert len(obligations(log)) == 400
    assert_nothing_lost_or_doubled(log, db_dir)


def test_an_ingest_killed_around_its_commits_loses_nothing(mosquitto: Mosquitto, tmp_path: Path) -> None:
    log, db_dir = tmp_path / "log", tmp_path / "db"
    rng = random.Random(3)
    with Child("device", mosquitto.url, tmp_path / "outbox", log, 1500) as device:
        for _ in range(3):
            with Child("ingest", mosquitto.url, db_dir) as ingest:
                before = len(stored_ids(db_dir))
                until(lambda before=before: len(stored_ids(db_dir)) > before, "a commit")
                time.sleep(rng.uniform(0.0, 0.05))
                ingest.kill()
        with running_ingest(mosquitto.url, db_dir):
            assert device.wait(30.0) == 0
    assert len(obligations(log)) == 1500
    assert_nothing_lost_or_doubled(log, db_dir)


def test_a_pipeline_runs_on_while_the_broker_is_away_and_delivers_when_it_is_back(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    sink = MqttSink(
        mosquitto.url, tenant="t", device="d", outbox=tmp_path / "o", limits=SMALL, options=FAST_SEND, drain_s=15.0
    )
    until(lambda: sink.stats().connected, "a connection")
    mosquitto.kill()
    until(lambda: not sink.stats().connected, "the loss is noticed")
    start_s = time.perf_counter()
    for index in range(200):
        sink.emit(make_result(index))
    assert time.perf_counter() - start_s < 2.0
    until(lambda: sink.stats().pending == 200, "200 events on disk")
    mosquitto.start()
    with running_ingest(mosquitto.url, tmp_path / "db"):
        sink.close()
    assert sink.stats().pending == 0
    assert len(stored_ids(tmp_path / "db")) == 200
