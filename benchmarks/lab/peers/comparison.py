"""``edgecv run`` and Ultralytics' predict on one video: each run is a process of its own, the sides take turns."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import msgspec

from edgecv.benchmarks.lab.process_tree import Measured, run_measured
from edgecv.bundles.bundle import Bundle
from edgecv.choosing import runnable, runtime_options
from edgecv.errors import EdgeCVError

OPENVINO_PEER = "ultralytics/openvino-int8"
ONNX_PEER = "ultralytics/onnx-int8"
_OURS = "edgecv/"
_TIMEOUT_S = 900.0


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared: a name, and the command that prints one JSON document with ``fps``."""

    name: str
    command: tuple[str, ...]


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one side.

    Attributes:
        fps: Frames per second as the side says.
        peak_pss_mb: The most memory of its process tree, in MB of 10^6 bytes, shared pages divided; looked at three times a second.
        peak_rss_mb: The same with shared pages in full, looked at ten times a second.
        wall_s: From start to end of the process, loading included.
    """

    fps: float
    peak_pss_mb: float
    peak_rss_mb: float
    wall_s: float


class SideFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Medians of one side over the rounds, and its frame rate in each of them."""

    fps: float
    peak_pss_mb: float
    peak_rss_mb: float
    wall_s: float
    rounds_fps: tuple[float, ...]


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """Our fastest runtime against a peer.

    Attributes:
        ours: The side that is ours.
        ratio: Ratio of the medians.
        round_ratio: Median of the rounds' own ratios; where it differs, something else used the machine: measure again.
        target: At least this.
    """

    ours: str
    ratio: float
    round_ratio: float
    target: float

    @property
    def met(self) -> bool:
        """Whether both ratios reach the target."""
        return min(self.ratio, self.round_ratio) >= self.target


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All sides, and our fastest against each peer."""

    sides: dict[str, SideFigures]
    against: dict[str, Ratio]


TARGETS: Mapping[str, float] = {OPENVINO_PEER: 1.35, ONNX_PEER: 5.0}
PSS_LIMIT_MB = 220.0


def our_sides(bundle: Path, video: Path, *, frames: int, threads: int, runtimes: Sequence[str] = ()) -> list[Side]:
    """``edgecv run`` with each runtime that the bundle's INT8 variants and this machine have, or with ``runtimes`` alone.

    It writes JSON lines, which the peers do not.

    Raises:
        ConfigError: the bundle has no INT8 variant.
    """
    pairs = runnable(Bundle.open(bundle), runtime_options(precision="int8"))
    names = [name for name in dict.fromkeys(name for _, name in pairs) if not runtimes or name in runtimes]
    common = ("--source", str(video), "--precision", "int8", "--threads", str(threads), "--max-frames", str(frames))
    command = (sys.executable, "-m", "edgecv", "run", str(bundle), *common, "--json")
    return [Side(name=_OURS + name, command=(*command, "--runtime", name)) for name in names]


def peer_side(name: str, model: Path, video: Path, *, frames: int, threads: int, torch_threads: int = 0) -> Side:
    """Ultralytics' predict on one of its exports; ``torch_threads`` as in ``open_yolo``."""
    program = ("-m", "edgecv.benchmarks.lab", "peer_predict")
    numbers = ("--frames", str(frames), "--threads", str(threads), "--torch-threads", str(torch_threads))
    return Side(name=name, command=(sys.executable, *program, str(model), str(video), *numbers))


def compare(sides: Sequence[Side], rounds: int) -> Comparison:
    """Run every side in each round; the one that begins changes from round to round.

    Raises:
        EdgeCVError: a side failed.
    """
    turns: dict[str, list[Turn]] = {side.name: [] for side in sides}
    for number in range(rounds):
        first = number % len(sides)
        for side in (*sides[first:], *sides[:first]):
            turn = _run(side)
            turns[side.name].append(turn)
            print(f"round {number + 1}: {side.name} {turn.fps:.1f} fps, {turn.peak_pss_mb:.0f} MB", file=sys.stderr)
    return compared(turns)


def compared(turns: Mapping[str, Sequence[Turn]]) -> Comparison:
    """Medians per side, and the ratios of our fastest."""
    sides = {name: _figures(of_side) for name, of_side in turns.items()}
    ours = [name for name in sides if name.startswith(_OURS)]
    if not ours:
        return Comparison(sides=sides, against={})
    best = max(ours, key=lambda name: sides[name].fps)
    against = {
        peer: Ratio(
            ours=best,
            ratio=round(sides[best].fps / sides[peer].fps, 4),
            round_ratio=round(median(a.fps / b.fps for a, b in zip(turns[best], turns[peer], strict=True)), 4),
            target=target,
        )
        for peer, target in TARGETS.items()
        if peer in sides
    }
    return Comparison(sides=sides, against=against)


def _figures(turns: Sequence[Turn]) -> SideFigures:
    return SideFigures(
        fps=round(median(turn.fps for turn in turns), 2),
        peak_pss_mb=round(median(turn.peak_pss_mb for turn in turns), 1),
        peak_rss_mb=round(median(turn.peak_rss_mb for turn in turns), 1),
        wall_s=round(median(turn.wall_s for turn in turns), 2),
        rounds_fps=tuple(round(turn.fps, 2) for turn in turns),
    )


def _run(side: Side) -> Turn:
    command = side.command
    with tempfile.TemporaryDirectory() as folder:
        if side.name.startswith(_OURS):
            command = (*command, "--out", f"jsonl:{folder}/out.jsonl")
        done = run_measured(command, timeout_s=_TIMEOUT_S, pss=True)
    return Turn(
        fps=_fps(side, done),
        peak_pss_mb=done.peak_pss_bytes / 1e6,
        peak_rss_mb=done.peak_rss_bytes / 1e6,
        wall_s=done.wall_s,
    )


def _fps(side: Side, done: Measured) -> float:
    """What the side says of itself: a document of one or many lines, the last thing on stdout."""
    text = done.stdout.strip()
    start = max(0, text.rfind("\n{") + 1)
    try:
        if done.code == 0:
            return float(json.loads(text[start:])["fps"])
    except (ValueError, KeyError) as error:
        raise EdgeCVError(f"{side.name} gave no figures: {text[-200:]!r}.", "Run its command alone.") from error
    reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    raise EdgeCVError(f"{side.name} ended with code {done.code}: {reason}", f"Run it alone: {' '.join(side.command)}")
