"""The list of the run-time tests names what is there, and scripts that need root or an interpreter say so."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from tests.conftest import CHECKOUT

SCRIPTS = CHECKOUT / ".ci"
# Packages of the development world that neither a device nor the tools of these tests have.
ABSENT = {"litert_torch", "nncf", "onnxscript", "openvino", "pycocotools", "torch", "torchvision", "ultralytics"}


def of_the_list(name: str) -> list[str]:
    code = f"import device_tests; print(*device_tests.{name}, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_run_time_tests_are_there_and_in_order() -> None:
    tests, left_out = of_the_list("TESTS"), of_the_list("LEFT_OUT")
    assert tests == sorted(tests)
    assert set(of_the_list("ON_ARM64")) <= set(tests)
    assert not [path for path in (*tests, *left_out) if not (CHECKOUT / path).exists()]
    assert all(any(path.startswith(f"{folder}/") for folder in tests) for path in left_out)


def packages_at_the_top(path: Path) -> set[str]:
    """Those that a module imports before any of its tests runs; an `importorskip` comes first where it may be absent."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    skipping = next((at for at, node in enumerate(body) if "importorskip" in ast.unparse(node)), len(body))
    plain = [alias.name for node in body[:skipping] if isinstance(node, ast.Import) for alias in node.names]
    whole = [node.module or "" for node in body[:skipping] if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in (*plain, *whole)}


def test_the_run_time_tests_import_nothing_that_a_device_lacks() -> None:
    """One such module ends the whole run: nothing of it is collected."""
    left_out = {CHECKOUT / path for path in of_the_list("LEFT_OUT")}
    roots = [CHECKOUT / path for path in of_the_list("TESTS")]
    files = {file for root in roots for file in (root.rglob("*.py") if root.is_dir() else (root,))} - left_out
    assert not {str(file): found for file in sorted(files) if (found := packages_at_the_top(file) & ABSENT)}


def test_what_the_tests_read_is_copied_and_the_package_is_not(tmp_path: Path) -> None:
    code = f"from pathlib import Path; import device_tests; device_tests.copy_tests(Path({str(tmp_path / 'copy')!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, check=True, timeout=60)
    assert (tmp_path / "copy/tests/conftest.py").exists()
    assert not (tmp_path / "copy/edgecv").exists()


def test_without_root_the_arm64_tests_say_what_to_run() -> None:
    code = "import os, sys, arm64; os.geteuid = lambda: 1000; sys.argv = ['arm64.py']; raise SystemExit(arm64.main())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 77, done.stderr
    assert "sudo make test-arm64" in done.stderr


def test_a_step_or_a_python_that_does_not_exist_is_wrong_usage() -> None:
    for script in ("arm64.py", "pythons.py"):
        done = subprocess.run(
            [sys.executable, script, "nothing"], cwd=SCRIPTS, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 2, done.stderr
        assert "nothing" in done.stderr
