"""What an event says, as a line of text for people."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

_ENDS = " …"


def details_text(data: Mapping[str, Any], longest: int, apart: Collection[str] = ()) -> str:
    """The data of an event that a person reads; what is too long ends with ``…`` after a whole value, if there is one.

    Lists (boxes, points), the number of the class and times in nanoseconds are for programs. ``apart`` are names that stand
    elsewhere.
    """
    shown = (
        f"{name} {value}" for name, value in data.items() if name not in apart and not _is_for_programs(name, value)
    )
    text = ", ".join(shown)
    if len(text) <= longest:
        return text
    whole, comma, _ = text[: longest - len(_ENDS)].rpartition(", ")
    return (whole + comma.rstrip() if comma else text[: longest - len(_ENDS)]) + _ENDS


def _is_for_programs(name: str, value: object) -> bool:
    return name == "class_id" or name.endswith("_ns") or isinstance(value, list | tuple)
