"""What users see stays exact: ``edgecv.__all__``, the commands, their help and the README."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from types import ModuleType

import pytest
import tomllib

import edgecv
from edgecv.cli.app import COMMANDS
from tests.conftest import CHECKOUT


def test_every_public_name_resolves() -> None:
    assert all(getattr(edgecv, name) is not None for name in edgecv.__all__)


def test_what_is_not_named_as_a_module_is_none() -> None:
    modules = {name for name in edgecv.__all__ if isinstance(getattr(edgecv, name), ModuleType)}
    assert modules == {"errors", "sinks", "steps"}


def test_dir_lists_exactly_the_public_names() -> None:
    assert dir(edgecv) == sorted(edgecv.__all__)
    assert len(set(edgecv.__all__)) == len(edgecv.__all__)


def test_type_checkers_see_every_public_name() -> None:
    tree = ast.parse((CHECKOUT / "edgecv/__init__.py").read_text())
    seen = {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.If)
        for statement in node.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert seen | {"__version__"} == set(edgecv.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="detct"):
        edgecv.detct  # noqa: B018


HELP = """
import contextlib, io, json, sys
from edgecv.cli import app
texts = {}
for name in app.COMMANDS:
    sys.argv = ["edgecv", name, "--help"]
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        app.run_command()
    texts[name] = out.getvalue()
print(json.dumps(texts))
"""


@pytest.fixture(scope="module")
def help_texts() -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", HELP],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
        env={**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"},
    )
    texts: dict[str, str] = json.loads(done.stdout)
    return texts


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_a_sentence(command: str, help_texts: dict[str, str]) -> None:
    text = help_texts[command]
    assert f"edgecv {command}" in text
    sentence = next(line for line in text.splitlines()[2:] if line.strip())
    assert len(sentence.split()) >= 3, text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_stands_in_the_documents(command: str) -> None:
    assert f"`edgecv {command}" in (CHECKOUT / "docs/commands.md").read_text()


def test_the_root_help_lists_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgecv", "--help"], capture_output=True, text=True, timeout=60, check=True, cwd=CHECKOUT
    )
    assert all(command in done.stdout for command in COMMANDS)


def test_every_extra_that_a_text_or_a_message_names_exists() -> None:
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    texts = [*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.*"), *CHECKOUT.glob("[!.]*/**/*.py")]
    named = {
        (extra, str(path.relative_to(CHECKOUT)))
        for path in texts
        if path.suffix in (".md", ".py", ".toml", ".service")
        for found in re.findall(r"(?:edgecv|['\"]\.)\[([a-z][a-z,-]+)\]", path.read_text(encoding="utf-8"))
        for extra in found.split(",")
    }
    assert len(named) > 10
    assert not [one for one in named if one[0] not in extras]
