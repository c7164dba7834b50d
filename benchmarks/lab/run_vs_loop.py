"""What ``edgecv run`` keeps of the frame rate of a bare loop (read, letterbox, ``session.run``), and the memory it needs.

``python -m edgecv.benchmarks.lab run_vs_loop BUNDLE VIDEO [--threads 2] [--frames 300] [--rounds 3] [--json]``
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Literal

import msgspec

from edgecv.benchmarks.lab.figures import print_figures
from edgecv.benchmarks.memory import read_memory
from edgecv.benchmarks.process import call_module
from edgecv.errors import SourceError
from edgecv.media.video_reader import VideoReader
from edgecv.model import load

_SideName = Literal["run", "loop", "spinning_loop"]
_SIDES: tuple[_SideName, ...] = ("run", "loop", "spinning_loop")


class _Task(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one side."""

    side: _SideName
    bundle: str
    video: str
    threads: int
    frames: int


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """Frames per second of one process, and its memory: at the end and the most."""

    fps: float
    rss_bytes: int
    peak_rss_bytes: int


class RunVersusLoop(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over the rounds.

    Attributes:
        run_fps: ``edgecv run``.
        loop_fps: The loop with threads that sleep while they wait, as in the pipeline.
        spinning_loop_fps: The loop with threads that spin, ONNX Runtime's default.
        ratio: ``run_fps`` against the faster of the two loops.
        run_peak_rss_mb: The most memory of ``edgecv run``, in MB of 10^6 bytes.
        loop_peak_rss_mb: The same of the loops.
        rounds_fps: Run, loop and spinning loop of each round.
    """

    run_fps: float
    loop_fps: float
    spinning_loop_fps: float
    ratio: float
    run_peak_rss_mb: float
    loop_peak_rss_mb: float
    rounds_fps: list[tuple[float, ...]]


def run_versus_loop(
    bundle: str | Path, video: str | Path, *, threads: int = 2, frames: int = 300, rounds: int = 3
) -> RunVersusLoop:
    """Measure the sides in turns, each time in a new process; the one that begins changes from round to round.

    Raises:
        EdgeCVError: one of them failed.
    """
    sides: dict[_SideName, list[Side]] = {name: [] for name in _SIDES}
    for number in range(rounds):
        first = number % len(_SIDES)
        for name in (*_SIDES[first:], *_SIDES[:first]):
            task = _Task(side=name, bundle=str(bundle), video=str(video), threads=threads, frames=frames)
            sides[name].append(_in_child(task))
    return _compared(sides)


def _in_child(task: _Task) -> Side:
    answer = call_module("edgecv.benchmarks.lab", "run_vs_loop", "--child=" + msgspec.json.encode(task).decode())
    return msgspec.json.decode(answer, type=Side)


def _compared(sides: dict[_SideName, list[Side]]) -> RunVersusLoop:
    fps = {name: median(side.fps for side in sides[name]) for name in _SIDES}
    loops = [*sides["loop"], *sides["spinning_loop"]]
    return RunVersusLoop(
        run_fps=round(fps["run"], 2),
        loop_fps=round(fps["loop"], 2),
        spinning_loop_fps=round(fps["spinning_loop"], 2),
        ratio=round(fps["run"] / max(fps["loop"], fps["spinning_loop"]), 4),
        run_peak_rss_mb=round(max(side.peak_rss_bytes for side in sides["run"]) / 1e6, 1),
        loop_peak_rss_mb=round(max(side.peak_rss_bytes for side in loops) / 1e6, 1),
        rounds_fps=[tuple(round(side.fps, 2) for side in row) for row in zip(*sides.values(), strict=True)],
    )


def _run(task: _Task) -> float:
    """``edgecv run`` itself, writing JSON lines; its frame rate."""
    from edgecv.cli.run import run

    shown = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(shown):
        run(
            bundle=Path(task.bundle),
            source=[task.video],
            precision="int8",
            threads=task.threads,
            max_frames=task.frames,
            out=[f"jsonl:{folder}/out.jsonl"],
            json=True,
        )
    return float(json.loads(shown.getvalue())["fps"])


def _loop(task: _Task) -> float:
    """The loop that one would write by hand; its frame rate."""
    spinning = task.side == "spinning_loop"
    with load(task.bundle, precision="int8", threads=task.threads, extra={"spinning": spinning}) as model:
        reader = VideoReader(task.video)
        done, start = 0, time.perf_counter()
        while done < task.frames and (image := reader.read()) is not None:
            feeds, _ = model.prepare(image)
            model.session.run(feeds)
            done += 1
        elapsed_s = time.perf_counter() - start
        reader.close()
    if not done:
        raise SourceError(f"{task.video} has no frames.", "Give another video.", code="eof")
    return done / elapsed_s


def _child(text: str) -> None:
    task = msgspec.json.decode(text, type=_Task)
    fps = _run(task) if task.side == "run" else _loop(task)
    memory = read_memory()
    answer = Side(fps=fps, rss_bytes=memory.rss_bytes, peak_rss_bytes=memory.peak_rss_bytes)
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m edgecv.benchmarks.lab run_vs_loop", description=__doc__)
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("video", type=Path, nargs="?")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        _child(given.child)
        return
    if given.bundle is None or given.video is None:
        parser.error("BUNDLE and VIDEO are needed")
    found = run_versus_loop(given.bundle, given.video, threads=given.threads, frames=given.frames, rounds=given.rounds)
    print_figures(msgspec.to_builtins(found), given.json)
