"""What commands share: errors, tables, progress and JSON. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from edgecv._internal.printable import PrintableFormatter, printable, printable_json, printable_lines
from edgecv._internal.progress import Progress, silent
from edgecv._internal.redaction import redact
from edgecv.errors import EdgeCVError

_PIPED_WIDTH = 120  # a log has no width; rich would take 80

INTERRUPTED = 130  # what shells give a process that Ctrl-C ended


def fail(error: EdgeCVError) -> int:
    """Print message and next step; the exit code of the error's class."""
    note(f"error: {redact(error.message)}")
    if error.hint:
        note(f"  next: {error.hint}")
    return error.exit_code


def interrupted() -> int:
    """Say that the user stopped it."""
    print("stopped", file=sys.stderr)
    return INTERRUPTED


def note(line: str) -> None:
    """A line for the person who watches, if there still is one: a terminal that went away takes nothing."""
    with contextlib.suppress(OSError):
        print(printable_lines(line), file=sys.stderr)


def say(line: str) -> None:
    """A line of the result, on stdout."""
    print(printable_lines(line))


def show_traceback(error: BaseException) -> None:
    """The traceback of an error, for ``--debug``."""
    for line in "".join(traceback.format_exception(error)).splitlines():
        print(printable(line), file=sys.stderr)


def log_lines(level: int = logging.WARNING) -> None:
    """Write log lines from a level on to stderr, as Python does by itself, but with nothing in them that a terminal obeys."""
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger().setLevel(level)


def print_json(document: Any) -> None:
    """The one JSON document of ``--json``."""
    print(printable_json(json.dumps(document, indent=2, allow_nan=False)))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; the first column stands left, the others right."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=not number, overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    console = Console()
    console.width = max(console.width, _PIPED_WIDTH) if not console.is_terminal else console.width
    console.print(escape(printable(title)), soft_wrap=True, highlight=False, style="italic")  # a path is never broken
    console.print(table)


@contextlib.contextmanager
def progress_bars() -> Iterator[Progress]:
    """Progress bars on a terminal, one line per step elsewhere."""
    if not sys.stderr.isatty():
        yield _step_lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress as Bars, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:36}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def show(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(printable(step), total=total)
            bars.update(tasks[step], completed=done, total=total)

        yield show


def progress_for(json_wanted: bool) -> contextlib.AbstractContextManager[Progress]:
    """Progress for people, none beside ``--json``."""
    return contextlib.nullcontext(silent) if json_wanted else progress_bars()


def _step_lines() -> Progress:
    begun: set[str] = set()

    def show(step: str, _done: int, total: int) -> None:
        if step not in begun:
            begun.add(step)
            note(f"- {step}" + (f" ({total})" if total > 1 else ""))

    return show


def megabytes(size: int) -> str:
    """A file size for people, in MB of 10^6 bytes."""
    return f"{size / 1e6:.2f} MB"
