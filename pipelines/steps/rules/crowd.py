"""Say that there are many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import msgspec

from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.pipelines.steps.options import checked
from edgecv.pipelines.steps.per_source import PerSource
from edgecv.pipelines.steps.regions import PLACE_KINDS
from edgecv.pipelines.steps.rules.latch import Latch
from edgecv.pipelines.steps.rules.options import AreaRule
from edgecv.pipelines.steps.rules.rule import AreaWatch
from edgecv.results import Result

_Count = Annotated[int, msgspec.Meta(ge=1, le=10_000)]


class Crowd(AreaRule, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``type = "crowd"``: say when at least so many objects were there for so long, and when that is over.

    Its events are ``crowd.began`` and ``crowd.ended``, its counts ``NAME.inside`` (now) and ``NAME.began``. Where a tracker
    runs before it, only confirmed objects count.

    Attributes:
        least: How many make a crowd.
        ends_below: A crowd is over when fewer than these are left; ``least`` by default.
    """

    gives_kinds: ClassVar[tuple[str, ...] | None] = ("crowd.began", "crowd.ended", *PLACE_KINDS)

    least: _Count
    ends_below: _Count | None = None
    for_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 5.0

    def build(self, labels: tuple[str, ...] = ()) -> PerSource:
        """The step for a model with these labels: a rule for each source.

        Raises ``ConfigError``: the area is none, the model has no such class, or the options contradict each other.
        """
        options = checked(self)
        if options.ends_below is not None and options.ends_below > options.least:
            raise ConfigError(
                f"'{options.name}' would end below {options.ends_below}, and begins at {options.least}.",
                "ends_below is at most as large as least.",
            )
        CrowdWatch(options, labels)  # what is wrong is said now, not at the first frame
        return PerSource(lambda _: CrowdWatch(options, labels), only=options.sources)


@dataclass(slots=True, eq=False)
class _Known:
    latch: Latch = field(default_factory=Latch)
    peak: int = 0


class CrowdWatch(AreaWatch[Crowd, _Known]):
    """Step that adds ``crowd.began`` and ``crowd.ended`` events of one source."""

    def __init__(self, options: Crowd, labels: tuple[str, ...]) -> None:
        super().__init__(options, labels, _Known(), ("began",))

    def _judge(self, result: Result) -> Iterator[Event]:
        options, kept = self._options, self._kept
        known = kept.known
        seen = self._look(result)
        places = self._area.places(seen)
        count = kept.totals["inside"] = len(places)
        enough = (options.ends_below or options.least) if known.latch.is_on else options.least
        known.peak = max(known.peak, count) if known.latch.is_on else count
        for turn in known.latch.see(count >= enough, kept.line, self._limits, kept.cooldown):
            data = {"count": count, "least": options.least, **self._only_label(result.labels)}
            if turn.until is None:
                kept.totals["began"] += 1
                data |= {"objects": seen.rows(places)}
                yield self._told("crowd.began", turn, result.frame, data)
            else:
                yield self._told("crowd.ended", turn, result.frame, {**data, "peak": known.peak})

    def _is_active(self) -> bool:
        return self._kept.known.latch.is_on
