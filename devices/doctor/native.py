"""Tries each installed runtime in a process of its own: native code may end the process that imports it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgecv import registry
from edgecv.runtimes import DISTRIBUTIONS
from edgecv.runtimes.own_python import module_command

LIMIT_S = 10.0
_MOST_CHARS = 300
_MODELS = {"onnxruntime": "tiny.onnx", "openvino": "tiny.xml", "litert": "tiny.tflite"}

Outcome = Literal["ok", "error", "signal", "timeout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Native:
    """What became of one runtime.

    Attributes:
        runtime: Its name, as ``--runtime`` takes it.
        package: The package that brings it.
        version: Of that package.
        outcome: ``ok``, ``error``: it said what is wrong. ``signal``: it ended its process. ``timeout``: it did not answer.
        detail: What it said, or the signal's name.
        ran_model: Whether it has computed a tiny model.
        gpu_error: Why a runtime that was built for NVIDIA cannot use it; empty when it can, or was not built for it.
    """

    runtime: str
    package: str
    version: str
    outcome: Outcome
    detail: str = ""
    ran_model: bool = False
    gpu_error: str = ""


def try_runtimes(version_of: Callable[[str], str]) -> Iterator[Native]:
    """Try every runtime of which a package is installed, one after the other."""
    for runtime, package in installed(version_of):
        yield try_runtime(runtime, package, version_of(package))


def installed(version_of: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """(runtime, package) of what is installed, EdgeCV's own and those of plug-ins."""
    for runtime in registry.names("runtimes"):
        packages = DISTRIBUTIONS.get(runtime) or _of_plug_in(runtime)
        package = next((one for one in packages if version_of(one)), "")
        if package:
            yield runtime, package


def try_runtime(
    runtime: str, package: str, version: str, *, limit_s: float = LIMIT_S, program: Sequence[str] = ()
) -> Native:
    """Import a runtime and compute a tiny model in a child process; whatever happens there, this process goes on.

    Args:
        runtime: Its name.
        package: The package that brings it.
        version: Of that package.
        limit_s: How long the child may take.
        program: What to start in place of Python with EdgeCV's child.
    """
    name = _MODELS.get(runtime, "")
    model = str(Path(__file__).with_name(name)) if name else ""
    python, *rest = module_command("edgecv.devices.doctor.child")
    own = (python, "-B", *rest)  # no bytecode is written, since the doctor changes nothing
    outcome, said = _outcome([*(program or own), runtime, model], limit_s)
    return Native(
        runtime=runtime,
        package=package,
        version=version,
        outcome=outcome,
        detail=str(said.get("detail", ""))[:_MOST_CHARS],
        ran_model=outcome == "ok" and bool(model),
        gpu_error=str(said.get("gpu_error", ""))[:_MOST_CHARS],
    )


def _of_plug_in(runtime: str) -> tuple[str, ...]:
    points = registry.entry_points("runtimes")
    return tuple(point.dist.name for point in points if point.name == runtime and point.dist is not None)


def _outcome(command: Sequence[str], limit_s: float) -> tuple[Outcome, dict[str, Any]]:
    try:
        done = subprocess.run(command, capture_output=True, timeout=limit_s, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return "timeout", {"detail": f"no answer within {limit_s:g} s"}
    except OSError as error:
        return "error", {"detail": str(error)}
    if done.returncode < 0:
        return "signal", {"detail": _signal_name(-done.returncode)}
    said = _document(done.stdout)
    if said is None:
        return "error", {"detail": _last_line(done.stderr) or f"it ended with {done.returncode}"}
    return ("error" if "error" in said else "ok"), {"detail": said.get("error", ""), **said}


def _document(stdout: bytes) -> dict[str, Any] | None:
    """The last line, if it is the child's answer: libraries print what they like before it."""
    try:
        said = json.loads(_last_line(stdout))
    except ValueError:
        return None
    return said if isinstance(said, dict) and said.get("edgecv") == "doctor" else None


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
