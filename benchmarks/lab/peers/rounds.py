"""Runs the sides in turns, each time in a new process, and sums up what they said; a side that fails keeps its reason."""

from __future__ import annotations

import json
import re
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median

import msgspec

from edgecv.benchmarks.lab.peers.sides import Side
from edgecv.benchmarks.lab.process_tree import Measured, run_measured
from edgecv.errors import EdgeCVError

_TIMEOUT_S = 300.0
_APP_RATE = re.compile(r"Throughput:\s*([0-9.]+)\s*FPS")
_APP_FRAMES = re.compile(r"Count:\s*(\d+)\s*iterations")
_FEWEST_ROUNDS = 3


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one side.

    Attributes:
        fps: Frames per second as the side says, once it has begun.
        peak_pss_mb: The most memory of its process tree, in MB of 10^6 bytes, shared pages divided.
        peak_rss_mb: The same with shared pages in full.
        wall_s: From start to end of the process, loading included.
        cpu_s: Processor time of the process tree, loading included.
        frames: Frames that the rate is of.
        counts: Boxes of each frame; empty where none are made.
    """

    fps: float
    peak_pss_mb: float = 0.0
    peak_rss_mb: float = 0.0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    frames: int = 0
    counts: tuple[int, ...] = ()


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One side over all rounds: medians, and the lowest and highest frame rate; or the reason why it has no figures.

    Attributes:
        side: Which.
        fps: Median.
        fps_range: Lowest and highest.
        rounds_fps: Of each round.
        peak_pss_mb: Median.
        peak_rss_mb: Median.
        wall_s: Median.
        cpu_s: Median.
        frames: Frames of a run.
        boxes: Per frame; ``None`` where none are made.
        agreement: Part of the frames with as many boxes as EdgeCV found in the same group.
        reason: Why it has no figures.
    """

    side: Side
    fps: float = 0.0
    fps_range: tuple[float, float] = (0.0, 0.0)
    rounds_fps: tuple[float, ...] = ()
    peak_pss_mb: float = 0.0
    peak_rss_mb: float = 0.0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    frames: int = 0
    boxes: float | None = None
    agreement: float | None = None
    reason: str = ""


Say = Callable[[str], None]


def run_rounds(sides: Sequence[Side], rounds: int, longest_s: float, say: Say) -> list[Summary]:
    """Run every side in each round; the one that begins changes from round to round.

    After three rounds no new one begins that would probably end after ``longest_s``. A side that fails once is left out of the
    rounds that follow.
    """
    turns: dict[int, list[Turn]] = {at: [] for at in range(len(sides))}
    reasons = {at: side.missing for at, side in enumerate(sides) if side.missing}
    start_s = time.monotonic()
    for number in range(rounds):
        elapsed_s = time.monotonic() - start_s
        if number >= _FEWEST_ROUNDS and elapsed_s * (number + 1) / number > longest_s:
            say(f"{number} rounds in {elapsed_s:.0f} s: no time for another")
            break
        for at in _order(len(sides), number):
            if at not in reasons:
                reasons.update(_turn(sides[at], turns[at], say, at))
    return summed_up(sides, [turns[at] for at in range(len(sides))], reasons)


def _order(count: int, number: int) -> list[int]:
    """Forward and backward in turns, from another first side in each round."""
    first = number * 5 % count
    order = [*range(first, count), *range(first)]
    return order[::-1] if number % 2 else order


def _turn(side: Side, turns: list[Turn], say: Say, at: int) -> dict[int, str]:
    """Run it once; the reason when it failed."""
    try:
        turn = run_side(side)
    except EdgeCVError as error:
        say(f"{side.group} | {side.name}: {error.message}")
        return {at: error.message}
    turns.append(turn)
    say(f"{side.group} | {side.name}: {turn.fps:.1f} fps, {turn.peak_pss_mb:.0f} MB, {turn.cpu_s:.1f} s of processor")
    return {}


