"""Where the program begins: signals first, since imports and loading a model take seconds on a small board."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

_NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PATIENCE_S = 5.0  # after that a further signal does not wait any more: something hangs


class Ending:
    """The handler of SIGTERM, Ctrl-C and SIGHUP, which comes from a terminal that goes away.

    It remembers the first, and raises what ends the program.
    It has to remember: an exception that surfaces while a compiled module is imported becomes an ImportError there, and one
    inside a callback of the garbage collector is lost. A further signal within a few seconds changes nothing, since
    it would end the clean-up half-way: results unwritten, threads killed.
    """

    for_pipelines = True  # a running pipeline takes over until its results are written (edgecv.pipelines.loop.signals)

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._asked_s = 0.0
        self._raised: BaseException | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self.asked is None or now_s - self._asked_s > _PATIENCE_S:
            self.asked, self._asked_s = signal.Signals(number), now_s
            self.end()

    def end(self) -> NoReturn:
        """End what runs, for the signal that asked for it."""
        self._raised = KeyboardInterrupt() if self.asked is signal.SIGINT else SystemExit(0)
        raise self._raised

    def became(self, error: Exception) -> bool:
        """Whether an error is what an import made of the signal; one of the clean-up after it is another matter."""
        causes = list(_causes(error))
        return self._raised in causes and any(isinstance(cause, ImportError) for cause in causes)


def main() -> NoReturn:
    """Run the command line. SIGTERM and SIGHUP end it cleanly with 0, Ctrl-C with 130."""
    ending = Ending()
    for number in _wanted():
        signal.signal(number, ending)
    try:
        sys.exit(_run(ending))
    except KeyboardInterrupt:
        from edgecv.cli.console import interrupted

        sys.exit(interrupted())
    finally:
        if ending.asked is not None:
            for number in _wanted():  # a later signal must not interrupt the interpreter's shutdown
                signal.signal(number, signal.SIG_IGN)


def take_over(handler: Callable[[int, FrameType | None], None]) -> None:
    """Install a command's own handler, unless a signal was lost before: then it takes effect now."""
    for number in _wanted():
        before = signal.getsignal(number)
        if isinstance(before, Ending) and before.asked is not None:
            before.end()
        signal.signal(number, handler)


def _wanted() -> list[signal.Signals]:
    """Which signals end the program; whoever starts it with ``nohup`` wants it to outlive its terminal."""
    return [
        number
        for number in _NUMBERS
        if number is not signal.SIGHUP or signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    ]


def _run(ending: Ending) -> int:
    try:
        from edgecv.cli.device_view import without_parser

        if without_parser(sys.argv[1:]):
            return 0
        from edgecv.cli.app import run_command

        return run_command()
    except Exception as error:  # noqa: BLE001 - said in words, or raised again
        if ending.became(error):
            ending.end()
        from edgecv.cli.app import explain

        return explain(error, debug="--debug" in sys.argv)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
