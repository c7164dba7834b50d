"""The process in which a scenario runs: ``python -m edgecv.benchmarks.child TASK`` (JSON) prints its outcome (JSON)."""

from __future__ import annotations

import contextlib
import sys

import msgspec

from edgecv import registry
from edgecv.benchmarks.options import BenchOptions
from edgecv.benchmarks.report import Report
from edgecv.errors import EdgeCVError
from edgecv.media.image_headers import DEFAULT_MEGAPIXELS, set_max_megapixels


class Task(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which scenario to run, on what and how."""

    scenario: str
    bundle: str
    options: BenchOptions
    max_megapixels: float = DEFAULT_MEGAPIXELS


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An ``EdgeCVError``: name of its class, message and next step."""

    error: str
    message: str
    hint: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Either a report or a failure; the last line of the child's stdout."""

    report: Report | None = None
    failure: Failure | None = None


def measure(task: Task) -> Outcome:
    """Run a scenario in this process."""
    set_max_megapixels(task.max_megapixels)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # the outcome is all that stdout may hold
            report: Report = registry.resolve("scenarios", task.scenario)(task.bundle, task.options)
    except EdgeCVError as error:
        return Outcome(failure=Failure(error=type(error).__name__, message=error.message, hint=error.hint))
    return Outcome(report=report)


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.encode(measure(msgspec.json.decode(sys.argv[1], type=Task))).decode() + "\n")
