"""The files of this project, each parsed once for all house tests."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.conftest import CHECKOUT

ROOMS = ("converters", "quantize", "pipelines", "devices", "cloud_sync", "benchmarks")


def files(*folders: str) -> list[Path]:
    """The Python files of these folders, relative to the checkout."""
    return sorted(path.relative_to(CHECKOUT) for folder in folders for path in (CHECKOUT / folder).rglob("*.py"))


SOURCES = files("edgecv", *ROOMS)
SHIPPED = [path for path in SOURCES if path.parts[:2] != ("benchmarks", "lab")]


@cache
def text_of(path: Path) -> str:
    """The text of a file."""
    return (CHECKOUT / path).read_text(encoding="utf-8")


@cache
def tree_of(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(text_of(path))


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """Every node of the parsed file."""
    return tuple(ast.walk(tree_of(path)))


def imported(path: Path, *, for_types: bool = True) -> tuple[str, ...]:
    """Modules a file imports anywhere, by statement or through ``require("...")``.

    Args:
        path: The file.
        for_types: Whether imports under ``if TYPE_CHECKING`` count.
    """
    return _imported(path) if for_types else _imported(path, frozenset(_typing_only(path)))


@cache
def _imported(path: Path, left_out: frozenset[int] = frozenset()) -> tuple[str, ...]:
    return tuple(module for node in nodes_of(path) if id(node) not in left_out for module in _modules_of(node, path))


def _typing_only(path: Path) -> Iterator[int]:
    for node in nodes_of(path):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from map(id, ast.walk(node))


def _modules_of(node: ast.AST, path: Path) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, f"{path}: write `from {'.' * node.level}{node.module}` in full"
        assert node.module is not None
        yield from ({node.module} if node.module != "edgecv" else {f"edgecv.{alias.name}" for alias in node.names})
    elif isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
        name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        if name in ("require", "import_module", "__import__"):
            yield from (str(first.value) for first in node.args[:1] if isinstance(first, ast.Constant))
