"""What messages and counts call a step or a sink."""

from __future__ import annotations

import inspect

from edgecv.protocols import Named


def part_name(part: object) -> str:
    """The name of a step or sink: its own, that of the function, or that of its class."""
    if isinstance(part, Named) and not isinstance(part, type) and isinstance(part.name, str):
        return part.name
    return part.__name__ if inspect.isroutine(part) else type(part).__name__
