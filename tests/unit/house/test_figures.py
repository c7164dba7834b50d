"""The sizes that the code keeps: short functions, complete annotations (docs/architecture.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.unit.house.source_tree import SHIPPED, nodes_of

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions() -> Iterator[tuple[Path, Function]]:
    for path in SHIPPED:
        yield from ((path, node) for node in nodes_of(path) if isinstance(node, Function))


def test_half_of_the_functions_have_seven_lines_at_most_and_nine_of_ten_have_nineteen() -> None:
    lengths = sorted((node.end_lineno or 0) - node.lineno + 1 for _, node in _functions())
    assert lengths[len(lengths) // 2] <= 7
    assert lengths[len(lengths) * 9 // 10] <= 19


def test_every_argument_and_every_result_is_annotated() -> None:
    assert not [f"{path}:{node.lineno} {node.name}" for path, node in _functions() if not _is_annotated(node)]


def _is_annotated(function: Function) -> bool:
    given = function.args
    starred = [argument for argument in (given.vararg, given.kwarg) if argument is not None]
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, *starred]
    named = [argument for argument in arguments if argument.arg not in ("self", "cls")]
    return function.returns is not None and all(argument.annotation is not None for argument in named)


def test_at_most_twenty_docstrings_have_four_words_or_fewer() -> None:
    short = [f"{path}:{line} {text}" for path in SHIPPED for line, text in _docstrings(path) if len(text.split()) <= 4]
    assert len(short) <= 20, "\n".join(["say what a caller needs in an ordinary sentence:", *short])


def _docstrings(path: Path) -> Iterator[tuple[int, str]]:
    for node in nodes_of(path):
        if isinstance(node, (ast.Module, ast.ClassDef, Function)) and (text := ast.get_docstring(node)) is not None:
            yield node.body[0].lineno, text
