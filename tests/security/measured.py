"""Run a command of EdgeCV, or some code, in a process of its own and say how much memory it took at most.

``python -m tests.security.measured FILE -m MODULE ARGUMENT ...`` and ``... FILE -c CODE`` are what the child runs; ``FILE`` gets
the peak. It is read by the child itself: what the system reports to a parent includes the parent's own size at the fork.
"""

from __future__ import annotations

import atexit
import os
import resource
import runpy
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_ADDRESS_SPACE = 16 << 30  # an attack that works must not take the machine along
DEADLINE_S = 120


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    code: int
    stdout: str
    stderr: str
    peak_mb: float


def run_edgecv(*arguments: object, timeout_s: float = DEADLINE_S) -> Ended:
    """Run ``edgecv ARGUMENT ...``."""
    return _run("-m", "edgecv", *(str(argument) for argument in arguments), timeout_s=timeout_s)


def run_code(code: str, timeout_s: float = DEADLINE_S) -> Ended:
    """Run Python code; an ``EdgeCVError`` is printed as ``refused: MESSAGE``."""
    return _run("-c", code, timeout_s=timeout_s)


def peak_mb() -> float:
    """The most memory that this process has had, in MB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


def _run(*arguments: str, timeout_s: float) -> Ended:
    with tempfile.TemporaryDirectory() as folder:
        peak = Path(folder) / "peak"
        done = subprocess.run(
            [sys.executable, "-m", "tests.security.measured", str(peak), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{_ROOT}"},
        )
        took = float(peak.read_text()) if peak.exists() else float("inf")
    return Ended(done.returncode, done.stdout, done.stderr, took)


def _child(peak: Path, kind: str, what: str, arguments: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    atexit.register(lambda: peak.write_text(str(peak_mb())))
    sys.argv = [what, *arguments]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        return
    from edgecv.errors import EdgeCVError

    try:
        exec(compile(what, "<attack>", "exec"), {})
    except EdgeCVError as error:
        print(f"refused: {error.message}")


if __name__ == "__main__":
    _child(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
