"""The steps of a pipeline, one after the other."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from edgecv._internal.printable import printable, short
from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.protocols import (
    Closes,
    CountsObjects,
    Forgets,
    Gate,
    GateOptions,
    Named,
    Step,
    StepOptions,
)
from edgecv.results import Frame, Result

StepLike: TypeAlias = Step | StepOptions
GateLike: TypeAlias = Gate | GateOptions


def build_steps(steps: Sequence[StepLike], labels: tuple[str, ...]) -> list[Step]:
    """Steps of options and of functions.

    Raises:
        ConfigError: one is no step, or two have one name, which their counts would share; else as ``StepOptions.build``.
    """
    for step in steps:
        if isinstance(step, type) or not (callable(step) or isinstance(step, StepOptions)):
            raise ConfigError(
                f"{short(step)} is no step.",
                "Give a function, an object that can be called, or one of edgecv.pipelines.steps, such as Track().",
            )
    names = [step.name for step in steps if isinstance(step, StepOptions) and isinstance(step, Named)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"Two steps are named '{name}'.", "Give each a name of its own.")
    return [step.build(labels) if isinstance(step, StepOptions) else step for step in steps]


def check_ids(steps: Sequence[object]) -> None:
    """Raise ``ConfigError`` where tracked objects are counted and nothing tracks them; a step that is not ours may give ids."""
    for at, step in enumerate(steps):
        needs_ids = isinstance(step, StepOptions) and step.needs_ids
        if needs_ids and not any(one.gives_ids if isinstance(one, StepOptions) else True for one in steps[:at]):
            raise ConfigError(
                f"'{step_name(step)}' needs tracked objects, and no step before it tracks them.",
                "Add the step 'track' before it.",
            )


def build_gates(gates: Sequence[GateLike]) -> list[Gate]:
    """Gates of options and of functions; errors as ``GateOptions.build``, and ``ConfigError`` for what is none."""
    for gate in gates:
        if isinstance(gate, type) or not (callable(gate) or isinstance(gate, GateOptions)):
            raise ConfigError(f"{short(gate)} is no gate.", "Give a function of a frame, or Motion().")
    return [gate.build() if isinstance(gate, GateOptions) else gate for gate in gates]


def step_name(step: object) -> str:
    """What messages call a step: its name, that of the function, or that of its class."""
    if isinstance(step, Named):
        return step.name
    return step.__name__ if inspect.isroutine(step) else type(step).__name__


def _placed(result: Result) -> tuple[Event, ...]:
    """The events of a frame; where it comes from a file, each says at which second."""
    position_s = result.frame.position_s
    if position_s is None:
        return result.events
    return tuple(replace(event, data={"position_s": position_s, **event.data}) for event in result.events)


class StepChain:
    """Applies the steps in order; one that returns ``None`` ends the frame.

    Attributes:
        left: The events of the last frame that was given, where a step dropped that frame: they are not lost with it.

    A step (or gate) may be ``CountsObjects``, ``Forgets`` and ``Closes`` of ``edgecv.protocols``, as ``PerSource`` is.
    """

    def __init__(self, steps: Sequence[Step], gates: Sequence[Gate], age_ms: Callable[[Frame], float]) -> None:
        self._steps = tuple(steps)
        self._all: tuple[object, ...] = (*gates, *steps)
        self._age_ms = age_ms
        self.left: tuple[Event, ...] = ()

    def __call__(self, result: Result) -> Result | None:
        """The result after the steps; call it in the order of the frames."""
        current, self.left = result, ()
        for number, step in enumerate(self._steps, 1):
            changed = step(current)
            if changed is None:
                self.left = _placed(current)
                return None
            if not isinstance(changed, Result):
                raise ConfigError(
                    f"Step {number} of {len(self._steps)}, '{printable(step_name(step))}', gave {short(changed)}.",
                    "A step returns a Result, or None to drop the frame: dataclasses.replace(result, ...) makes a changed one.",
                )
            current = changed
        return replace(current, age_ms=self._age_ms(current.frame), events=_placed(current))

    def counts(self, source_id: str) -> Mapping[str, int]:
        """What the steps counted at one source."""
        found: dict[str, int] = {}
        for step in self._all:
            if isinstance(step, CountsObjects):
                found |= step.counts(source_id)
        return found

    def forget(self, source_id: str) -> None:
        """Let every step drop what it knows of a source."""
        for step in self._all:
            if isinstance(step, Forgets):
                step.forget(source_id)

    def close(self) -> None:
        """The pipeline ended: close every step, then raise what the first one raised that failed."""
        errors = []
        for step in self._all:
            try:
                if isinstance(step, Closes):
                    step.close()
            except Exception as error:  # noqa: BLE001 - the others are closed, too
                errors.append(error)
        if errors:
            raise errors[0]
