"""The search of ``edgecv tune``: which cell is the fastest. It knows no model; ``measure`` and ``gate`` are handed in.

Screen every cell briefly; measure the survivors in turns, and drop those that are surely slower; let the last three take turns
in short blocks until their order is sure. What differs by less than 3 % is a tie: fewer threads win, then less memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import log
from statistics import median

from edgecv.devices.tuning.cells import Cell, CellResult
from edgecv.devices.tuning.rules import RULES, Gate, Measure, Outcome, Rules
from edgecv.errors import EdgeCVError
from edgecv.runtimes.paired import log_ratios, median_interval


@dataclass(slots=True, eq=False)
class _Trial:
    cell: Cell
    place: int  # in the order of preference
    stage: str = "not measured"
    reason: str = ""
    medians: list[float] = field(default_factory=list)  # of the blocks of the stage it is in
    runs: int = 0
    rss_bytes: int = 0

    @property
    def score(self) -> float:
        """The median of its blocks; in the screening its best block."""
        return min(self.medians) if self.stage == "screened" else median(self.medians)

    def enter(self, stage: str) -> None:
        self.stage, self.medians = stage, []

    def result(self) -> CellResult:
        return CellResult(
            cell=self.cell,
            stage=self.stage,
            median_ms=round(self.score, 4) if self.medians else None,
            rss_bytes=self.rss_bytes,
            runs=self.runs,
            reason=self.reason,
        )


class Contest:
    """One search; ``run`` is called once."""

    def __init__(
        self,
        cells: Sequence[Cell],
        measure: Measure,
        gate: Gate,
        *,
        clock: Callable[[], float],
        budget_s: float = 90.0,
        disturbed: Callable[[], str] = lambda: "",
        release: Callable[[Cell], None] = lambda _: None,
        progress: Callable[[str, int, int], None] = lambda *_: None,
        rules: Rules = RULES,
    ) -> None:
        """Take note of the cells; nothing is measured yet.

        Args:
            cells: What takes part, in the order of preference.
            measure: Runs a cell.
            gate: Asked once for each variant on each runtime and device.
            clock: Seconds, monotonic.
            budget_s: No block begins later than this, and no round of the final that would end later.
            disturbed: What happened since it was last asked that makes a block worthless, such as throttling; that block is
                measured once more.
            release: Told of each cell that is not needed any more.
            progress: Told of each stage.
            rules: The constants.
        """
        self._trials = [_Trial(cell, place) for place, cell in enumerate(cells)]
        self._measure, self._gate = measure, gate
        self._clock, self._budget_s, self._began_s = clock, budget_s, clock()
        self._disturbed, self._release, self._progress = disturbed, release, progress
        self._rules = rules
        self._verdicts: dict[tuple[str, str, str], str] = {}

    def run(self) -> Outcome:
        """Search; a cell that cannot run is left out, with the reason."""
        alive = self._halve(self._screen())
        finalists = self._final(alive)
        chosen = _by_tie_rule(finalists, self._rules.tie) if finalists else None
        ordered = sorted(self._trials, key=lambda trial: (trial is not chosen, *_rank(trial)))
        return Outcome(results=tuple(trial.result() for trial in ordered), elapsed_s=self._clock() - self._began_s)

    def _time_left(self, share: float = 1.0, for_s: float = 0.0) -> bool:
        return self._clock() - self._began_s + for_s < share * self._budget_s

    def _screen(self) -> list[_Trial]:
        for at, trial in enumerate(self._trials):
            self._progress("Screening", at, len(self._trials))
            self._look(trial)
        self._progress("Screening", len(self._trials), len(self._trials))
        seen = [trial for trial in self._trials if trial.medians]
        best = min((trial.score for trial in seen), default=0.0)
        for trial in seen:
            if self._rules.slower < trial.score / best < self._rules.second_look:
                self._block(trial, self._rules.screen_s, self._rules.screen_share)
        best = min((trial.score for trial in seen), default=0.0)
        limit = f"slower than {self._rules.slower:g} times the best"
        return self._keep(seen, lambda trial: trial.score <= self._rules.slower * best, limit)

    def _look(self, trial: _Trial) -> None:
        share = self._rules.screen_share
        if not self._time_left(share):
            trial.reason = f"the time for screening ended ({share:.0%} of the budget)"
        elif refused := self._refusal(trial.cell):
            trial.stage, trial.reason = "refused", refused
        else:
            trial.enter("screened")
            self._block(trial, self._rules.screen_s)

    def _refusal(self, cell: Cell) -> str:
        key = (cell.variant, cell.runtime, cell.device)
        if key not in self._verdicts:
            self._verdicts[key] = self._gate(cell)
        return self._verdicts[key]

    def _halve(self, alive: list[_Trial]) -> list[_Trial]:
        if len(alive) < 2 or not self._time_left(self._rules.halve_share):
            return alive
        screened = {trial.place: trial.medians for trial in alive}
        for trial in alive:
            trial.enter("halved")
        for number in range(self._rules.halve_rounds):
            self._progress("Halving", number, self._rules.halve_rounds)
            for trial in _rotated(alive, number):
                self._block(trial, self._rules.halve_s, self._rules.halve_share)
        self._progress("Halving", self._rules.halve_rounds, self._rules.halve_rounds)
        for trial in alive:
            if not trial.medians and not trial.reason:
                trial.stage, trial.medians = "screened", screened[trial.place]
        return self._survivors([trial for trial in alive if trial.medians])

    def _survivors(self, alive: list[_Trial]) -> list[_Trial]:
        leader = min(alive, key=lambda trial: trial.score, default=None)
        if leader is None:
            return []
        highest = max(leader.medians)
        kept = self._keep(alive, lambda trial: min(trial.medians) <= highest, "always slower than the best")
        order = sorted(kept, key=lambda trial: trial.score)
        last = set(order[: self._rules.finalists])
        return self._keep(order, lambda trial: trial in last, f"not one of the best {self._rules.finalists}")

    def _final(self, alive: list[_Trial]) -> list[_Trial]:
        if len(alive) < 2 or not self._time_left():
            return alive
        earlier = {trial.place: (trial.stage, trial.medians) for trial in alive}
        seconds = {trial.place: self._block_s(trial.score) for trial in alive}
        for trial in alive:
            trial.enter("final")
        for number in range(self._rules.most_rounds):
            self._progress("Final", number, self._rules.most_rounds)
            if not self._time_left(for_s=sum(seconds[trial.place] for trial in alive)):
                break
            for trial in _rotated(alive, number):
                self._block(trial, seconds[trial.place])
            alive = [trial for trial in alive if not trial.reason]
            if len(alive) < 2 or self._is_settled(alive):
                break
        self._progress("Final", self._rules.most_rounds, self._rules.most_rounds)
        if not all(trial.medians for trial in alive):  # the budget ended in the first round
            for trial in alive:
                trial.stage, trial.medians = earlier[trial.place]
        return alive

    def _block_s(self, median_ms: float) -> float:
        return min(self._rules.longest_block_s, self._rules.block_runs * median_ms / 1e3)

    def _is_settled(self, alive: list[_Trial]) -> bool:
        """Whether it is known of every finalist that it is slower than the leader, or that they tie."""
        if min(len(trial.medians) for trial in alive) < self._rules.fewest_rounds or not self._time_left():
            return False  # where the time ended in the middle of a round there is no next one either
        leader = min(alive, key=lambda trial: trial.score)
        return all(self._is_known(leader, trial) for trial in alive if trial is not leader)

    def _is_known(self, leader: _Trial, other: _Trial) -> bool:
        low, high = median_interval(log_ratios(leader.medians, other.medians))
        return low > log(self._rules.tie) or (high < log(self._rules.tie) and low > -log(self._rules.sure))

    def _block(self, trial: _Trial, seconds: float, share: float = 1.0) -> None:
        """Measure once, where there is time; once more where something disturbed it."""
        if trial.reason or not self._time_left(share):
            return
        self._disturbed()
        try:
            block = self._measure(trial.cell, seconds)
            if self._disturbed() and self._time_left(share):
                block = self._measure(trial.cell, seconds)
        except EdgeCVError as error:
            trial.stage, trial.reason, trial.medians = "failed", error.message, []
            self._release(trial.cell)
            return
        trial.medians.append(median(block.times_ms))
        trial.runs += len(block.times_ms)
        trial.rss_bytes = block.rss_bytes or trial.rss_bytes

    def _keep(self, trials: list[_Trial], fits: Callable[[_Trial], bool], otherwise: str) -> list[_Trial]:
        for trial in trials:
            if not fits(trial):
                trial.reason = otherwise
                self._release(trial.cell)
        return [trial for trial in trials if not trial.reason]


def _by_tie_rule(finalists: list[_Trial], tie: float) -> _Trial:
    leader = min(finalists, key=lambda trial: trial.score)
    tied = [trial for trial in finalists if _ratio(leader, trial) < log(tie)]
    return min(tied, key=lambda trial: (trial.cell.threads, trial.rss_bytes, trial.place))


def _ratio(leader: _Trial, other: _Trial) -> float:
    """Logarithm of how much slower the other is: of rounds in turns where there are any."""
    if len(leader.medians) == len(other.medians) and leader.stage == other.stage == "final":
        return median(log_ratios(leader.medians, other.medians))
    return log(other.score / leader.score)


def _rank(trial: _Trial) -> tuple[int, float, int]:
    stages = {"final": 0, "halved": 1, "screened": 2}
    return stages.get(trial.stage, 3), trial.score if trial.medians else 0.0, trial.place


def _rotated(trials: Sequence[_Trial], number: int) -> list[_Trial]:
    """The order of a round: the next one begins, and every second round goes backwards (A B, B A)."""
    if len(trials) == 2:
        return list(trials) if number % 4 in (0, 3) else list(reversed(trials))
    start = number % len(trials)
    turned = [*trials[start:], *trials[:start]]
    return turned if number % 2 == 0 else turned[::-1]
