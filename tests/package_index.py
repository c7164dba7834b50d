"""A copy of the checkout that may be installed from, and whether pip finds packages at all."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT


def checkout_copy(folder: Path) -> Path:
    """The files of the checkout as git would commit them, without what was built."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and not name.startswith("tests/") and (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, folder / name)
    return folder


@functools.cache
def _why_there_is_no_index() -> str:
    command = [sys.executable, "-m", "pip", "index", "versions", "msgspec"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no answer"])[-1]


def needs_a_package_index() -> None:
    """Skip the test where no package index answers; under CI that is a failure."""
    if reason := _why_there_is_no_index():
        reason = f"no package index answers: {reason}"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
