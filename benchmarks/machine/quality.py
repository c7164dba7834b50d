"""Says whether a measurement is clean, from what was seen of the machine meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgecv.benchmarks.machine.processor_time import Shares
from edgecv.benchmarks.report import TOO_SHORT, Quality

_MOST_FOREIGN = 0.10  # parts of the usable processors' time
_MOST_STOLEN = 0.02
_MOST_SPEED_CHANGE = 0.03
_MOST_DRIFT = 0.05
_SHORTEST_S = 1.0  # counters of the kernel move in hundredths of a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was seen while something was measured; ``None`` is unknown.

    Attributes:
        elapsed_s: How long it took.
        shares: What others used meanwhile.
        speed_change: By which part a loop ran faster afterwards than before.
        throttled: How often the device slowed itself.
        settled: Whether the times were stable when the warm-up ended.
        drift: By which part the second half of the times was slower than the first.
        switches: How often the kernel took the processor away.
    """

    elapsed_s: float
    shares: Shares | None = None
    speed_change: float = 0.0
    throttled: int | None = None
    settled: bool = True
    drift: float | None = None
    switches: int = 0


def judge_quality(seen: Seen) -> Quality:
    """Clean, or noisy with every reason; and what could not be read, which is no proof of either."""
    reasons = tuple(_reasons(seen))
    return Quality(
        verdict="noisy" if reasons else "clean",
        reasons=reasons,
        unknown=tuple(_unknown(seen)),
        foreign_share=None if seen.shares is None else round(seen.shares.foreign, 4),
        stolen_share=None if seen.shares is None else round(seen.shares.stolen, 4),
        speed_change=round(seen.speed_change, 4),
        throttle_events=seen.throttled,
        switches_per_s=round(seen.switches / max(seen.elapsed_s, 1e-3), 1),
    )


def _reasons(seen: Seen) -> Iterator[str]:
    if seen.elapsed_s < _SHORTEST_S:
        yield f"{seen.elapsed_s:.2f} s are {TOO_SHORT}"
    elif seen.shares is not None:
        yield from _others(seen.shares)
    if abs(seen.speed_change) > _MOST_SPEED_CHANGE:
        yield f"the machine counted {abs(seen.speed_change):.0%} {'faster' if seen.speed_change > 0 else 'slower'} afterwards"
    if seen.throttled:
        yield f"the device slowed itself {seen.throttled} times"
    if not seen.settled:
        yield "the times were not stable when the warm-up ended"
    if seen.drift is not None and abs(seen.drift) > _MOST_DRIFT:
        yield f"the second half was {abs(seen.drift):.0%} {'slower' if seen.drift > 0 else 'faster'} than the first"


def _others(shares: Shares) -> Iterator[str]:
    if shares.foreign > _MOST_FOREIGN:
        yield f"other programs used {shares.foreign:.0%} of the processors"
    if shares.stolen > _MOST_STOLEN:
        yield f"the host of this virtual machine kept {shares.stolen:.0%} of the processors"


def _unknown(seen: Seen) -> Iterator[str]:
    if seen.shares is None:
        yield "what other programs used"
    if seen.throttled is None:
        yield "whether the device slowed itself"
