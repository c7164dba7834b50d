"""No two files import each other, not even through others or inside functions."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tests.conftest import CHECKOUT

ROOMS = ("converters", "quantize", "pipelines", "devices", "cloud_sync", "benchmarks")
DOORS = {"edgecv"}  # it names what lies in the rooms, and loads it when it is used


def _module(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    inside = parts if parts[0] == "edgecv" else ("edgecv", *parts)
    return ".".join(inside[:-1] if inside[-1] == "__init__" else inside)


def _imports(source: str, modules: set[str]) -> set[str]:
    """The modules that a file imports, anywhere: at its top, under TYPE_CHECKING and inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & modules) or {node.module}
    return found & modules


def _circle(imports: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


def test_no_circle_of_files_imports_itself() -> None:
    files = {_module(path): path for room in ("edgecv", *ROOMS) for path in (CHECKOUT / room).rglob("*.py")}
    imports = {
        name: _imports(path.read_text(encoding="utf-8"), set(files)) - {name}
        for name, path in files.items()
        if name not in DOORS
    }
    assert len(imports) > 200
    assert not _circle(imports), "the second of these is imported by the first, and so on"


def test_a_circle_would_be_found_wherever_the_import_stands() -> None:
    lazy = "from edgecv import one\n"
    inside = "def late():\n    from edgecv.two import thing\n"
    names = {"edgecv.one", "edgecv.two"}
    assert len(_circle({"edgecv.one": _imports(inside, names), "edgecv.two": _imports(lazy, names)})) == 3
