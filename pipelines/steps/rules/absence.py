"""Say that nothing was there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar

import msgspec

from edgecv.events import Event
from edgecv.pipelines.steps.options import checked
from edgecv.pipelines.steps.per_source import PerSource
from edgecv.pipelines.steps.regions import PLACE_KINDS
from edgecv.pipelines.steps.rules.latch import Latch
from edgecv.pipelines.steps.rules.options import AreaRule
from edgecv.pipelines.steps.rules.rule import AreaWatch
from edgecv.pipelines.steps.rules.seen import Seen
from edgecv.results import Result


class Absence(AreaRule, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``type = "absence"``: say when nothing was there for so long, and when something is there again.

    Its events are ``absence.began`` and ``absence.ended``, its counts ``NAME.inside`` (now) and ``NAME.began``. Frames that a
    gate skips count as those before them: with the gate ``motion`` it is said at the next frame that passes, with the time at which
    it was so.

    Attributes:
        for_s: How long nothing must have been there, seconds.
        clear_s: It is over when something was there for this long, seconds; by default at once.
    """

    gives_kinds: ClassVar[tuple[str, ...] | None] = ("absence.began", "absence.ended", *PLACE_KINDS)

    for_s: Annotated[float, msgspec.Meta(gt=0, le=864_000)]
    clear_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 0.0

    def build(self, labels: tuple[str, ...] = ()) -> PerSource:
        """The step for a model with these labels: a rule for each source.

        Raises ``ConfigError``: the area is none, or the model has no such class.
        """
        options = checked(self)
        AbsenceWatch(options, labels)  # what is wrong is said now, not at the first frame
        return PerSource(lambda _: AbsenceWatch(options, labels), only=options.sources)


@dataclass(slots=True, eq=False)
class _Known:
    latch: Latch = field(default_factory=Latch)
    before: tuple[Seen, list[int]] | None = None  # what was there in the last frame
    last: list[dict[str, Any]] = field(default_factory=list)  # what was there last


class AbsenceWatch(AreaWatch[Absence, _Known]):
    """Step that adds ``absence.began`` and ``absence.ended`` events of one source."""

    def __init__(self, options: Absence, labels: tuple[str, ...]) -> None:
        super().__init__(options, labels, _Known(), ("began",))
        self._limits = replace(self._limits, fills=True)

    def _judge(self, result: Result) -> Iterator[Event]:
        kept = self._kept
        known = kept.known
        seen = self._look(result)
        places = self._area.places(seen)
        kept.totals["inside"] = len(places)
        if known.before is not None and not places:
            known.last = known.before[0].rows(known.before[1])
        known.before = (seen, places) if places else None
        for turn in known.latch.see(not places, kept.line, self._limits, kept.cooldown):
            data = self._only_label(result.labels)
            if turn.until is None:
                kept.totals["began"] += 1
                yield self._told("absence.began", turn, result.frame, {**data, "last": known.last})
            else:
                yield self._told("absence.ended", turn, result.frame, {**data, "objects": seen.rows(places)})

    def _is_active(self) -> bool:
        return self._kept.known.latch.is_on
