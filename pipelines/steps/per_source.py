"""Steps and gates with a memory, one for each source."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from edgecv.events import Event
from edgecv.pipelines.closing import close_all
from edgecv.protocols import Adopts, Closes, CountsOneSource
from edgecv.results import Frame, Result


class PerSource:
    """A step (or gate) made of one for each source, so that what one camera sees never mixes with another's.

    ``make`` gets the name of a source and makes its step. That may have ``counts()``: what it counted so far, by name; and
    ``close()``: called when its source is removed or the pipeline ends. A step that is for some sources ``only`` gives the
    results of all others back as they are. ``orphans`` says of which sources that are not among these something is kept. One
    that paints over images says so with ``repaints``. What the steps of all sources ``share``, such as a file, a step in place
    of this one may go on with.
    """

    def __init__(
        self,
        make: Callable[[str], Callable[[Any], Any]],
        only: Collection[str] = (),
        orphans: Callable[[Collection[str]], Iterable[Event]] | None = None,
        *,
        repaints: bool = False,
        share: object = None,
    ) -> None:
        self._make, self._only, self._orphans, self.repaints = make, frozenset(only), orphans, repaints
        self.share = share
        self._steps: dict[str, Callable[[Any], Any]] = {}
        self._changing = threading.Lock()

    def __call__(self, given: Result | Frame) -> Any:
        """What the step of this source says."""
        frame = given.frame if isinstance(given, Result) else given
        if self._only and frame.source_id not in self._only:
            return given
        step = self._steps.get(frame.source_id)
        if step is None:
            with self._changing:
                step = self._steps.setdefault(frame.source_id, self._make(frame.source_id))
        return step(given)

    def adopt(self, before: object) -> bool:
        """Make a step for each source that ``before`` knows, if this one is for it, which takes over what it can.

        Gives whether each of them took over something; raises what making one raises.
        """
        if not isinstance(before, PerSource):
            return False
        made: dict[str, Any] = {}
        took_over = True
        try:
            for source_id, old in tuple(before._steps.items()):
                if not self._only or source_id in self._only:
                    new: Any = self._make(source_id)
                    made[source_id] = new
                    took_over &= isinstance(new, Adopts) and new.adopt(old)
        except BaseException:
            close_all(step.close for step in made.values() if isinstance(step, Closes))
            raise
        self._steps = made
        return took_over

    def counts(self, source_id: str) -> Mapping[str, int]:
        """What the step of this source counted; empty when it counts nothing."""
        step = self._steps.get(source_id)
        return step.counts() if isinstance(step, CountsOneSource) else {}

    def orphans(self, sources: Collection[str]) -> Iterable[Event]:
        """What is kept of sources that are not among these, as events."""
        mine = [name for name in sources if not self._only or name in self._only]
        return () if self._orphans is None else self._orphans(mine)

    def forget(self, source_id: str) -> None:
        """The source is gone: drop its step."""
        with self._changing:
            step = self._steps.pop(source_id, None)
        _close(step)

    def close(self) -> None:
        """The pipeline ended; what was counted may still be asked for."""
        for step in tuple(self._steps.values()):
            _close(step)


def _close(step: object) -> None:
    if isinstance(step, Closes):
        step.close()
