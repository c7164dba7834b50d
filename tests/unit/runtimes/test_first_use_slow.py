"""Several threads that use a runtime first, all at once, in many fresh processes: none may wait for ever."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgecv import registry
from tests.conftest import CHECKOUT
from tests.contract.test_runtimes import RUNTIMES, Row

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PROCESSES = 200  # before the mend, OpenVINO hung in 7 of 60
AT_A_TIME = 2
DEADLINE_S = 60


def _ending(row: Row, path: Path, when: str) -> str:
    """How one process ended; empty for well."""
    command = [sys.executable, "-m", "tests.unit.runtimes.first_use", row.name, str(path), when]
    try:
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    except subprocess.TimeoutExpired:
        return f"hung for {DEADLINE_S} s"
    return "" if done.returncode == 0 else f"exit code {done.returncode}: {done.stderr[-300:]}"


@pytest.mark.parametrize(("when", "processes"), [("loaded", PROCESSES), ("loading", PROCESSES // 4)])
@pytest.mark.parametrize("row", RUNTIMES, ids=lambda row: row.name)
def test_threads_that_use_a_runtime_first_together_all_get_their_answer(
    row: Row, when: str, processes: int, tmp_path: Path
) -> None:
    pytest.importorskip(registry.resolve("runtimes", row.name).package)
    path = row.build(tmp_path)
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        endings = list(pool.map(lambda _: _ending(row, path, when), range(processes)))
    assert [ending for ending in endings if ending] == []
