"""Functions and classes of an application as steps and gates: their arguments, and a memory for each source."""

from __future__ import annotations

import dis
import functools
import inspect
import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from dis import Instruction
from inspect import Parameter
from types import MappingProxyType
from typing import Any, ClassVar

import msgspec

from edgecv._internal.foreign import defined_at, in_brackets
from edgecv._internal.printable import nearest, printable
from edgecv.errors import ConfigError
from edgecv.pipelines.steps.options import Options
from edgecv.pipelines.steps.per_source import PerSource
from edgecv.protocols import Gate, Step

MEMORY = "memory"  # the parameter that gets a dict of its own for each source
_NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Role:
    """What a function of an application is called with, and what for."""

    name: str  # "step"
    given: str  # "result"
    has_memory: bool = True

    @property
    def example(self) -> str:
        """How such a function begins."""
        also = f" or def {self.name}({self.given}, {MEMORY})" if self.has_memory else ""
        return f"Write def {self.name}({self.given}){also}; every other argument has a default, or stands in app.toml."


STEP, GATE, SINK = Role("step", "result"), Role("gate", "frame"), Role("sink", "result", has_memory=False)


class OwnStep(Options, frozen=True, kw_only=True):
    """A function or class of an application that ``app.toml`` names as a step.

    Attributes:
        function: What was loaded: a function, a class, or an object that can be called.
        name: What messages call it.
        arguments: The keyword arguments that stand in ``app.toml``.
        sources: Names of the sources that it is for; empty: for all.
    """

    gives_ids: ClassVar[bool] = True  # nobody knows, so it may

    function: Any
    name: str
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    sources: tuple[str, ...] = ()

    @property
    def only_sources(self) -> tuple[str, ...]:
        """Names of the sources that the step is for; empty: for all."""
        return self.sources

    def build(self, labels: tuple[str, ...] = ()) -> Step:  # noqa: ARG002 - the same for all steps
        """The step; ``ConfigError`` where its arguments do not fit."""
        return per_source(self.function, STEP, self.arguments, self.sources, self.name)


class OwnGate(msgspec.Struct, frozen=True, kw_only=True):
    """A function or class of an application that ``app.toml`` names as a gate; attributes as in ``OwnStep``."""

    function: Any
    name: str
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    sources: tuple[str, ...] = ()

    @property
    def only_sources(self) -> tuple[str, ...]:
        """Names of the sources that the gate is for; empty: for all."""
        return self.sources

    def build(self) -> Gate:
        """The gate; ``ConfigError`` where its arguments do not fit."""
        return per_source(self.function, GATE, self.arguments, self.sources, self.name)


class Remembering(PerSource):
    """A function of an application with a memory, or a class of one, made once for each source."""

    def __init__(
        self, function: Any, make: Callable[[str], Callable[[Any], Any]], only: Collection[str], name: str
    ) -> None:
        super().__init__(make, only)
        self.function, self.name = function, name


def per_source(
    function: Any, role: Role, arguments: Mapping[str, Any] = _NONE, only: Collection[str] = (), name: str = ""
) -> Callable[[Any], Any]:
    """What is called with each result or frame: a function as it is, or with its memory and arguments; of a class an object each.

    ``name`` is what messages call it, by default its own name.

    Raises ``ConfigError``: it cannot be called so, or never gives anything back.
    """
    wants_memory = check_arguments(function, role, arguments)
    given, name = dict(arguments), name or _name(function)
    if isinstance(function, type):
        return Remembering(function, lambda _: function(**given), only, name)
    if wants_memory:
        return Remembering(function, lambda _: functools.partial(function, **given, memory={}), only, name)
    if given or only:
        return Remembering(function, lambda _: functools.partial(function, **given), only, name)
    made: Callable[[Any], Any] = function
    return made


def written_at(step: object) -> str:
    """Where a step is written, as ``mystep.py, line 3``; empty for what is not Python."""
    return defined_at(step.function if isinstance(step, Remembering) else step)


def check_arguments(function: Any, role: Role, arguments: Mapping[str, Any] = _NONE) -> bool:
    """Whether a function wants a memory; a class is made with the arguments alone, and its objects are called.

    Raises ``ConfigError`` for a function that wants more than it gets, an argument that it does not have, and one that never
    gives anything back where something is needed.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # it is written in C, and does not say
        return False
    what = f"The {role.name} '{_name(function)}'{in_brackets(defined_at(function))}"
    if not isinstance(function, type):
        if not parameters or parameters[0].kind in (Parameter.KEYWORD_ONLY, Parameter.VAR_KEYWORD):
            raise ConfigError(f"{what} takes no {role.given}.", role.example)
        parameters = parameters if parameters[0].kind is Parameter.VAR_POSITIONAL else parameters[1:]
        _check_gives_back(function, role, what)
    named = {one.name: one for one in parameters if one.kind in _NAMED}
    wants_memory = role.has_memory and not isinstance(function, type) and MEMORY in named
    if wants_memory:
        del named[MEMORY]
    _check_names(parameters, named, arguments, what)
    _check_all_there(parameters, {*arguments, *([MEMORY] if wants_memory else [])}, what, role)
    return wants_memory


def _check_names(
    parameters: list[Parameter], named: Mapping[str, Parameter], arguments: Mapping[str, Any], what: str
) -> None:
    takes_all = any(one.kind is Parameter.VAR_KEYWORD for one in parameters)
    for name in arguments:
        if name not in named and not takes_all:
            known = f"{nearest(name, named)}Known: {', '.join(named) or 'none'}."
            raise ConfigError(f"{what} has no option '{name}'.", known)


def _check_all_there(parameters: list[Parameter], given: Collection[str], what: str, role: Role) -> None:
    for one in parameters:
        is_many = one.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        if not is_many and one.default is Parameter.empty and one.name not in given:
            raise ConfigError(f"{what} wants '{one.name}', and nothing gives it.", role.example)


def _check_gives_back(function: Any, role: Role, what: str) -> None:
    """A function without a ``return`` would drop every frame without a word."""
    is_written = inspect.isfunction(function) and function.__name__ != "<lambda>"
    if role is not SINK and is_written and not _may_return(function):
        hint = "A gate returns True or False." if role is GATE else "End it with: return result"
        raise ConfigError(f"{what} returns nothing, so that every frame would be dropped.", hint)


def _may_return(function: Any) -> bool:
    if function.__code__.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
        return True
    steps = [step for step in dis.get_instructions(function) if step.opname not in ("NOP", "CACHE", "RESUME")]
    ends = [pair for pair in itertools.pairwise(steps) if pair[1].opname in ("RETURN_VALUE", "RETURN_CONST")]
    return not ends or any(_gives(before, step) for before, step in ends)


def _gives(before: Instruction, step: Instruction) -> bool:
    """Whether an instruction returns something else than None; one that is jumped to may."""
    if step.opname == "RETURN_CONST":
        return step.argval is not None
    return before.opname != "LOAD_CONST" or before.argval is not None or step.is_jump_target


def _name(function: Any) -> str:
    named = inspect.isroutine(function) or isinstance(function, type)
    return printable(str(function.__name__ if named else type(function).__name__))
