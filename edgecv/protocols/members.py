"""Which members of a protocol a plug-in lacks, so that an error can name them."""

from __future__ import annotations

import inspect
from abc import ABCMeta
from typing import Generic, Protocol


def lacks(given: object, protocol: type) -> list[str]:
    """Which members of a protocol an object lacks; of a class, those that its objects get in their constructor do not matter."""
    abstract = given.__abstractmethods__ if isinstance(given, ABCMeta) else frozenset()
    there = set(dir(given)) - abstract
    return [name for name in _members(protocol, of_class=isinstance(given, type)) if name not in there]


def _members(protocol: type, *, of_class: bool) -> list[str]:
    found: list[str] = []
    for base in protocol.__mro__:
        if base in (Protocol, Generic, object):
            continue
        fields = inspect.get_annotations(base)
        found += [name for name, kind in fields.items() if not of_class or str(kind).startswith("ClassVar")]
        found += [name for name in vars(base) if not name.startswith("_") and name not in fields]
    return list(dict.fromkeys(found))
