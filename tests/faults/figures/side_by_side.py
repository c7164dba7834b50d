"""EdgeCV and others on one fault script: ``python -m tests.faults.figures.side_by_side [--faults 39] [--seed 17] [--kinds all]``.

Each takes part in a run of its own with the same faults in the same order. It prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from tests.faults.harness import run
from tests.faults.judge import Verdict
from tests.faults.others import OTHERS
from tests.faults.script import KILLS, PARTITIONS, STALLS, FaultKind, make_script

_KINDS: Mapping[str, Sequence[FaultKind]] = MappingProxyType(
    {"all": (*KILLS, *STALLS, *PARTITIONS), "kills": KILLS, "partitions": PARTITIONS}
)
_COLUMNS = (
    "device",
    "faults",
    "offered",
    "accepted",
    "stored",
    "accepted, not stored",
    "offered, not stored",
    "rows too many",
)


def row(device: str, verdict: Verdict) -> str:
    """A line of the table."""
    counts = (verdict.offered, verdict.accepted, verdict.stored, verdict.lost, verdict.missing, verdict.duplicates)
    return " | ".join((f"| {device}", str(verdict.happened), *(f"{count:,}" for count in counts))) + " |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--faults", type=int, default=39)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--rate", type=float, default=400.0)
    parser.add_argument("--kinds", default="all", choices=tuple(_KINDS))
    parser.add_argument("--devices", nargs="*", default=["edgecv", *OTHERS])
    args = parser.parse_args()
    print("| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS), sep="\n", flush=True)
    for device in args.devices:
        with tempfile.TemporaryDirectory() as name:
            start_s = time.monotonic()
            steps = make_script(args.seed, args.faults, _KINDS[args.kinds])
            verdict, _ = run(Path(name), steps, device=device, rate=args.rate)
            print(row(device, verdict), flush=True)
            print(
                f"<!-- {time.monotonic() - start_s:.0f} s, load {os.getloadavg()[0]:.1f}, {dict(verdict.faults)} -->",
                flush=True,
            )


if __name__ == "__main__":
    main()
