"""``Rule``: one thing that an accelerator wants of a graph; ``Finding``: where a graph goes against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from edgecv.quantize.ort.graph import Graph

Level = Literal["warn", "fail"]  # `warn`: it runs, if not on every release or not all of it there
Found = tuple[str, str]  # the name of a node, a tensor or the model, and what is wrong with it


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule, as data beside the function that checks it."""

    name: str
    why: str
    fix: str  # what to do about it
    check: Callable[[Graph], Iterator[Found]]
    level: Level = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One place in a graph, and the rule it goes against."""

    rule: str  # its name
    level: Level
    node: str
    what: str
    why: str
    fix: str
