"""YAML as PyYAML reads it, with the bounds that files of others need: what Ultralytics writes and reads is read here, too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgecv._internal.extras import require

_MOST_NODES = 200_000  # with every alias written out; LVIS has 1,203 names
_MOST_CHARACTERS = 1 << 20
_DEEPEST = 64  # brackets in brackets: PyYAML takes a time that grows with the square of their depth
# What YAML does not allow, as Ultralytics takes it out before it tries again.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def parse_yaml(text: str, extra: str) -> Mapping[str, Any]:
    """A YAML document that is a mapping; an empty one is an empty mapping.

    Aliases are read. A document that grows beyond all measure when they are written out is refused before that is done.
    ``extra`` is the one that brings PyYAML to whoever reads such files.

    Raises:
        ValueError: it is no YAML, no mapping, or larger than any description of a data set.
        MissingDependency: PyYAML is not installed.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ValueError("it is larger than any description of a data set")
    yaml = require("yaml", extra)
    try:
        found = _constructed(yaml, _FORBIDDEN.sub("", text))
    except (yaml.YAMLError, RecursionError, OverflowError, TypeError, AttributeError) as error:
        raise ValueError(_reason(error)) from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError("it is not a mapping of names to values")
    return found


def _constructed(yaml: Any, text: str) -> Any:
    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # not the one in C: brackets a million deep end its process
        def fetch_flow_collection_start(self, token: Any) -> None:
            if self.flow_level >= _DEEPEST:
                raise ValueError("its brackets are deeper than in any description of a data set")
            super().fetch_flow_collection_start(token)

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.composed = getattr(self, "composed", 0) + 1
            if self.composed > _MOST_NODES:
                raise ValueError("it is larger than any description of a data set")
            return super().compose_node(parent, index)

    loader = Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, {}, set())
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _size(node: Any, known: dict[int, int], above: set[int]) -> int:
    """Nodes of a document with every alias written out."""
    if id(node) in above:
        raise ValueError("an alias in it leads to itself")
    if id(node) not in known:
        above.add(id(node))
        parts = node.value if isinstance(node.value, list) else []
        inner = [one for part in parts for one in (part if isinstance(part, tuple) else (part,))]
        known[id(node)] = 1 + sum(_size(one, known, above) for one in inner)
        above.discard(id(node))
    if known[id(node)] > _MOST_NODES:
        raise ValueError("its aliases make it larger than any description of a data set")
    return known[id(node)]


def _reason(error: Exception) -> str:
    """What is wrong, on one line, and where."""
    mark = getattr(error, "problem_mark", None)
    said = getattr(error, "problem", None) or str(error) or type(error).__name__
    return f"{said} in line {mark.line + 1}" if mark is not None else str(said).splitlines()[0]


def class_names(names: object) -> dict[int, str]:
    """Names of classes by number, from a list or a mapping of numbers, as Ultralytics takes them: all of them are text.

    Raises:
        ValueError: they are neither.
    """
    if isinstance(names, Mapping):
        numbered = list(names.items())
    elif isinstance(names, list | tuple):
        numbered = list(enumerate(names))
    else:
        raise ValueError("the names are not a list, and not numbered")
    try:
        return {int(number): str(name) for number, name in numbered}
    except (TypeError, ValueError) as error:
        raise ValueError(f"the names are not numbered: {error}") from error
