"""The steps of a pipeline, one after the other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from threading import Event as Signal, Lock, get_ident
from types import MappingProxyType
from typing import Any, TypeAlias

from edgecv._internal.foreign import errors_named, in_brackets
from edgecv._internal.printable import nearest, printable, short
from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.pipelines.closing import close_all
from edgecv.pipelines.loop.part_name import part_name
from edgecv.pipelines.steps.exchange import BuiltStep, StepLike, adopt_steps, built_steps, close_steps
from edgecv.pipelines.steps.functions import GATE, OwnGate, OwnStep, per_source, written_at
from edgecv.pipelines.steps.options import Options
from edgecv.protocols import (
    Closes,
    CountsObjects,
    Forgets,
    Gate,
    GateOptions,
    KeepsTotals,
    Named,
    Repaints,
    Step,
    StepOptions,
)
from edgecv.results import Frame, Result

GateLike: TypeAlias = Gate | GateOptions | Callable[[Frame, dict[str, Any]], bool]

log = logging.getLogger("edgecv.pipelines")

_LONGEST_FRAME_S = 10.0  # in the steps; another thread that wants to replace them waits for it
_HAND_OVER_S = 1.0  # for which the frames let that other thread go first


def build_steps(
    steps: Sequence[StepLike],
    labels: tuple[str, ...],
    running: Sequence[BuiltStep] = (),
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> list[BuiltStep]:
    """Steps of options and of functions, in place of those that are ``running``: see ``built_steps``.

    Raises ``ConfigError`` as ``check_steps`` and ``linked_steps``; else as ``build``.
    """
    check_steps(steps)
    return built_steps(linked_steps(steps), labels, running, renamed)


def check_steps(steps: Sequence[object]) -> None:
    """Raise ``ConfigError`` for what is no step."""
    for step in steps:
        if isinstance(step, type) or not (callable(step) or isinstance(step, StepOptions)):
            raise ConfigError(
                f"{short(step)} is no step.",
                "Give a function, an object that can be called, or one of edgecv.pipelines.steps, such as Track().",
            )


def linked_steps(steps: Sequence[StepLike]) -> list[StepLike]:
    """The same steps; each has what it takes from others that it names, such as the points of a zone.

    Raises ``ConfigError``: one names what does not exist, or two have one name, which their counts would share.
    """
    counted: list[object] = [one for one in steps if isinstance(one, StepOptions) and not isinstance(one, OwnStep)]
    names = [step.name for step in counted if isinstance(step, Named)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"Two steps are named '{name}'.", "Give each a name of its own.")
    return [step.linked(steps) if isinstance(step, Options) else step for step in steps]


def check_ids(steps: Sequence[object]) -> None:
    """Raise ``ConfigError`` where tracked objects are counted and nothing tracks them; a step that is not ours may give ids."""
    for at, step in enumerate(steps):
        needs_ids = isinstance(step, StepOptions) and step.needs_ids
        if needs_ids and not any(one.gives_ids if isinstance(one, StepOptions) else True for one in steps[:at]):
            raise ConfigError(
                f"'{part_name(step)}' needs tracked objects, and no step before it tracks them.",
                "Add the step 'track' before it.",
            )


def check_sources(steps: Sequence[object], names: Sequence[str]) -> None:
    """Raise ``ConfigError`` where a step, or a gate, is for a source that does not exist."""
    for step in steps:
        for name in step.only_sources if isinstance(step, Options | OwnGate) else ():
            if name not in names:
                what = "gate" if isinstance(step, OwnGate) else "step"
                raise ConfigError(
                    f"The {what} '{part_name(step)}' is for the source '{name}', and there is none of that name.",
                    f"{nearest(name, names)}Known: {', '.join(names)}.",
                )


def build_gates(gates: Sequence[GateLike]) -> list[Gate]:
    """Gates of options and of functions; errors as ``GateOptions.build``, and ``ConfigError`` for what is none."""
    for gate in gates:
        if isinstance(gate, type) or not (callable(gate) or isinstance(gate, GateOptions)):
            raise ConfigError(f"{short(gate)} is no gate.", "Give a function of a frame, or Motion().")
    return [gate.build() if isinstance(gate, GateOptions) else per_source(gate, GATE) for gate in gates]


def _placed(result: Result) -> tuple[Event, ...]:
    """The events of a frame; where it comes from a file, each says at which second."""
    position_s = result.frame.position_s
    if position_s is None:
        return result.events
    return tuple(replace(event, data={"position_s": position_s, **event.data}) for event in result.events)


def _taken(place: str, step: Step, result: Result) -> Result | None:
    """What a step makes of a result; what goes wrong says in which step."""
    with errors_named(place):
        changed = step(result)
    if changed is None or isinstance(changed, Result):
        return changed
    raise ConfigError(
        f"{place}, gave {short(changed)}{in_brackets(written_at(step))}.",
        "A step returns a Result, or None to drop the frame: dataclasses.replace(result, ...) makes a changed one.",
    )


class StepChain:
    """Applies the steps in order; one that returns ``None`` ends the frame.

    A step (or gate) may be ``CountsObjects``, ``Forgets`` and ``Closes`` of ``edgecv.protocols``, as ``PerSource`` is.
    ``left`` are the events of the last frame, where a step dropped that frame: they are not lost with it. ``repainted`` says
    whether a step gave the last frame another image, or says that it does so (``Repaints``).
    """

    def __init__(
        self,
        steps: Sequence[BuiltStep],
        gates: Sequence[Gate],
        age_ms: Callable[[Frame], float],
        filters: Sequence[Step] = (),
    ) -> None:
        """Steps of the app, with ``filters`` of the pipeline before them."""
        self._gates, self._filters, self._age_ms = tuple(gates), tuple(filters), age_ms
        self.left: tuple[Event, ...] = ()
        self._busy, self._worker, self._closed = Lock(), 0, False  # held while a frame goes through, by that thread
        self._replacing, self._replacer, self._may_go_on = Lock(), 0, Signal()
        self._may_go_on.set()
        self._take(steps)
        self.repainted = self.repaints

    def _take(self, steps: Sequence[BuiltStep]) -> None:
        self._built = tuple(steps)
        named = ((f"Step {at} of {len(steps)}, '{printable(one.name)}'", one.step) for at, one in enumerate(steps, 1))
        self._steps = (*(("The filter of classes", step) for step in self._filters), *named)
        self._all: tuple[object, ...] = (*self._gates, *(step for _, step in self._steps))
        self.repaints = any(isinstance(step, Repaints) and step.repaints for step in self._all)

    @property
    def given(self) -> tuple[StepLike, ...]:
        """The steps as they were given, in order."""
        return tuple(one.given for one in self._built)

    def replace(
        self, steps: Sequence[StepLike], labels: tuple[str, ...], renamed: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Go on with other steps from the next frame on, from any thread but that of a step at work; see ``build_steps``.

        Raises ``ConfigError``: a step does not fit, it is called by a step, or a frame is in the steps for too long. Nothing is
        changed then.
        """
        if get_ident() in (self._worker, self._replacer):  # it would wait for itself
            raise ConfigError("A step cannot replace the steps.", "Do it in on_result, or in another thread.")
        with self._replacing:
            self._replacer = get_ident()
            try:
                self._replace(build_steps(steps, labels, self._built, renamed))
            finally:
                self._replacer = 0

    def _replace(self, after: Sequence[BuiltStep]) -> None:
        before = self._built
        try:
            self._exchange(before, after)
        except BaseException:
            close_steps(after, kept=before)
            raise

    def _exchange(self, before: Sequence[BuiltStep], after: Sequence[BuiltStep]) -> None:
        """Between two frames, for which this thread goes first: a loop that never rests would take the lock again and again.

        What is not kept is closed before the next frame, lest it writes old counts over newer ones.
        """
        self._may_go_on.clear()
        try:
            if not self._busy.acquire(timeout=_LONGEST_FRAME_S):
                raise ConfigError(
                    f"A frame has been in the steps for {_LONGEST_FRAME_S:.0f} s.", "Try again when it is through."
                )
            try:
                if self._closed:
                    raise ConfigError("This pipeline has ended.", "Make a new one for every run.")
                adopt_steps(after)
                self._take(after)
                self._let_go(before, after)
            finally:
                self._busy.release()
        finally:
            self._may_go_on.set()

    def _let_go(self, before: Sequence[BuiltStep], after: Sequence[BuiltStep]) -> None:
        try:
            close_steps(before, kept=after)
        except Exception as error:  # noqa: BLE001 - the others are at work already
            log.warning("A step that was replaced could not be closed: %s", printable(str(error)))

    def __call__(self, result: Result) -> Result | None:
        """The result after the steps; call it in the order of the frames.

        What a step raises gets its place and name: an error of ours in its message, another as the cause of a
        ``PluginError``.
        """
        if not self._may_go_on.is_set():
            self._may_go_on.wait(_HAND_OVER_S)
        with self._busy:
            self._worker = get_ident()
            try:
                return self._through(result)
            finally:
                self._worker = 0

    def _through(self, result: Result) -> Result | None:
        current, self.left, self.repainted = result, (), self.repaints
        for place, step in self._steps:
            changed = _taken(place, step, current)
            if changed is None:
                self.left = _placed(current)
                return None
            self.repainted = self.repainted or changed.frame is not current.frame
            current = changed
        return replace(current, age_ms=self._age_ms(current.frame), events=_placed(current))

    def counts(self, source_id: str) -> Mapping[str, int]:
        """What the steps counted at one source."""
        found: dict[str, int] = {}
        for step in self._all:
            if isinstance(step, CountsObjects):
                found |= step.counts(source_id)
        return found

    def orphans(self, sources: Collection[str]) -> list[Event]:
        """What steps keep of sources that are not among these."""
        return [event for step in self._all if isinstance(step, KeepsTotals) for event in step.orphans(sources)]

    def forget(self, source_id: str) -> None:
        """Let every step drop what it knows of a source."""
        with self._busy:
            for step in self._all:
                if isinstance(step, Forgets):
                    step.forget(source_id)

    def close(self) -> None:
        """The pipeline ended: close every step, then raise what the first one raised that failed."""
        waits = self._worker != get_ident() and self._busy.acquire(timeout=_HAND_OVER_S)
        self._closed = True
        if waits:
            self._busy.release()
        close_all(step.close for step in self._all if isinstance(step, Closes))
