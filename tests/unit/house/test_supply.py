"""What is installed is known: pinned, hashed, explained; and nothing that reports its use is imported without being silenced."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import CHECKOUT
from tests.unit.house.source_tree import SOURCES, nodes_of

LOCKS = sorted((CHECKOUT / ".ci").glob("*.lock"))
REPORTING = {"onnxruntime", "openvino", "nncf", "ultralytics"}


def pins(*paths: Path) -> dict[str, str]:
    """Package to version of files with one ``name==version`` a line."""
    lines = [line for path in paths for line in path.read_text().splitlines() if re.match(r"\w", line)]
    found = [Requirement(line.rstrip(" \\")) for line in lines]
    return {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in found}


def direct_dependencies() -> set[str]:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    return {canonicalize_name(Requirement(line).name) for line in lines} - {"edgecv"}


def test_packages_that_report_their_use_are_imported_through_require() -> None:
    """``require`` and the first lines of ``edgecv`` keep them silent."""
    found = {str(path): {name.split(".")[0] for name in _plainly_imported(path)} & REPORTING for path in SOURCES}
    assert not {path: packages for path, packages in found.items() if packages}


def _plainly_imported(path: Path) -> Iterator[str]:
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (str(one.value) for one in node.args if isinstance(one, ast.Constant))


@pytest.mark.parametrize("own", [None, "0"])
def test_importing_edgecv_silences_onnxruntime_unless_the_operator_chose(own: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", "import os, edgecv; print(os.environ['ORT_DISABLE_TELEMETRY'])"],
        env=environment | ({"ORT_DISABLE_TELEMETRY": own} if own is not None else {}),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.strip() == (own or "1")


def test_the_locks_hold_the_pinned_versions_and_no_others() -> None:
    locked = pins(*(path for path in LOCKS if path.name != "torch-cuda.lock"))
    locked["torch"] = locked["torch"].removesuffix("+cpu")
    assert locked == pins(CHECKOUT / "constraints.txt"), "run `make lock`"


def test_every_direct_dependency_is_pinned() -> None:
    assert direct_dependencies() - set(pins(CHECKOUT / "constraints.txt")) == {
        "tflite-runtime"
    }  # no wheel for our Pythons


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_line_of_a_lock_has_hashes_and_names_no_address(path: Path) -> None:
    text = path.read_text()
    blocks = re.split(r"(?<!\\)\n", text)
    assert all("--hash=sha256:" in block for block in blocks if re.match(r"\w", block))
    assert "://" not in text
    assert "--index" not in text


def test_a_build_takes_one_series_of_setuptools() -> None:
    wanted = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["build-system"]["requires"]
    [setuptools] = [Requirement(line) for line in wanted]
    assert setuptools.specifier.contains(pins(CHECKOUT / "constraints.txt")["setuptools"])
    assert any(one.operator == "<" for one in setuptools.specifier)


def test_the_table_of_dependencies_names_each_with_its_pinned_version() -> None:
    text = (CHECKOUT / "docs/dependencies.md").read_text()
    rows = dict(re.findall(r"^\| ([\w.-]+) \| ([\w.]+|not pinned) \|", text, re.MULTILINE))
    pinned = pins(CHECKOUT / "constraints.txt")
    assert {canonicalize_name(name): version for name, version in rows.items() if name != "package"} == {
        name: pinned.get(name, "not pinned") for name in direct_dependencies() | {"setuptools", "pip"}
    }


@pytest.mark.parametrize(("ci", "installs"), [("true", True), ("", False)])
def test_only_ci_installs_packages_of_the_system(ci: str, installs: bool) -> None:
    done = subprocess.run(
        ["make", "-n", "test", f"CI={ci}"], cwd=CHECKOUT, capture_output=True, text=True, timeout=30, check=True
    )
    assert ("apt-get install" in done.stdout) == installs
