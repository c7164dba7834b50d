"""What stands in the place of foreign objects after a pickle was read as inert data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


class DamagedPickle(ValueError):
    """The bytes are no pickle that this reader understands."""


class UnknownNetwork(DamagedPickle):
    """The checkpoint is sound, but its network cannot be built from its description.

    ``module`` is where the network's class was defined, if that is none of Ultralytics'.
    """

    def __init__(self, message: str, module: str = "") -> None:
        super().__init__(message)
        self.module = module


@dataclass(frozen=True, slots=True, eq=False)
class Global:
    """A name in a module, which was not looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Persistent:
    """A reference to something outside the pickle: in a checkpoint, to the bytes of a tensor."""

    key: Any


@dataclass(slots=True, eq=False)
class Unmade:
    """Something that was not made. What the pickle would have added to it stands beside it."""

    maker: Any
    arguments: Any
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)


class Call(Unmade):
    """The result of a call of ``maker``."""

    __slots__ = ()


class Instance(Unmade):
    """An object of the class ``maker``."""

    __slots__ = ()


def everything_in(content: Any) -> Iterator[Any]:
    """An inert value and all that it holds, each once."""
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if id(value) not in seen:
            seen.add(id(value))
            yield value
            waiting.extend(_inside(value))


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, Unmade):
        return [value.maker, value.arguments, value.state, value.items]
    return [value.key] if isinstance(value, Persistent) else []


def named(value: Any) -> str:
    """What a value is, for a message."""
    for _ in range(4):
        value = value.maker if isinstance(value, Unmade) else value
    return str(value) if isinstance(value, Global) else f"a {type(value).__name__}"