def run_side(side: Side) -> Turn:
    """One run in a process of its own.

    Raises:
        EdgeCVError: it failed, took too long or gave no figures.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "out.jsonl"
        more = ("--out", f"jsonl:{lines}") if side.reads == "edgecv" else ()
        done = run_measured((*side.command, *more), timeout_s=_TIMEOUT_S, pss=True, cwd=Path(folder))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        counts = _counted(lines)
    said = read_answer(side, done)
    return msgspec.structs.replace(
        said,
        peak_pss_mb=done.peak_pss_bytes / 1e6,
        peak_rss_mb=done.peak_rss_bytes / 1e6,
        wall_s=done.wall_s,
        cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        counts=counts or said.counts,
    )


def _counted(lines: Path) -> tuple[int, ...]:
    """Boxes of each frame, from the JSON lines of ``edgecv run``."""
    if not lines.exists():
        return ()
    return tuple(len(json.loads(line)["detections"]) for line in lines.read_text().splitlines())


def read_answer(side: Side, done: Measured) -> Turn:
    """What a side said of itself.

    Raises:
        EdgeCVError: it failed or gave no figures.
    """
    if done.code != 0:
        how = "took too long" if done.code is None else f"ended with code {done.code}"
        raise EdgeCVError(f"{how}: {_last_line(done.stderr) or _last_line(done.stdout) or 'it said nothing'}")
    try:
        return _of_app(done.stdout) if side.reads == "benchmark_app" else _of_json(done.stdout)
    except (ValueError, KeyError, TypeError) as error:
        raise EdgeCVError(f"gave no figures: {done.stdout[-200:]!r}", "Run its command alone.") from error


def _of_json(text: str) -> Turn:
    """The last document on stdout, of one or many lines."""
    text = text.strip()
    document = json.loads(text[max(0, text.rfind("\n{") + 1) :])
    return Turn(fps=float(document["fps"]), frames=int(document["frames"]), counts=tuple(document.get("counts", ())))


def _of_app(text: str) -> Turn:
    rate, frames = _APP_RATE.search(text), _APP_FRAMES.search(text)
    if rate is None or frames is None:
        raise ValueError("no throughput")
    return Turn(fps=float(rate[1]), frames=int(frames[1]))


def summed_up(sides: Sequence[Side], turns: Sequence[Sequence[Turn]], reasons: Mapping[int, str]) -> list[Summary]:
    """Medians of each side; the first of EdgeCV in a group is what the boxes of the others are compared with."""
    reference: dict[str, tuple[int, ...]] = {}
    found = []
    for at, side in enumerate(sides):
        if at in reasons or not turns[at]:
            found.append(Summary(side=side, reason=reasons.get(at, "was not run")))
            continue
        counts = turns[at][0].counts
        if side.reads == "edgecv":
            reference.setdefault(side.group, counts)
        found.append(_summary(side, turns[at], reference.get(side.group, ())))
    return found


def _summary(side: Side, turns: Sequence[Turn], reference: Sequence[int]) -> Summary:
    rates = tuple(round(turn.fps, 2) for turn in turns)
    counts = turns[0].counts
    return Summary(
        side=side,
        fps=round(median(rates), 2),
        fps_range=(min(rates), max(rates)),
        rounds_fps=rates,
        peak_pss_mb=round(median(turn.peak_pss_mb for turn in turns), 1),
        peak_rss_mb=round(median(turn.peak_rss_mb for turn in turns), 1),
        wall_s=round(median(turn.wall_s for turn in turns), 2),
        cpu_s=round(median(turn.cpu_s for turn in turns), 2),
        frames=turns[0].frames,
        boxes=round(mean(counts), 2) if counts else None,
        agreement=agreement(counts, reference),
    )


def agreement(counts: Sequence[int], reference: Sequence[int]) -> float | None:
    """Part of the frames, as far as both go, in which as many boxes were found."""
    both = list(zip(counts, reference, strict=False))
    return round(sum(one == other for one, other in both) / len(both), 3) if both else None


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]
