"""Run scenarios, each in a process of its own: what ran before must not count, and memory starts from nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from edgecv import errors, registry
from edgecv._internal.progress import Progress, silent
from edgecv.benchmarks.child import Failure, Outcome, Task
from edgecv.benchmarks.options import SUSTAINED_S, BenchOptions
from edgecv.benchmarks.process import TIMEOUT_S, call_module
from edgecv.benchmarks.report import Report
from edgecv.errors import EdgeCVError
from edgecv.media.image_headers import max_megapixels

_MLPERF_LONGEST_S = 86_400.0


def run_scenario(
    name: str, bundle: str | Path, options: BenchOptions | None = None, timeout_s: float | None = None
) -> Report:
    """Measure one scenario on a bundle, or on a model file.

    Without ``timeout_s`` it may take a quarter of an hour longer than was asked for.

    Raises:
        UnknownPlugin: there is no such scenario.
        EdgeCVError: what the scenario raised, or that its process crashed or took too long.
    """
    registry.place("scenarios", name)
    options = options or BenchOptions()
    task = Task(scenario=name, bundle=str(bundle), options=options, max_megapixels=max_megapixels())
    given = msgspec.json.encode(task).decode()
    answer = call_module("edgecv.benchmarks.child", given, timeout_s=timeout_s or longest_s(name, options))
    outcome = msgspec.json.decode(answer, type=Outcome)
    if outcome.report is None:
        raise _error(outcome.failure)
    return outcome.report


def run_scenarios(
    scenarios: Sequence[str], bundle: str | Path, options: BenchOptions | None = None, progress: Progress = silent
) -> list[Report]:
    """Measure several scenarios, one after the other; raises as ``run_scenario``."""
    reports = []
    for done, name in enumerate(scenarios):
        progress("Measuring", done, len(scenarios))
        reports.append(run_scenario(name, bundle, options))
    progress("Measuring", len(scenarios), len(scenarios))
    return reports


def longest_s(name: str, options: BenchOptions) -> float:
    """How long a scenario may take: MLPerf's rule for ``offline`` has no end but its number of images."""
    asked_s = options.seconds or (SUSTAINED_S if name == "sustained" else 0.0)
    return TIMEOUT_S + (_MLPERF_LONGEST_S if options.mlperf else 1.5 * asked_s)


def _error(failure: Failure | None) -> EdgeCVError:
    """The error as the child raised it, so that its exit code stays; of another package's class the base remains."""
    if failure is None:
        return EdgeCVError("The scenario gave no report.", "It must return an edgecv.benchmarks.report.Report.")
    kind = getattr(errors, failure.error, EdgeCVError)
    known = isinstance(kind, type) and issubclass(kind, EdgeCVError)
    return (kind if known else EdgeCVError)(failure.message, failure.hint)
