"""Where the program begins: signals first, since imports and loading a model take seconds on a small board."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

_INTERRUPTED = 130  # what shells give a process that Ctrl-C ended


def main() -> NoReturn:
    """Run the command line. SIGTERM ends it cleanly with 0, Ctrl-C with 130."""
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        from edgecv.cli.app import run_command

        code = run_command()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        code = _INTERRUPTED
    sys.exit(code)


# A second signal while the first one is being answered would end the clean-up half-way: results unwritten, threads killed.
def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)
    sys.exit(0)


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


# A running pipeline takes them over until its results are written (edgecv.pipelines.signals).
_terminate.for_pipelines = _interrupt.for_pipelines = True  # type: ignore[attr-defined]
