"""How old the rows of an events file are, whatever the clock of the system says meanwhile."""

from __future__ import annotations

from edgecv.pipelines.sinks.video.ring_order import Clocks

_SANE_NS = 1_577_836_800 * 10**9  # 2020: a clock that says less was never set
_SHORT_NS = 24 * 3600 * 10**9  # an absence that is believed at once
_SETTLED_NS = 600 * 10**9  # a clock that ran on for so long without a jump is believed
_JUMP_NS = 60 * 10**9


class AgeClock:
    """A time that counts only what really passed, as that of ``RingOrder``: a clock that jumps makes no event older.

    It goes on with the steady clock. What passed while nothing ran is added once the clock of the system is believed.

    Args:
        last_ns: Where this time stood when an earlier run noted it.
        last_wall_ns: What the clock of the system said then; 0 where there was no earlier run.
        clocks: The time.
    """

    def __init__(self, last_ns: int, last_wall_ns: int, clocks: Clocks) -> None:
        self._clocks = clocks
        self._base_ns = last_ns or clocks.wall()
        self._last_wall_ns = last_wall_ns
        self._began_ns = self._seen_ns = self._calm_since_ns = clocks.steady()
        self._seen_wall_ns = clocks.wall()
        self._is_settled = not last_wall_ns

    def now_ns(self) -> int:
        """The time by which rows grow old, nanoseconds."""
        return self._base_ns + self._clocks.steady() - self._began_ns

    def wall_ns(self) -> int | None:
        """What to note beside ``now_ns`` for the next run; ``None`` while that of an earlier one is still needed."""
        return self._clocks.wall() if self._is_settled else None

    def settle(self) -> int:
        """Look at the clocks; gives by how much this time went on at once, which the rows of this run have to follow."""
        if self._is_settled:
            return 0
        now_ns, wall_ns = self._clocks.steady(), self._clocks.wall()
        if abs((wall_ns - self._seen_wall_ns) - (now_ns - self._seen_ns)) > _JUMP_NS:
            self._calm_since_ns = now_ns
        self._seen_ns, self._seen_wall_ns = now_ns, wall_ns
        away_ns = wall_ns - (now_ns - self._began_ns) - self._last_wall_ns
        is_calm = now_ns - self._calm_since_ns >= _SETTLED_NS or self._clocks.is_synced()
        is_short = self._last_wall_ns >= _SANE_NS and 0 <= away_ns <= _SHORT_NS
        if not (is_calm or is_short):
            return 0
        self._is_settled = True
        if min(self._last_wall_ns, wall_ns) < _SANE_NS or away_ns <= 0:
            return 0
        self._base_ns += away_ns
        return away_ns
