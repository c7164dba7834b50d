"""The base of every step's options, and how a registered step becomes options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import msgspec

from edgecv import registry
from edgecv._internal.strict import read_struct
from edgecv.errors import PluginError
from edgecv.protocols import HasOptions, Step, lacks

_Options = TypeVar("_Options", bound=msgspec.Struct)


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a step is asked to do: a struct with the options as its fields and ``build(labels)``, which makes the step."""

    gives_ids: ClassVar[bool] = False
    """Whether objects have tracker ids after the step."""

    gives_kinds: ClassVar[tuple[str, ...] | None] = None
    """Kinds of the events that the step gives; ``None`` where nobody says."""

    @property
    def needs_ids(self) -> bool:
        """Whether objects must have tracker ids before the step."""
        return False

    @property
    def keeps_ids_s(self) -> float | None:
        """How long an object may be out of sight and still have its id when it comes back, seconds; ``None``: not said."""
        return None

    @property
    def only_sources(self) -> tuple[str, ...]:
        """Names of the sources that the step is for; empty: for all."""
        return ()

    def linked(self, steps: Sequence[object]) -> Options:  # noqa: ARG002 - who overrides it needs them
        """The same step with what it takes from other steps of its pipeline, which it names, such as the points of a zone.

        Raises ``ConfigError``: there is no such step. Called before any step is built, and for checks before anything opens.
        """
        return self

    def build(self, labels: tuple[str, ...] = ()) -> Step:  # noqa: ARG002 - who inherits it needs them
        """The step for a model with these labels.

        Raises ``ConfigError``: an option does not fit, or names a class that the model does not have.
        """
        raise PluginError(f"The step '{type(self).__name__}' lacks build(labels).", "See docs/plugins.md.")

    def build_after(self, labels: tuple[str, ...], before: Step) -> Step:  # noqa: ARG002 - who overrides it needs it
        """As ``build``, while ``before`` still runs, which these options replace: of the same type and name, with other options.

        What ``before`` holds open alone, such as a file, may be shared; ``Adopts`` brings over what it remembers.
        """
        return self.build(labels)


def checked(options: _Options) -> _Options:
    """The same options after the checks that a TOML file goes through; a Python program may write lists for tuples.

    Raises ``ConfigError`` when a value does not fit.
    """
    return read_struct(msgspec.structs.asdict(options), type(options), type(options).__name__)


def step_type(name: str) -> type[Options]:
    """The options of a registered step.

    What is registered is one of these:

    - a struct that inherits ``Options``;
    - a function of a result: a step without options;
    - a class of steps, made without arguments, or, where it has ``Options``, a strict struct, with that.

    Raises:
        UnknownPlugin: there is no such step.
        PluginError: it is none of these.
    """
    found = registry.resolve("steps", name)
    if not isinstance(found, type):
        return _options(name, (), lambda _options: found)
    if issubclass(found, Options):
        return found
    if issubclass(found, msgspec.Struct) or "__call__" not in dir(found):
        raise PluginError(
            f"The step '{name}' ({registry.place('steps', name)}) cannot be used as a step.",
            "Let a struct inherit edgecv.pipelines.steps.Options; give any other class __call__(self, result).",
        )
    made: Any = found
    if lacks(made, HasOptions):
        return _options(name, (), lambda _options: made())
    return _options(name, (made.Options,), made)


def _options(name: str, bases: tuple[type, ...], make: Any) -> type[Options]:
    """Options for a step that brings no struct with ``build``; nobody knows whether it gives ids, so it may."""

    def build(self: Options, labels: tuple[str, ...] = ()) -> Step:  # noqa: ARG001 - the same for all steps
        step: Step = make(self)
        return step

    namespace = {"build": build, "gives_ids": True}
    return msgspec.defstruct(  # type: ignore[return-value]
        name, [], bases=(*bases, Options), namespace=namespace, frozen=True, kw_only=True, forbid_unknown_fields=True
    )
