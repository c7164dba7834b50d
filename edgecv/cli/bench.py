"""``edgecv bench`` measures a bundle or a model file on this device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecv.cli.console import note, print_json, progress_for, say
from edgecv.cli.options import ComputeDevice, Json, MaxMegapixels, Precision, Runtime, Threads, limit_images
from edgecv.errors import ConfigError, RegressionError, SessionError

if TYPE_CHECKING:
    from edgecv.benchmarks.comparing.regression import Judged
    from edgecv.benchmarks.options import BenchOptions
    from edgecv.benchmarks.report import Report

_MAX_REGRESSION = "5%"
_DEFAULT = ("pipeline", "single_stream")
_DEFAULT_OF_A_FILE = ("single_stream",)  # another tool's export may say too little for a pipeline


def bench(
    bundle: Annotated[Path, typer.Argument(help="Bundle, or a model file: .onnx, .xml or .tflite.")],
    scenario: Annotated[
        list[str] | None, typer.Option(help="May be repeated. Default: pipeline, single_stream.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Images to measure with. Default: the bundle's own.")] = None,
    runtime: Runtime = "auto",
    precision: Precision = "auto",
    variant: Annotated[str, typer.Option(help="Name of one variant, such as onnx-int8.")] = "",
    threads: Threads = 0,
    device: ComputeDevice = "cpu",
    runs: Annotated[int | None, typer.Option(min=1, help="A quick look: so many runs.")] = None,
    warmup: Annotated[int | None, typer.Option(min=0, help="Runs before them. Default: until stable.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Measure so long at least. Default: 10.")] = None,
    streams: Annotated[int, typer.Option(min=1, max=64, help="Images of a query of multi_stream.")] = 4,
    mlperf: Annotated[bool, typer.Option("--mlperf", help="As long as MLPerf's rules ask: 600 s.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Every variant on every runtime, in one table.")] = False,
    sweep: Annotated[str, typer.Option(help="With --all: numbers of threads to try, such as 1,2,4.")] = "",
    data: Annotated[Path | None, typer.Option(help="With --all: labelled images, for accuracy beside speed.")] = None,
    table: Annotated[str, typer.Option(help="With --all: text, markdown or csv.")] = "text",
    baseline: Annotated[Path | None, typer.Option(help="Report of another day that it is held against.")] = None,
    against: Annotated[Path | None, typer.Option(help="Bundle to measure in turns with: the surest way.")] = None,
    max_regression: Annotated[str, typer.Option(help="How much slower it may be then. Default: 5%.")] = "",
    allow: Annotated[str, typer.Option(help="With --baseline: what may differ: device, threads ...")] = "",
    html: Annotated[Path | None, typer.Option(help="Write a page with charts, too.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace that page.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 if a measurement is noisy.")] = False,
    max_megapixels: MaxMegapixels = None,
    json: Json = False,
) -> None:
    """Measure a bundle on this device: time per stage, images per second, memory, heat; a process per scenario."""
    limit_images(max_megapixels)
    from edgecv import registry
    from edgecv.benchmarks.options import BenchOptions

    options = BenchOptions(
        runtime=runtime,
        precision=precision,
        variant=variant,
        threads=threads,
        device=device.lower(),
        runs=runs,
        warmup=warmup,
        seconds=seconds,
        streams=streams,
        mlperf=mlperf,
        source=source,
    )
    _check_together(
        every=every,
        scenario=scenario,
        sweep=sweep,
        data=data,
        table=table,
        baseline=baseline,
        against=against,
        allow=allow,
        max_regression=max_regression,
        force=force,
        html=html,
    )
    for name in scenario or ():
        registry.place("scenarios", name)
    if html is not None:
        from edgecv.benchmarks.page.page import check_page

        check_page(html, force)
    judged: list[Judged] = []
    if baseline is not None or against is not None:
        judged = _judge(bundle, options, scenario or (), baseline, against, max_regression, allow, json)
        reports = [one.report for one in judged]
    elif every:
        reports = _all(bundle, options, sweep, data, table, json)
    else:
        reports = _measure(bundle, options, scenario or (_DEFAULT_OF_A_FILE if bundle.is_file() else _DEFAULT), json)
    if html is not None:
        from edgecv.benchmarks.page.page import write_page

        write_page(html, reports)
    _end(judged, reports, strict)


def _check_together(**given: object) -> None:
    """Refuse options that mean nothing without another."""
    if given["baseline"] is not None and given["against"] is not None:
        raise ConfigError("--baseline and --against are two ways of one question.", "Give one of them.")
    if given["every"] and (given["baseline"] or given["against"]):
        raise ConfigError("--all measures many variants; a comparison is of one.", "Name it with --variant.")
    if given["every"] and given["scenario"]:
        raise ConfigError("--all measures single_stream and pipeline, no other scenario.", "Leave --scenario out.")
    alone = [name for name in ("sweep", "data") if given[name] and not given["every"]]
    if alone or (given["table"] != "text" and not given["every"]):
        raise ConfigError(f"--{(alone or ['table'])[0]} belongs to --all.", "Add --all.")
    if given["table"] not in ("text", "markdown", "csv"):
        raise ConfigError(f"--table knows no '{given['table']}'.", "Known: text, markdown, csv. JSON: --json.")
    if given["allow"] and not given["baseline"]:
        raise ConfigError("--allow belongs to --baseline.", "With --against both sides are measured here.")
    if given["max_regression"] and not (given["baseline"] or given["against"]):
        raise ConfigError("--max-regression belongs to --baseline or --against.", "Add one of them.")
    if given["force"] and given["html"] is None:
        raise ConfigError("--force belongs to --html.", "Leave it out: nothing else is written.")


def _measure(bundle: Path, options: BenchOptions, scenarios: Sequence[str], json: bool) -> list[Report]:
    from edgecv.benchmarks.report import as_document
    from edgecv.benchmarks.run import run_scenarios
    from edgecv.benchmarks.tables.report_table import render

    with progress_for(json) as progress:
        reports = run_scenarios(scenarios, bundle, options, progress)
    if json:
        print_json([as_document(report) for report in reports])
    else:
        render(reports)
    return reports


def _all(bundle: Path, options: BenchOptions, sweep: str, data: Path | None, table: str, json: bool) -> list[Report]:
    from edgecv.benchmarks.tables.every_variant import measure_all, read_sweep, rows_document
    from edgecv.benchmarks.tables.formats import show_rows

    numbers = read_sweep(sweep, options.threads)
    with progress_for(json) as progress:
        rows = measure_all(bundle, options, numbers, data, progress)
    if json:
        print_json(rows_document(bundle, rows))
    else:
        show_rows(str(bundle), rows, table)
    if not any(row.reports for row in rows):
        reasons = dict.fromkeys(row.reason for row in rows)
        raise SessionError(f"Nothing of {bundle} could be measured: {' '.join(reasons)}", "edgecv verify BUNDLE")
    return [report for row in rows for report in row.reports]


def _judge(
    bundle: Path,
    options: BenchOptions,
    scenarios: Sequence[str],
    baseline: Path | None,
    against: Path | None,
    max_regression: str,
    allow: str,
    json: bool,
) -> list[Judged]:
    from edgecv.benchmarks.comparing.differences import read_allowed
    from edgecv.benchmarks.comparing.files import read_reports
    from edgecv.benchmarks.comparing.regression import against_bundle, against_file, read_percent
    from edgecv.benchmarks.tables.compared import judged_document

    limit, allowed = read_percent(max_regression or _MAX_REGRESSION), read_allowed(allow)
    with progress_for(json) as progress:
        if baseline is not None:
            stored = (baseline, read_reports(baseline))
            judged = against_file(
                bundle, stored, options, limit, scenarios=scenarios, allowed=allowed, progress=progress
            )
        else:
            other = against or bundle
            asked = scenarios or ("single_stream",)
            judged = against_bundle(bundle, other, options, limit, scenarios=asked, progress=progress)
    if json:
        print_json({"regressions": judged_document(judged)})
    else:
        for one in judged:
            say(one.sentence)
            if one.differs:
                say(f"  They differ in {one.differs}.")
    return judged


def _end(judged: Sequence[Judged], reports: Sequence[Report], strict: bool) -> None:
    """End with the exit code of what was found.

    Raises:
        RegressionError: a scenario is proven slower than its limit.
    """
    slower = [one.scenario for one in judged if one.decision.judgement == "slower"]
    if slower:
        raise RegressionError(
            f"{', '.join(slower)} got slower than allowed.", "Find what changed, or raise --max-regression."
        )
    unsure = [one.scenario for one in judged if one.decision.judgement == "cannot tell"]
    if unsure:
        note(f"CANNOT TELL: {', '.join(unsure)}. Measure on an idle machine, or in turns with --against.")
    noisy = [report.scenario for report in reports if report.quality.verdict == "noisy"]
    if strict and noisy:
        note(f"noisy: {', '.join(dict.fromkeys(noisy))}")
        raise typer.Exit(1)
