"""Imports point down, and the light stays light (docs/architecture.md)."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import CHECKOUT
from tests.models import write_bundle
from tests.unit.house.source_tree import ROOMS, SHIPPED, SOURCES, files, imported, text_of, tree_of

MAY_IMPORT = {
    "core": {"core"},
    "quantize": {"core", "quantize"},
    "converters": {"core", "quantize", "converters"},
    "pipelines": {"core", "pipelines"},
    "devices": {"core", "devices"},
    "cloud_sync": {"core", "cloud_sync"},
    "benchmarks": {"core", "cli", *ROOMS},
    "cli": {"core", "cli", *ROOMS},
}
BUILD_ROOMS = ("converters", "quantize")
BUILD_PACKAGES = {"torch", "torchvision", "ultralytics", "nncf", "onnx", "onnxscript", "litert_torch"}
HEAVY = BUILD_PACKAGES | {"numpy", "cv2", "onnxruntime", "openvino", "ai_edge_litert", "typer", "rich", "av", "paho"}
DEADLINE_S = 60


def _room(module: str) -> str:
    parts = module.split(".")
    inner = parts[1] if parts[0] == "edgecv" and len(parts) > 1 else parts[0]
    return inner if inner in (*ROOMS, "cli") else "core"


def _room_of_file(path: Path) -> str:
    if path.parts[0] != "edgecv":
        return path.parts[0]
    return "cli" if path.parts[1] in ("cli", "__main__.py") else "core"


def test_imports_point_down() -> None:
    for path in SOURCES:
        room = _room_of_file(path)
        modules = imported(path, for_types=path != Path("edgecv/__init__.py"))
        wrong = [m for m in modules if m.split(".")[0] == "edgecv" and _room(m) not in MAY_IMPORT[room]]
        assert not wrong, f"{path} is in {room}, which may import {sorted(MAY_IMPORT[room])} only"


def test_build_packages_stay_in_the_build_rooms() -> None:
    outside = [path for path in SOURCES if _room_of_file(path) not in BUILD_ROOMS]
    found = {str(path): _packages(path) & BUILD_PACKAGES - _allowed(path) for path in outside}
    assert not {path: packages for path, packages in found.items() if packages}


def _packages(path: Path) -> set[str]:
    return {module.split(".")[0] for module in imported(path)}


def _allowed(path: Path) -> set[str]:
    return (
        {"torch", "torchvision", "ultralytics", "onnx"} if _room_of_file(path) == "benchmarks" else set()
    )  # its peers


def test_no_build_module_imports_a_heavy_package_at_its_top_level() -> None:
    inside = [path for path in SOURCES if _room_of_file(path) in BUILD_ROOMS]
    found = {str(path): _top_level_packages(path) & BUILD_PACKAGES for path in inside}
    assert not {path: packages for path, packages in found.items() if packages}


def _top_level_packages(path: Path) -> set[str]:
    names: set[str] = set()
    for node in tree_of(path).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).split(".")[0])
    return names


def test_what_is_installed_needs_no_program_of_the_laboratory() -> None:
    found = [str(path) for path in SHIPPED if any(m.startswith("edgecv.benchmarks.lab") for m in imported(path))]
    assert not found


def test_a_folder_holds_fifteen_modules_at_most() -> None:
    modules = Counter(str(path.parent) for path in SOURCES if path.name != "__init__.py")
    full = {folder: count for folder, count in modules.items() if count > 15 and folder != "edgecv/cli"}
    assert not full, "make a sub-room of what belongs together"


def test_rooms_are_imported_through_the_package_only() -> None:
    found = {str(path): _packages(path) & set(ROOMS) for path in files("edgecv", "tests", *ROOMS)}
    second_copies = {path: rooms for path, rooms in found.items() if rooms}
    assert not second_copies, "a second copy of the module would be loaded: write edgecv.<room>"


def _modules_after(code: str, *arguments: str) -> set[str]:
    """Top-level packages in a fresh process after ``code``."""
    program = f"import json, sys\n{code}\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        cwd=CHECKOUT,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_edgecv_pulls_in_no_numpy_and_nothing_heavy() -> None:
    assert not _modules_after("import edgecv") & (HEAVY | {"msgspec"})


def test_listing_names_of_edgecv_loads_none_of_them() -> None:
    assert not _modules_after("import edgecv; dir(edgecv); edgecv.__all__; edgecv.__version__") & HEAVY


RUN_PATH = """
import numpy as np, edgecv
with edgecv.load(sys.argv[1], threads=1) as model:
    assert len(model(np.full((64, 64, 3), 255, np.uint8)))
    frames = list(edgecv.Pipeline("synthetic://?frames=3&width=64&height=64", model, sinks=["jsonl:" + sys.argv[2]]))
assert [result.frame.index for result in frames] == [0, 1, 2]
"""


def test_the_run_path_never_imports_a_build_package(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny.ecv").path
    loaded = _modules_after(RUN_PATH, str(bundle), str(tmp_path / "out.jsonl"))
    assert "onnxruntime" in loaded
    assert not loaded & BUILD_PACKAGES


BLOCKED = """
import importlib.abc
ALLOWED = set(sys.stdlib_module_names) | set(sys.argv[1].split(","))
class Base(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        root = name.split(".")[0]
        if root not in ALLOWED and not root.startswith(("__editable__", "_sysconfigdata")):
            raise ModuleNotFoundError(f"{root} is no base dependency", name=root)
sys.meta_path.insert(0, Base())
import runpy
sys.argv = ["edgecv", *sys.argv[2:]]
runpy.run_module("edgecv", run_name="__main__")
"""


def _base_packages() -> set[str]:
    """Import names of EdgeCV's base dependencies and of theirs, as their metadata say."""
    pending = ["edgecv"]
    wanted: set[str] = set()
    while pending:
        name = canonicalize_name(pending.pop())
        if name in wanted:
            continue
        wanted.add(name)
        with contextlib.suppress(PackageNotFoundError):
            lines = [Requirement(line) for line in requires(name) or ()]
            pending += [r.name for r in lines if r.marker is None or r.marker.evaluate({"extra": ""})]
    found = packages_distributions().items()
    return {module for module, owners in found if wanted & {canonicalize_name(owner) for owner in owners}}


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("plugins",), ("devices", "--json")], ids=" ".join)
def test_the_command_line_starts_with_base_dependencies_only(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{BLOCKED}", ",".join(_base_packages()), *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        cwd=CHECKOUT,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


def test_pickles_are_read_in_one_place_only() -> None:
    """A pickle runs code; so does whatever reads one for us (docs/adr/0003)."""
    readers = (
        "torch.load(",
        "pickle.load(",
        "pickle.loads(",
        "Unpickler(",
        "joblib.load(",
        "torch.jit.load(",
        "allow_pickle=True",
    )
    found = {str(path): reader for path in SOURCES for reader in readers if reader in text_of(path)}
    assert found == {"converters/checkpoints/checkpoint.py": "torch.load("}  # behind --trust-pickle
