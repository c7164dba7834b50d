"""Which events give way to a new one when an outbox, or a lane of it, is full."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edgecv.cloud_sync.envelope import PRIORITIES
from edgecv.cloud_sync.outbox.accounts.tally import DEAD, LANES, Tally
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


class Room:
    """Finds room for rows within limits, which are looked up once."""

    def __init__(self, limits: OutboxLimits) -> None:
        self._kept = tuple(limits.reserved_bytes(name) for name in PRIORITIES)
        self._most = tuple(limits.lane_bytes(name) for name in PRIORITIES)
        self._drops_oldest = tuple(limits.drops_oldest(name) for name in PRIORITIES)
        self._dead = limits.most_dead_bytes
        self._all = limits.quota_bytes

    def make(
        self, row: Row, older: Kept | None, tally: Tally, unsent: Callable[[int], Iterator[Kept]]
    ) -> Sequence[Kept] | None:
        """The rows that give way to ``row``; ``None`` when they would not be enough, and ``row`` is to be refused.

        A full lane of the kind that drops its oldest does so. Then the less urgent lanes give way, the least urgent first, down
        to what is kept for each. ``older`` goes in any case, since ``row`` takes its place. ``unsent`` lists the rows of a lane
        that are not on their way, oldest first.
        """
        if older is not None:
            tally = tally.copy()
            tally.remove(older.lane, older.body_bytes)
        own, total = self._missing(tally, row.priority, row.cost_bytes)
        if not own and not total:
            return ()
        drops = self._drops_oldest[row.priority]
        oldest = _others(unsent(row.priority), older) if drops else iter(())
        victims = _at_least(oldest, own)
        freed = sum(victim.cost_bytes for victim in victims)
        if freed < own:
            return None
        total -= freed
        for lane in range(LANES[-1], row.priority, -1):
            spare = tally.used[lane] - self._kept[lane]
            given = _at_least(_others(unsent(lane), older), min(total, spare), most=spare)
            victims += given
            total -= sum(victim.cost_bytes for victim in given)
        if total > 0:
            given = _at_least(oldest, total)
            victims += given
            total -= sum(victim.cost_bytes for victim in given)
        return victims if total <= 0 else None

    def _missing(self, tally: Tally, lane: int, cost_bytes: int) -> tuple[int, int]:
        """What has to go from the lane itself, and from the outbox as a whole, before a row of this cost fits.

        What is kept for the other lanes counts as used. Of a lane that holds more than it may, since its limits or those of
        an older EdgeCV were others, no more goes than comes.
        """
        used = tally.used
        total = used[lane] + cost_bytes + max(used[DEAD], self._dead) - self._all
        for other in LANES:
            if other != lane:
                total += max(used[other], self._kept[other])
        own = used[lane] + cost_bytes - self._most[lane]
        return min(max(own, 0), cost_bytes), min(max(total, 0), cost_bytes)


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
