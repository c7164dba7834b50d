"""kill -9 of device, broker (without persistence) and ingest, stalls and partitions, by a script from a seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.harness import run
from tests.faults.script import KILLS, PARTITIONS, STALLS, make_script

SEED = 17


def test_a_few_kills_of_every_part_lose_nothing(tmp_path: Path) -> None:
    verdict, _ = run(tmp_path, make_script(SEED, 6, KILLS, pause_s=0.3, hold_s=0.2))
    verdict.require_perfect()
    assert verdict.happened == 6, verdict


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sixty_kills_lose_nothing_of_twenty_thousand_events(tmp_path: Path) -> None:
    verdict, stats = run(tmp_path, make_script(SEED, 66, KILLS), rate=600.0)
    print(verdict, stats)
    verdict.require_perfect()
    assert verdict.happened >= 60, verdict
    assert verdict.accepted >= 20_000, verdict


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_kind_of_fault_together_loses_nothing(tmp_path: Path, seed: int) -> None:
    verdict, _ = run(tmp_path, make_script(seed, 52, (*KILLS, *STALLS, *PARTITIONS)))
    print(verdict)
    verdict.require_perfect()
    assert verdict.happened >= 45, verdict
