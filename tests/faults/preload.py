"""Builds ``preload.c`` and says how a process is started with it."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_name("preload.c")


def build(folder: Path) -> Path:
    """The library, compiled into ``folder``; the test skips where there is no compiler, and fails in CI."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        reason = "needs a C compiler (make system-deps)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    library = folder / "preload.so"
    command = [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library), str(_SOURCE)]
    done = subprocess.run([*command, "-ldl", "-lpthread"], capture_output=True, text=True, timeout=60, check=False)
    assert not done.returncode, done.stderr
    return library


class DiskControl:
    """Steers the disk of a process from outside."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set()

    def set(self, errno: int = 0, stall_ms: int = 0) -> None:
        """Every change fails with ``errno`` (0: none does), and every flush takes ``stall_ms`` longer."""
        state = struct.pack("ii", errno, stall_ms)
        if not self.path.exists():
            self.path.write_bytes(state)
            return
        with self.path.open("r+b") as handle:  # the process has it mapped: the file must stay the same one
            handle.write(state)


def environment(
    library: Path, folder: Path, *, log: Path | None = None, control: DiskControl | None = None
) -> Mapping[str, str]:
    """What a child needs in its environment, for the files below ``folder``."""
    more = {"LD_PRELOAD": str(library), "EDGECV_FAULTS_FOLDER": str(folder.resolve())}
    if log is not None:
        more["EDGECV_FAULTS_LOG"] = str(log)
    if control is not None:
        more["EDGECV_FAULTS_CONTROL"] = str(control.path)
    return {**os.environ, **more}
