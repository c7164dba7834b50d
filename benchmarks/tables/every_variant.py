"""Every variant of a bundle on every runtime, one after the other: speed, memory and accuracy in one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from edgecv._internal.progress import Progress, silent
from edgecv.benchmarks.options import BenchOptions
from edgecv.benchmarks.report import Accuracy, Report, as_document
from edgecv.benchmarks.run import run_scenario
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.manifest import Variant
from edgecv.choosing import MOST_THREADS, runnable, runtime_of, runtime_options, runtimes_for
from edgecv.errors import ConfigError, EdgeCVError
from edgecv.model import open_variant
from edgecv.runtimes.accelerators import knows

_SCENARIOS = ("single_stream", "pipeline")
_DONE, _SKIPPED, _FAILED = "done", "skipped", "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One variant on one runtime with one number of threads.

    Attributes:
        variant: The variant.
        runtime: Registered name of the runtime.
        threads: Of the session; 0 where none was opened and no number was asked for.
        status: ``done``, ``skipped`` or ``failed``.
        reason: Why it was not measured.
        reports: Of each scenario.
        accuracy: On the labelled images, where they were given.
    """

    variant: Variant
    runtime: str
    threads: int
    status: str = _DONE
    reason: str = ""
    reports: tuple[Report, ...] = ()
    accuracy: Accuracy | None = None

    def report(self, scenario: str) -> Report | None:
        """The report of a scenario."""
        return next((report for report in self.reports if report.scenario == scenario), None)


def read_sweep(text: str, threads: int) -> tuple[int, ...]:
    """``1,2,4`` as numbers; without it the one that was asked for.

    Raises:
        ConfigError: it is no list of numbers from 1 to 1024, or ``threads`` says something else.
    """
    if not text:
        return (threads,)
    if threads:
        raise ConfigError("--sweep and --threads both say how many threads.", "Leave --threads out.")
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= MOST_THREADS for part in parts):
        raise ConfigError(
            f"--sweep '{text}' is no list of numbers from 1 to {MOST_THREADS}.", "Write for example: 1,2,4"
        )
    return tuple(dict.fromkeys(int(part) for part in parts))


def measure_all(
    path: Path,
    options: BenchOptions,
    sweep: Sequence[int],
    data: Path | None = None,
    progress: Progress = silent,
) -> list[Row]:
    """Measure every variant that fits the options on every runtime that is installed. One that fails does not stop the others.

    Args:
        path: The bundle.
        options: How to measure; ``runtime`` and ``precision`` choose a part of the rows.
        sweep: Numbers of threads.
        data: Labelled images.
        progress: Told how far it is.

    Raises:
        ConfigError: it is no bundle, nothing fits, or the labels do not.
        MissingDependency: no runtime of the bundle is installed; or pycocotools is not, which boxes are judged with.
    """
    if path.is_file():
        raise ConfigError(f"{path} is one file, not a bundle with variants.", "Leave --all out.")
    bundle = Bundle.open(path)
    asked = runtime_options(
        runtime=options.runtime, precision=options.precision, variant=options.variant, device=options.device
    )
    pairs = runnable(bundle, asked)
    scores = dict(_accuracies(bundle, pairs, data, options.device, progress)) if data is not None else {}
    todo = [(variant, runtime, threads) for variant, runtime in pairs for threads in sweep]
    rows = []
    for number, (variant, runtime, threads) in enumerate(todo):
        progress("Measuring", number, len(todo))
        exact = replace(options, variant=variant.name, runtime=runtime, precision="auto", threads=threads)
        rows.append(_measured(path, variant, exact, scores.get((variant.name, runtime))))
    progress("Measuring", len(todo), len(todo))
    return [*rows, *_skipped(bundle, options, pairs)]


def rows_document(path: Path, rows: Sequence[Row]) -> dict[str, Any]:
    """What JSON holds of them."""
    return {
        "schema": 2,
        "bundle": str(path),
        "rows": [
            {
                "variant": row.variant.name,
                "size_wh": list(row.variant.size_wh),
                "runtime": row.runtime,
                "threads": row.threads,
                "bytes": row.variant.bytes,
                "status": row.status,
                "reason": row.reason,
                "accuracy": None if row.accuracy is None else msgspec.to_builtins(row.accuracy),
                "reports": [as_document(report) for report in row.reports],
            }
            for row in rows
        ],
    }


def _measured(path: Path, variant: Variant, options: BenchOptions, accuracy: Accuracy | None) -> Row:
    row = Row(variant=variant, runtime=options.runtime, threads=options.threads, accuracy=accuracy)
    try:
        reports = [run_scenario(scenario, path, options) for scenario in _SCENARIOS]
    except EdgeCVError as error:
        return replace(row, status=_FAILED, reason=error.message)
    scored = tuple(msgspec.structs.replace(report, accuracy=accuracy) for report in reports)
    return replace(row, threads=scored[0].comparability.threads, reports=scored)


def _skipped(bundle: Bundle, options: BenchOptions, pairs: Sequence[tuple[Variant, str]]) -> Iterator[Row]:
    """The rows of runtimes that are not installed."""
    measured = {(variant.name, runtime) for variant, runtime in pairs}
    for variant in bundle.variants:
        for runtime in runtimes_for(variant.format):
            fits = options.runtime in ("auto", runtime) and options.precision in ("auto", variant.precision)
            fits = fits and knows(runtime, options.device)
            if fits and options.variant in ("", variant.name) and (variant.name, runtime) not in measured:
                hint = f"{runtime} is not installed: pip install 'edgecv[{runtime_of(runtime).extra}]'"
                yield Row(variant=variant, runtime=runtime, threads=0, status=_SKIPPED, reason=hint)


def _accuracies(
    bundle: Bundle, pairs: Sequence[tuple[Variant, str]], data: Path, device: str, progress: Progress
) -> Iterator[tuple[tuple[str, str], Accuracy]]:
    """The scores of every variant on every runtime; what cannot run has none, and says so when it is timed."""
    from edgecv.quantize.labels.int8_loss import open_labelled

    labelled = open_labelled(data, bundle.spec.decode.task, bundle.labels)
    for variant, runtime in pairs:
        try:
            with open_variant(bundle, variant, runtime_options(runtime=runtime, device=device), runtime) as model:
                scores = labelled.score(model, progress)
        except EdgeCVError:
            continue
        figures = {name: round(value, 6) for name, value in scores.figures().items()}
        yield (variant.name, runtime), Accuracy(figures=figures, images=len(labelled.images))
