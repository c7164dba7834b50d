"""``python -m edgecv.benchmarks [BUNDLE] [--json]``: both scenarios on every precision of a bundle; the demo's by default."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgecv._internal.progress import Progress
from edgecv.benchmarks.command import run_program
from edgecv.benchmarks.options import BenchOptions
from edgecv.benchmarks.report import Report, as_document
from edgecv.benchmarks.run import run_scenarios
from edgecv.benchmarks.tables.report_table import render
from edgecv.bundles.bundle import SUFFIX, Bundle
from edgecv.cli.console import print_json, progress_for
from edgecv.errors import ConfigError

_DEMO = Path("demo-output")
_SCENARIOS = ("single_stream", "pipeline")


def _measure(bundle: Path, given: argparse.Namespace, progress: Progress) -> list[Report]:
    precisions = dict.fromkeys(variant.precision for variant in Bundle.open(bundle).variants)
    return [
        report
        for precision in precisions
        for report in run_scenarios(
            _SCENARIOS, bundle, BenchOptions(precision=precision, threads=given.threads, runs=given.runs), progress
        )
    ]


def _demo_bundle() -> Path:
    found = sorted(_DEMO.glob(f"*{SUFFIX}"))
    if not found:
        raise ConfigError(f"There is no bundle in {_DEMO}/.", "Make one with `make demo`, or name a bundle.")
    return found[0]


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m edgecv.benchmarks", description=__doc__)
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--runs", type=int, help="runs that count; by default as many as the scenarios ask for")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    given = parser.parse_args()
    with progress_for(given.json) as progress:
        reports = _measure(given.bundle or _demo_bundle(), given, progress)
    if given.json:
        print_json([as_document(report) for report in reports])
    else:
        render(reports)


if __name__ == "__main__":
    run_program(_main)
