"""Measure in another process: its last line on stdout is the answer, its last line on stderr the reason when it failed."""

from __future__ import annotations

import subprocess

from edgecv.errors import EdgeCVError
from edgecv.runtimes.own_python import module_command

TIMEOUT_S = 900.0


def call_module(module: str, *arguments: str, timeout_s: float = TIMEOUT_S) -> str:
    """``python -m MODULE ARGUMENT ...``.

    Returns:
        The last line on stdout.

    Raises:
        EdgeCVError: it ended with an error, said nothing, or took too long.
    """
    command = module_command(module, *arguments)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise EdgeCVError(
            f"The measurement took over {timeout_s:.0f} s.", "Ask for fewer runs, or use a smaller model."
        ) from error
    answer = _last_line(done.stdout)
    if done.returncode or not answer:
        reason = _last_line(done.stderr) or "it said nothing"
        raise EdgeCVError(
            f"The process that measures ended with code {done.returncode}: {reason}",
            "Does the model run at all? Try: edgecv predict BUNDLE IMAGE",
        )
    return answer


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""
