"""``emit`` waits for neither disk nor network."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.figures.emit import measure

_STALL_MS = 300


def test_no_emit_waits_for_a_disk_that_stalls(tmp_path: Path) -> None:
    figures = measure(tmp_path, 1000, 500.0, _STALL_MS, 5)
    assert figures["max"] < _STALL_MS / 2, (
        figures
    )  # a busy machine may add a lot, a wait for the disk would be all of it
    assert figures["refused"] == 0, figures


@pytest.mark.slow
def test_emit_takes_less_than_a_millisecond_at_the_999th_of_a_thousand(tmp_path: Path) -> None:
    figures = measure(tmp_path, 12_000, 400.0, 500, 5)
    print(figures)
    assert figures["p99.9"] < 1.0 + figures["spin_p99.9"], figures
