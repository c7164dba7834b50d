"""Steps as they run, and how others take their place between two frames: what is the same stays, what is changed takes over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

from edgecv._internal.foreign import errors_named
from edgecv._internal.printable import printable
from edgecv.errors import ConfigError
from edgecv.pipelines.closing import close_all
from edgecv.pipelines.loop.part_name import part_name
from edgecv.pipelines.steps.functions import STEP, per_source
from edgecv.pipelines.steps.options import Options
from edgecv.protocols import Adopts, Closes, Step, StepOptions
from edgecv.results import Result

StepLike: TypeAlias = Step | StepOptions | Callable[[Result, dict[str, Any]], Result | None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BuiltStep:
    """A step as it was given, and what was made of that; in place of ``before``, where it takes over from that one."""

    given: StepLike
    name: str
    step: Step
    before: Step | None = None

    @property
    def needs_ids(self) -> bool:
        """Whether it remembers objects by the ids of a tracker."""
        return isinstance(self.given, StepOptions) and self.given.needs_ids

    @property
    def gives_ids(self) -> bool:
        """Whether it is known to be a tracker."""
        return isinstance(self.given, StepOptions) and self.given.gives_ids


def built_steps(
    steps: Sequence[StepLike],
    labels: tuple[str, ...],
    running: Sequence[BuiltStep],
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> list[BuiltStep]:
    """Build steps in place of those that are ``running``; ``renamed`` says by old names which have new ones.

    One that is given again, or with equal options, stays as it is. One of the same type and name with other options is built to
    take over from it. A function that has the parameter ``memory`` gets one for each source. What was built for nothing, for
    another one raises, is closed.
    """
    left, built = list(running), dict[int, BuiltStep]()
    for at, given in enumerate(steps):
        if (same := _taken_out(left, given, _is_equal)) is not None:
            built[at] = replace(same, before=None)
    try:
        for at, given in enumerate(steps):
            if at not in built:
                built[at] = _built(given, labels, _taken_out(left, given, partial(_is_changed, renamed)))
        _check_trackers([built[at] for at in range(len(steps))], running)
    except BaseException:
        close_steps(built.values(), kept=running)
        raise
    return [built[at] for at in range(len(steps))]


def adopt_steps(steps: Sequence[BuiltStep]) -> None:
    """Let each step take over from the one before it.

    Raises ``ConfigError``: a tracker cannot, whose ids others remember; and what ``adopt`` raises.
    """
    for one in steps:
        step: object = one.step
        if one.before is None or not isinstance(step, Adopts):
            continue
        with errors_named(f"The step '{printable(one.name)}', which takes over"):
            took_over = step.adopt(one.before)
        if one.gives_ids and not took_over and any(other.needs_ids for other in steps):
            raise _other_ids(one.name)


def close_steps(steps: Iterable[BuiltStep], kept: Sequence[BuiltStep]) -> None:
    """Close those that hold something, but for the ones that are ``kept``; raises as ``close_all``."""
    held = {id(one.step) for one in kept}
    others: list[object] = [one.step for one in steps if id(one.step) not in held]
    close_all(step.close for step in others if isinstance(step, Closes))


def _taken_out(left: list[BuiltStep], given: StepLike, fits: Callable[[StepLike, StepLike], bool]) -> BuiltStep | None:
    """The first of those that are left that fits; it is not left any more then."""
    at = next((at for at, one in enumerate(left) if fits(one.given, given)), None)
    return None if at is None else left.pop(at)


def _is_equal(one: StepLike, other: StepLike) -> bool:
    return one is other or (isinstance(one, StepOptions) and type(one) is type(other) and one == other)


def _is_changed(renamed: Mapping[str, str], one: StepLike, other: StepLike) -> bool:
    name = renamed.get(part_name(one), part_name(one))
    return isinstance(one, StepOptions) and type(one) is type(other) and name == part_name(other)


def _built(given: StepLike, labels: tuple[str, ...], running: BuiltStep | None) -> BuiltStep:
    name, before = part_name(given), None if running is None else running.step
    if not isinstance(given, StepOptions):
        return BuiltStep(given=given, name=name, step=per_source(given, STEP))
    if before is None or not isinstance(given, Options):
        return BuiltStep(given=given, name=name, step=given.build(labels))
    return BuiltStep(given=given, name=name, step=given.build_after(labels, before), before=before)


def _check_trackers(steps: Sequence[BuiltStep], running: Sequence[BuiltStep]) -> None:
    """Raise ``ConfigError`` where steps that go on remember objects by ids which another tracker would give to others."""
    known = {id(one.step) for one in running if one.needs_ids}
    if not any(id(one.step) in known or (one.needs_ids and one.before is not None) for one in steps):
        return
    before = [id(one.step) for one in running if one.gives_ids]
    after = [
        id(one.before if one.before is not None and isinstance(one.step, Adopts) else one.step)
        for one in steps
        if one.gives_ids
    ]
    if before != after:
        raise _other_ids(next(one.name for one in (*steps, *running) if one.gives_ids))


def _other_ids(name: str) -> ConfigError:
    return ConfigError(
        f"The tracker '{name}' cannot be exchanged while counters go on that know its objects.",
        "Change its options alone, or make a new pipeline.",
    )
