"""Whether sending events slows the frames down.

``python -m tests.faults.figures.frames BUNDLE VIDEO [--pairs 9] [--frames 300] [--threads 2]``

Each pair is two runs of ``edgecv run`` in processes of their own, in alternating order: with ``--mqtt``, nobody at the broker's
address and every flush of the outbox 500 ms late, and without ``--mqtt``. It prints the slow-down of the frame rate of each pair,
their median, and its 95 % interval by the ranks of the binomial (of 9 pairs the 2nd and the 8th: 96.1 %).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from math import comb
from pathlib import Path
from statistics import median

from tests.faults.preload import DiskControl, build, environment
from tests.unit.cloud_sync.support import ROOT, free_port

_STALL_MS = 500


def fps(args: argparse.Namespace, folder: Path, library: Path, *, sends: bool) -> float:
    """The frame rate that one run reports."""
    command = [
        sys.executable,
        "-m",
        "edgecv",
        "run",
        args.bundle,
        "--source",
        args.video,
        "--threads",
        str(args.threads),
    ]
    command += ["--max-frames", str(args.frames), "--out", f"jsonl:{folder}/results.jsonl", "--json"]
    env = dict(os.environ)
    if sends:
        control = DiskControl(folder / "control")
        control.set(stall_ms=_STALL_MS)
        outbox = folder / "outbox"
        command += [
            "--mqtt",
            f"mqtt://127.0.0.1:{free_port()}",
            "--tenant",
            "acme",
            "--device",
            "cam-1",
            "--outbox",
            str(outbox),
        ]
        env = dict(environment(library, outbox, control=control))
    env["PYTHONPATH"] = f"{ROOT}:{env.get('PYTHONPATH', '')}"
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=900, check=False)
    if not done.stdout:
        raise SystemExit(done.stderr)
    report = json.loads(done.stdout)
    return float(report["fps"])


def rank(pairs: int) -> int:
    """The k-th smallest and largest value enclose the median with at least 95 %."""
    k = 0
    while 1 - 2 * sum(comb(pairs, i) for i in range(k + 1)) / 2**pairs >= 0.95:
        k += 1
    return k


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("video")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.bundle, args.video = (str(Path(name).resolve()) for name in (args.bundle, args.video))
    slower = []
    with tempfile.TemporaryDirectory() as name:
        library = build(Path(name))
        for pair in range(args.pairs):
            found = {}
            for sends in (pair % 2 == 0, pair % 2 == 1):
                folder = Path(name) / f"{pair}-{sends}"
                folder.mkdir()
                found[sends] = fps(args, folder, library, sends=sends)
            slower.append(found[False] / found[True] - 1)
            said = f"without {found[False]:.2f}, with {found[True]:.2f} frames a second, slow-down {slower[-1]:+.2%}"
            print(f"pair {pair + 1}: {said}, load {os.getloadavg()[0]:.1f}", flush=True)
    slower.sort()
    k = rank(len(slower))
    print(
        f"slow-down: median {median(slower):+.2%}, 95 % interval {slower[k - 1]:+.2%} to {slower[-k]:+.2%}"
        if k
        else f"median {median(slower):+.2%}"
    )


if __name__ == "__main__":
    main()
