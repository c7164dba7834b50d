"""docs/api.md lists what is public: no name is missing there, and none is invented."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from types import ModuleType

import pytest

import edgecv
from tests.conftest import CHECKOUT

PAGE = (CHECKOUT / "docs/api.md").read_text(encoding="utf-8")
MODULES = ("edgecv", "edgecv.steps", "edgecv.sinks", "edgecv.cloud_sync", "edgecv.errors")


def _rows(module: str) -> dict[str, str]:
    """Names of the table of a module, each with its text."""
    section = PAGE.split(f"\n## `{module}`\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE))


def _module(name: str) -> ModuleType:
    package, _, inner = name.partition(".")
    door = importlib.import_module(package)
    return getattr(door, inner) if inner in door.__all__ else importlib.import_module(name)


def _public(module: ModuleType) -> set[str]:
    if hasattr(module, "__all__"):
        return set(module.__all__)
    here = {name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
    return {name for name in here if not name.startswith("_") and inspect.isclass(getattr(module, name))}


@pytest.mark.parametrize("name", MODULES)
def test_the_page_lists_the_public_names_of_a_module(name: str) -> None:
    module = _module(name)
    assert set(_rows(name)) == _public(module)
    assert all(getattr(module, one) is not None for one in _rows(name))


@pytest.mark.parametrize("name", MODULES[1:4])
def test_dir_lists_what_the_page_does(name: str) -> None:
    assert set(_rows(name)) <= set(dir(_module(name)))


MEMBERS = {name: text.split("Members: ")[1] for name, text in _rows("edgecv").items() if "Members: " in text}


@pytest.mark.parametrize("name", MEMBERS)
def test_the_page_lists_the_members_of_a_class(name: str) -> None:
    kind = getattr(edgecv, name)
    members = {one for one in dir(kind) if not one.startswith("_")}
    if not dataclasses.is_dataclass(kind):  # its attributes stand in its docstring
        members |= set(re.findall(r"^ {4,8}(\w+): ", inspect.getdoc(kind) or "", re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", MEMBERS[name])) == members


def test_every_public_name_has_a_sentence() -> None:
    texts = [text for module in MODULES for text in _rows(module).values()]
    assert all(text.endswith(".") and len(text.split()) >= 3 for text in texts)


def test_the_program_of_the_page_is_true_to_the_names() -> None:
    program = PAGE.split("```python\n")[1].split("```")[0]
    compile(program, "api.md", "exec")
    assert set(re.findall(r"edgecv\.(\w+)", program)) <= set(edgecv.__all__)
