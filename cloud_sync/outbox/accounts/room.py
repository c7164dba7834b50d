"""Which events give way to a new one when an outbox, or a lane of it, is full."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edgecv.cloud_sync.envelope import PRIORITIES
from edgecv.cloud_sync.outbox.accounts.tally import LANES, Tally
from edgecv.cloud_sync.outbox.limits import OutboxLimits
from edgecv.cloud_sync.outbox.rows import ROW_OVERHEAD_BYTES, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A row on disk that may go."""

    n: int
    lane: int
    body_bytes: int

    @property
    def cost_bytes(self) -> int:
        return self.body_bytes + ROW_OVERHEAD_BYTES


def make_room(
    row: Row, older: Kept | None, tally: Tally, limits: OutboxLimits, unsent: Callable[[int], Iterator[Kept]]
) -> list[Kept] | None:
    """The rows that give way to ``row``; ``None`` when they would not be enough, and ``row`` is to be refused.

    A full lane of the kind that drops its oldest does so. Then the less urgent lanes give way, the least urgent first, down
    to what is kept for each. ``older`` goes in any case, since ``row`` takes its place. ``unsent`` lists the rows of a lane
    that are not on their way, oldest first.
    """
    tally = tally.copy()
    if older is not None:
        tally.remove(older.lane, older.body_bytes)
    own, total = tally.missing_bytes(limits, row.priority, row.cost_bytes)
    oldest = _others(unsent(row.priority), older) if limits.drops_oldest(PRIORITIES[row.priority]) else iter(())
    victims = _at_least(oldest, own)
    if sum(victim.cost_bytes for victim in victims) < own:
        return None
    total -= sum(victim.cost_bytes for victim in victims)
    for lane in range(LANES[-1], row.priority, -1):
        spare = tally.used[lane] - limits.reserved_bytes(PRIORITIES[lane])
        given = _at_least(_others(unsent(lane), older), min(total, spare), most=spare)
        victims += given
        total -= sum(victim.cost_bytes for victim in given)
    if total > 0:
        given = _at_least(oldest, total)
        victims += given
        total -= sum(victim.cost_bytes for victim in given)
    return victims if total <= 0 else None


def _others(rows: Iterator[Kept], older: Kept | None) -> Iterator[Kept]:
    return (kept for kept in rows if older is None or kept.n != older.n)


def _at_least(rows: Iterator[Kept], wanted_bytes: int, most: int | None = None) -> list[Kept]:
    """The first rows that free so much together, or all there are; never more than ``most`` bytes."""
    taken: list[Kept] = []
    freed = 0
    if wanted_bytes <= 0:
        return taken
    for kept in rows:
        if most is not None and freed + kept.cost_bytes > most:
            break
        taken.append(kept)
        freed += kept.cost_bytes
        if freed >= wanted_bytes:
            break
    return taken
