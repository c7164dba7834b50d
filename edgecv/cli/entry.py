"""Where the program begins: signals first, since imports and loading a model take seconds on a small board."""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType
from typing import NoReturn

_EXIT_CODES = {signal.SIGTERM: 0, signal.SIGINT: 130}  # 130: what shells give a process that Ctrl-C ended
_PATIENCE_S = 5.0  # after that a further signal does not wait any more: something hangs


class Ending:
    """The handler of SIGTERM and Ctrl-C: it remembers the first, and raises what ends the program.

    It has to remember: an exception that surfaces while a compiled module is imported becomes an ImportError there, and one
    inside a callback of the garbage collector is lost. A further signal within a few seconds changes nothing, since
    it would end the clean-up half-way: results unwritten, threads killed.
    """

    for_pipelines = True  # a running pipeline takes over until its results are written (edgecv.pipelines.signals)

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._asked_s = 0.0

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self.asked is None or now_s - self._asked_s > _PATIENCE_S:
            self.asked, self._asked_s = signal.Signals(number), now_s
            self.end()

    def end(self) -> NoReturn:
        """End what runs, for the signal that asked for it."""
        if self.asked is signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(0)


def main() -> NoReturn:
    """Run the command line. SIGTERM ends it cleanly with 0, Ctrl-C with 130."""
    ending = Ending()
    for number in _EXIT_CODES:
        signal.signal(number, ending)
    try:
        from edgecv.cli.app import run_command

        code = run_command()
    except BaseException as error:  # noqa: BLE001 - what the signal became is told apart below, the rest is raised again
        if ending.asked is None:
            code = _explain(error)
        else:
            if ending.asked is signal.SIGINT:
                print("stopped", file=sys.stderr)
            code = _EXIT_CODES[ending.asked]
    sys.exit(code)


def _explain(error: BaseException) -> int:
    """The words and the exit code of an error that no signal caused."""
    if not isinstance(error, Exception):
        raise error
    from edgecv.cli.app import explain

    return explain(error, debug="--debug" in sys.argv)
