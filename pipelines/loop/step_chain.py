"""The steps of a pipeline, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from edgecv._internal.foreign import errors_named, in_brackets
from edgecv._internal.printable import nearest, printable, short
from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.pipelines.closing import close_all
from edgecv.pipelines.loop.part_name import part_name
from edgecv.pipelines.steps.functions import GATE, STEP, OwnStep, per_source, written_at
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

StepLike: TypeAlias = Step | StepOptions | Callable[[Result, dict[str, Any]], Result | None]
GateLike: TypeAlias = Gate | GateOptions | Callable[[Frame, dict[str, Any]], bool]
NamedStep: TypeAlias = tuple[str, Step]


def build_steps(steps: Sequence[StepLike], labels: tuple[str, ...]) -> list[NamedStep]:
    """Steps of options and of functions, each with its name; a function that has the parameter ``memory`` gets one for each source.

    Raises ``ConfigError`` for what is no step, and for two with one name, which their counts would share; else as
    ``build``.
    """
    for step in steps:
        if isinstance(step, type) or not (callable(step) or isinstance(step, StepOptions)):
            raise ConfigError(
                f"{short(step)} is no step.",
                "Give a function, an object that can be called, or one of edgecv.pipelines.steps, such as Track().",
            )
    counted = [step for step in steps if isinstance(step, StepOptions) and not isinstance(step, OwnStep)]
    names = [step.name for step in counted if isinstance(step, Named)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"Two steps are named '{name}'.", "Give each a name of its own.")
    return [
        (part_name(step), step.build(labels) if isinstance(step, StepOptions) else per_source(step, STEP))
        for step in steps
    ]


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
    """Raise ``ConfigError`` where a step is for a source that does not exist."""
    for step in steps:
        for name in step.only_sources if isinstance(step, Options) else ():
            if name not in names:
                raise ConfigError(
                    f"The step '{part_name(step)}' is for the source '{name}', and there is none of that name.",
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
        steps: Sequence[NamedStep],
        gates: Sequence[Gate],
        age_ms: Callable[[Frame], float],
        filters: Sequence[Step] = (),
    ) -> None:
        """Steps of the app, with ``filters`` of the pipeline before them."""
        named = ((f"Step {at} of {len(steps)}, '{printable(name)}'", step) for at, (name, step) in enumerate(steps, 1))
        self._steps = (*(("The filter of classes", step) for step in filters), *named)
        self._all: tuple[object, ...] = (*gates, *(step for _, step in self._steps))
        self._age_ms = age_ms
        self.left: tuple[Event, ...] = ()
        self.repaints = any(isinstance(step, Repaints) and step.repaints for _, step in self._steps)
        self.repainted = self.repaints

    def __call__(self, result: Result) -> Result | None:
        """The result after the steps; call it in the order of the frames.

        What a step raises gets its place and name: an error of ours in its message, another as the cause of a
        ``PluginError``.
        """
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
        for step in self._all:
            if isinstance(step, Forgets):
                step.forget(source_id)

    def close(self) -> None:
        """The pipeline ended: close every step, then raise what the first one raised that failed."""
        close_all(step.close for step in self._all if isinstance(step, Closes))
