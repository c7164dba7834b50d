"""The example that brings a store to ClickHouse, run against its engine (chdb) through the client that the example uses.

Neither is installed with EdgeCV: ``pip install clickhouse-connect chdb`` into an environment and name its Python in
``EDGECV_CLICKHOUSE_PYTHON``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edgecv.cloud_sync.ingest.database import EventDatabase
from edgecv.cloud_sync.store.forget import forget, new_tombstone
from edgecv.cloud_sync.store.writer import StoreWriter
from tests.conftest import CHECKOUT
from tests.unit.cloud_sync.store_support import NOON_S, event, merge, store, value

PYTHON = os.environ.get("EDGECV_CLICKHOUSE_PYTHON", sys.executable)
EXAMPLE = CHECKOUT / "docs/examples/clickhouse/load.py"
ASK = "import json, sys, clickhouse_connect as c; print(json.dumps(c.get_client(dsn=sys.argv[1]).query(sys.argv[2]).result_rows))"


def run(*arguments: object) -> str:
    done = subprocess.run(
        [PYTHON, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False, cwd=CHECKOUT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def engine() -> None:
    found = subprocess.run(
        [PYTHON, "-c", "import chdb, clickhouse_connect"], capture_output=True, timeout=60, check=False
    )
    if found.returncode:
        pytest.skip("needs clickhouse-connect and chdb; see EDGECV_CLICKHOUSE_PYTHON")


class ClickHouse:
    def __init__(self, folder: Path) -> None:
        self.dsn = f"chdb://{folder}"

    def load(self, folder: Path) -> int:
        return int(run(EXAMPLE, folder, self.dsn).split()[0])

    def ask(self, sql: str) -> Sequence[Any]:
        return json.loads(run("-c", ASK, self.dsn, sql))  # type: ignore[no-any-return]


@pytest.mark.slow
def test_a_store_in_clickhouse_has_each_event_once_and_forgets(tmp_path: Path) -> None:
    first, second, house = tmp_path / "a", tmp_path / "b", ClickHouse(tmp_path / "clickhouse")
    store(first, [event(seq) for seq in range(1, 101)])
    # Another member got half of the same events again, later, and some of another device.
    again = [event(seq, received_s=NOON_S + 60) for seq in range(51, 101)]
    store(second, [*again, *(event(seq, device="cam-2") for seq in range(1, 11))])
    merge(first)
    merge(second)
    assert house.load(first) == 200  # events and detections
    assert house.load(first) == 0
    assert house.load(second) == 120
    counted = "SELECT device, count() FROM {table} FINAL GROUP BY device ORDER BY device"
    for table in ("events", "detections"):
        assert house.ask(counted.format(table=table)) == [["cam-1", 100], ["cam-2", 10]]
    ours = value([first, second], "SELECT sum(score) FROM detections")
    [[theirs]] = house.ask("SELECT sum(score) FROM detections FINAL")
    assert theirs == pytest.approx(ours)
    tombstone = new_tombstone("acme", "cam-2", int((NOON_S - 10) * 1e6), int((NOON_S + 10) * 1e6))
    with closing(EventDatabase(second)) as landing:
        forget(StoreWriter(landing), tombstone)
    house.load(second)
    assert house.ask(counted.format(table="events")) == [["cam-1", 100]]
