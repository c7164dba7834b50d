"""Whether ``edgecv tune`` finds the best cell: it runs several times, then every cell is measured in turns for longer.

``python -m edgecv.benchmarks.lab tune_check BUNDLE [--times 5] [--rounds 30] [--json]``. A run is right when its cell is at most
3 % slower than the best one of that check, and is judged at 5 %: two measurements of the same cell differ, too.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from edgecv.benchmarks.lab.figures import print_figures
from edgecv.bundles.bundle import Bundle
from edgecv.devices.tuning.cells import Cell
from edgecv.devices.tuning.tune import TuneOptions, tune
from edgecv.devices.tuning.workshop import workshop

_BLOCK_S = 0.5
_JUDGED_AT = 1.05
_CANDIDATES = 5  # of the cells that lost, only the quickest are measured again


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneCheck:
    """What the runs chose, and how much slower than the best that is."""

    seconds: tuple[float, ...]  # of each run
    chosen: tuple[Cell, ...]  # by each run
    check_ms: dict[Cell, float]  # median of the medians of all rounds
    load: float  # of the machine at the end, over one minute

    @property
    def ratios(self) -> list[float]:
        """Of each run: the time of its cell over that of the best one."""
        best_ms = min(self.check_ms.values())
        return [self.check_ms[cell] / best_ms for cell in self.chosen]

    def as_dict(self) -> dict[str, object]:
        """The figures, rounded."""
        return {
            "seconds": [round(value, 1) for value in self.seconds],
            "chosen": [str(cell) for cell in self.chosen],
            "ratios": [round(value, 3) for value in self.ratios],
            "right": sum(value <= _JUDGED_AT for value in self.ratios),
            "check_ms": {str(cell): round(ms, 2) for cell, ms in self.check_ms.items()},
            "load": round(self.load, 2),
        }


def tune_check(path: Path, times: int, rounds: int) -> TuneCheck:
    """Tune several times, then measure the chosen cells and the best of the others in turns; errors as ``tune``."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EDGECV_CACHE"] = folder
        records = [tune(path, TuneOptions(again=True)).record for _ in range(times)]
    chosen = tuple(record.results[0].cell for record in records)
    others = [result.cell for record in records for result in record.results[:_CANDIDATES]]
    cells = tuple(dict.fromkeys((*chosen, *others)))
    return TuneCheck(
        seconds=tuple(record.elapsed_s for record in records),
        chosen=chosen,
        check_ms=_in_turns(Bundle.open(path), cells, rounds),
        load=os.getloadavg()[0],
    )


def _in_turns(bundle: Bundle, cells: Sequence[Cell], rounds: int) -> dict[Cell, float]:
    medians: dict[Cell, list[float]] = {cell: [] for cell in cells}
    with workshop(bundle) as shop:
        for cell in cells:
            shop.measure(cell, _BLOCK_S)
        for number in range(rounds):
            start = number % len(cells)
            for cell in (*cells[start:], *cells[:start]):
                medians[cell].append(median(shop.measure(cell, _BLOCK_S).times_ms))
    return {cell: median(values) for cell, values in medians.items()}


def main() -> None:
    """Read the arguments and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m edgecv.benchmarks.lab tune_check", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    given = parser.parse_args()
    print_figures(tune_check(given.bundle, given.times, given.rounds).as_dict(), given.json)
