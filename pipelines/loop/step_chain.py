"""The steps of a pipeline, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeAlias, runtime_checkable

from edgecv.errors import ConfigError
from edgecv.events import Event
from edgecv.protocols import Gate, Step
from edgecv.results import Frame, Result


@runtime_checkable
class StepOptions(Protocol):
    """What ``edgecv.pipelines.steps`` has for each kind of step."""

    def build(self, labels: tuple[str, ...]) -> Step:
        """The step for a model with these labels.

        Raises:
            ConfigError: an option does not fit, or names a class that the model does not have.
        """
        ...


@runtime_checkable
class GateOptions(Protocol):
    """What ``edgecv.pipelines.steps`` has for each kind of gate."""

    def build(self) -> Gate:
        """The gate; errors as in ``StepOptions``."""
        ...


StepLike: TypeAlias = Step | StepOptions
GateLike: TypeAlias = Gate | GateOptions


def build_steps(steps: Sequence[StepLike], labels: tuple[str, ...]) -> list[Step]:
    """Steps of options and of functions.

    Raises:
        ConfigError: one is no step, or two have one name, which their counts would share; else as ``StepOptions.build``.
    """
    _check(steps, "step", "Track()")
    names = [step.name for step in steps if isinstance(step, StepOptions) and hasattr(step, "name")]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"Two steps are named '{name}'.", "Give each a name of its own.")
    return [step.build(labels) if isinstance(step, StepOptions) else step for step in steps]


def check_ids(steps: Sequence[object]) -> None:
    """Raise ``ConfigError`` where tracked objects are counted and nothing tracks them; a step that is not ours may give ids."""
    for at, step in enumerate(steps):
        if getattr(step, "needs_ids", False) and not any(getattr(one, "gives_ids", True) for one in steps[:at]):
            raise ConfigError(
                f"'{getattr(step, 'name', step)}' needs tracked objects, and no step before it tracks them.",
                "Add the step 'track' before it.",
            )


def build_gates(gates: Sequence[GateLike]) -> list[Gate]:
    """Gates of options and of functions; errors as ``GateOptions.build``, and ``ConfigError`` for what is none."""
    _check(gates, "gate", "Motion()")
    return [gate.build() if isinstance(gate, GateOptions) else gate for gate in gates]


def _check(given: Sequence[object], what: str, example: str) -> None:
    for one in given:
        is_options_type = isinstance(one, type) and hasattr(one, "build")
        if is_options_type or not (callable(one) or hasattr(one, "build")):
            raise ConfigError(
                f"{one!r} is no {what}.", f"Give a function, or one of edgecv.pipelines.steps: {example}."
            )


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

    A step (or gate) may have ``counts(source_id)``, ``forget(source_id)`` and ``close()``, as ``PerSource`` has.
    """

    def __init__(self, steps: Sequence[Step], gates: Sequence[Gate], age_ms: Callable[[Frame], float]) -> None:
        self._steps = tuple(steps)
        self._all: tuple[Any, ...] = (*gates, *steps)
        self._age_ms = age_ms
        self.left: tuple[Event, ...] = ()

    def __call__(self, result: Result) -> Result | None:
        """The result after the steps; call it in the order of the frames."""
        current, self.left = result, ()
        for step in self._steps:
            changed = step(current)
            if changed is None:
                self.left = _placed(current)
                return None
            current = changed
        return replace(current, age_ms=self._age_ms(current.frame), events=_placed(current))

    def counts(self, source_id: str) -> Mapping[str, int]:
        """What the steps counted at one source."""
        found: dict[str, int] = {}
        for step in self._all:
            if hasattr(step, "counts"):
                found |= step.counts(source_id)
        return found

    def forget(self, source_id: str) -> None:
        """A source is gone."""
        for step in self._all:
            if hasattr(step, "forget"):
                step.forget(source_id)

    def close(self) -> None:
        """The pipeline ended: close every step, then raise what the first one raised that failed."""
        errors = []
        for step in self._all:
            try:
                if hasattr(step, "close"):
                    step.close()
            except Exception as error:  # noqa: BLE001 - the others are closed, too
                errors.append(error)
        if errors:
            raise errors[0]
