"""The tool of a Raspberry Pi's firmware, asked rarely: each answer costs a process."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable

from edgecv.devices.roots import Roots, is_raspberry_pi

_LIMIT_S = 1.0
_EVERY_S = 10.0  # a process a second would be one per cent of a slow core
_MOST_BYTES = 1 << 16

Run = Callable[[str, str], "str | None"]


class Command:
    """``vcgencmd`` on a Raspberry Pi. An answer is used again for ten seconds.

    Attributes:
        is_there: Whether this is a Raspberry Pi and has it.
    """

    def __init__(self, roots: Roots, run: Run | None = None) -> None:
        self.is_there = is_raspberry_pi(roots) and (run is not None or shutil.which("vcgencmd") is not None)
        self._run = run or _run
        self._answers: dict[str, tuple[float, str | None]] = {}

    def output(self, name: str) -> str | None:
        """What it prints; ``None`` when it fails: the user must be in the group ``video``."""
        now = time.monotonic()
        asked, answer = self._answers.get(name, (-_EVERY_S, None))
        if now - asked >= _EVERY_S:
            answer = self._run("vcgencmd", name)
            self._answers[name] = (now, answer)
        return answer


def _run(*arguments: str) -> str | None:
    try:
        done = subprocess.run(arguments, capture_output=True, timeout=_LIMIT_S, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout[:_MOST_BYTES].decode(errors="replace") if done.returncode == 0 else None
