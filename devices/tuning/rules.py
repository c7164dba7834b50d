"""What the search of ``edgecv tune`` is told and what it answers: blocks, the gate, its constants, its outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgecv.devices.tuning.cells import Cell, CellResult, winner_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Times of a cell that were measured in one go."""

    times_ms: tuple[float, ...]
    rss_bytes: int = 0


class Measure(Protocol):
    """Runs a cell for a while. Its first call for a cell loads the model and warms up before it times anything."""

    def __call__(self, cell: Cell, seconds: float) -> Block:
        """Measure the cell for so many seconds.

        Raises:
            EdgeCVError: the cell cannot run; it is left out, with the reason.
        """
        ...


class Gate(Protocol):
    """Says whether the variant of a cell may be chosen."""

    def __call__(self, cell: Cell) -> str:
        """Why not; empty where it may."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The constants of the search; they are those of devices.md section 3 but where another source is said."""

    screen_s: float = 1.0
    screen_share: float = 0.6  # of the budget that the screening may take
    slower: float = 1.5  # a cell that is slower than the best by this factor is dropped after the screening
    second_look: float = 3.0  # up to this factor it may have been a bad moment: it is looked at once more
    halve_rounds: int = 4
    halve_s: float = 0.5  # of each round
    halve_share: float = 0.8
    finalists: int = 3
    block_runs: int = 12
    longest_block_s: float = 2.0
    fewest_rounds: int = 10  # the median of fewer ratios moved by 1 % from run to run (simulated at 3 % noise)
    most_rounds: int = 40
    tie: float = 1.03
    sure: float = 1.01


RULES = Rules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a search found: every cell, with its time or the reason why it has none."""

    results: tuple[CellResult, ...]  # every cell: the best first, those without a time last
    elapsed_s: float

    @property
    def best(self) -> Cell | None:
        """The cell to run; ``None`` where none could be measured."""
        return winner_of(self.results)


def best_of(results: Sequence[CellResult], fits: Callable[[Cell], bool], tie: float = RULES.tie) -> Cell | None:
    """The best of those cells of an ``Outcome`` that fit; ``None`` where none of them has a time.

    Each input shape had a search of its own, whose winner is taken where it fits: nothing was compared as surely. Else the rule
    for ties decides.
    """
    timed = [(result, result.median_ms) for result in results if result.median_ms is not None and fits(result.cell)]
    winners = {result.cell.shape: result for result in reversed(results)}
    if not timed or timed[0][0] is winners[timed[0][0].cell.shape]:
        return timed[0][0].cell if timed else None
    quickest = min(ms for _, ms in timed)
    tied = [result for result, ms in timed if ms < tie * quickest]
    return min(tied, key=lambda result: (result.cell.threads, result.rss_bytes)).cell
