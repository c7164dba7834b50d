"""What goes wrong, in which order: a fault script, made from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Kill = Literal["kill device", "kill broker", "kill ingest"]
Stall = Literal["stall device", "stall broker", "stall ingest"]
Partition = Literal["black_hole", "upward", "downward", "slow", "refusing", "half_open", "reset"]
FaultKind = Kill | Stall | Partition

KILLS: Sequence[FaultKind] = get_args(Kill)
STALLS: Sequence[FaultKind] = get_args(Stall)
PARTITIONS: Sequence[FaultKind] = get_args(Partition)


@dataclass(frozen=True, slots=True)
class Step:
    """One fault."""

    kind: FaultKind
    pause_s: float  # undisturbed time before it
    hold_s: float  # how long it lasts; for a kill, how long the process stays dead


def make_script(
    seed: int, count: int, kinds: Sequence[FaultKind], *, pause_s: float = 0.6, hold_s: float = 0.4
) -> list[Step]:
    """``count`` faults, each kind as often as the others, in a random order; times are at most twice the given ones."""
    rng = random.Random(seed)
    order = [kinds[n % len(kinds)] for n in range(count)]
    rng.shuffle(order)
    return [Step(kind, rng.uniform(0.1, 2.0) * pause_s, rng.uniform(0.4, 2.0) * hold_s) for kind in order]
