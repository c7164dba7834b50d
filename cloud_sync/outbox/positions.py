"""Which rows of an outbox were claimed: in memory, as positions, so that a million rows need no million entries."""

from __future__ import annotations

from dataclasses import dataclass, field

_END = 2**63 - 1
_MOST_SPANS = 64  # of one lane; connections that come and go leave gaps between what they claimed


@dataclass(slots=True, eq=False)
class Span:
    """Rows of one lane that nobody claimed: those after ``after``, up to and with ``last``."""

    after: int
    last: int = _END

    @property
    def is_backlog(self) -> bool:
        """Whether it lies before the mark."""
        return self.last != _END


@dataclass(slots=True)
class _Lane:
    backlog: list[Span] = field(default_factory=list)  # oldest first
    live: Span = field(default_factory=lambda: Span(-1))


class Positions:
    """What is unclaimed in each lane: the backlog, and what came after ``mark``."""

    def __init__(self, lanes: int) -> None:
        self._lanes = [_Lane() for _ in range(lanes)]

    def mark(self, last_n: int) -> None:
        """Call everything up to row ``last_n`` that is unclaimed now the backlog."""
        for lane in self._lanes:
            if lane.live.after < last_n:
                _append(lane.backlog, Span(lane.live.after, last_n))
            lane.live = Span(max(lane.live.after, last_n))

    def rewind(self, last_n: int) -> None:
        """Forget what was claimed: all up to row ``last_n`` is backlog again."""
        self._lanes = [_Lane([Span(-1, last_n)], Span(last_n)) for _ in self._lanes]

    def in_order(self, lanes: int, *, backlog: bool) -> list[tuple[int, Span]]:
        """Where to look for rows of the first ``lanes`` lanes: alarms, what came after the mark, and the backlog."""
        alarms = [(0, self._lanes[0].live), *((0, span) for span in self._lanes[0].backlog)]
        live = [(lane, self._lanes[lane].live) for lane in range(1, lanes)]
        old = [(lane, span) for lane in range(1, lanes) for span in self._lanes[lane].backlog] if backlog else []
        return [*alarms, *live, *old]

    def emptied(self, lane: int, span: Span) -> None:
        """Nothing is left in a span; to that of live rows more may come."""
        if span.is_backlog:
            self._lanes[lane].backlog.remove(span)

    def unclaimed(self, lane: int) -> list[Span]:
        """Every span of a lane, oldest first."""
        return [*self._lanes[lane].backlog, self._lanes[lane].live]

    def is_unclaimed(self, lane: int, n: int) -> bool:
        """Whether nobody claimed row ``n`` of a lane."""
        return any(span.after < n <= span.last for span in self.unclaimed(lane))


def _append(spans: list[Span], new: Span) -> None:
    """Add a span at the end, to the one before it where they meet."""
    if spans and (spans[-1].last >= new.after or len(spans) >= _MOST_SPANS):
        # Beyond the bound what was claimed between the two is offered once more; ingest absorbs it.
        spans[-1].last = new.last
    else:
        spans.append(new)
