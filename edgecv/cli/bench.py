"""``edgecv bench`` measures a bundle or a model file on this device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecv.cli.console import note, print_json, progress_for
from edgecv.cli.options import Json, MaxMegapixels, Precision, Runtime, Threads, limit_images

if TYPE_CHECKING:
    from edgecv.benchmarks.report import Report

_DEFAULT = ("pipeline", "single_stream")


def bench(
    bundle: Annotated[Path, typer.Argument(help="Bundle, or a model file: .onnx, .xml or .tflite.")],
    scenario: Annotated[list[str] | None, typer.Option(help="May be repeated. Default: pipeline, single_stream.")] = None,
    source: Annotated[str | None, typer.Option(help="Images to measure with. Default: the bundle's own.")] = None,
    runtime: Runtime = "auto",
    precision: Precision = "auto",
    variant: Annotated[str, typer.Option(help="Name of one variant, such as onnx-int8.")] = "",
    threads: Threads = 0,
    runs: Annotated[int | None, typer.Option(min=1, help="A quick look: so many runs.")] = None,
    warmup: Annotated[int | None, typer.Option(min=0, help="Runs before them. Default: until stable.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Measure so long at least. Default: 10.")] = None,
    streams: Annotated[int, typer.Option(min=1, max=64, help="Images of a query of multi_stream.")] = 4,
    mlperf: Annotated[bool, typer.Option("--mlperf", help="As long as MLPerf's rules ask: 600 s.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 if a measurement is noisy.")] = False,
    max_megapixels: MaxMegapixels = None,
    json: Json = False,
) -> None:
    """Measure a bundle on this device: time per stage, images per second, memory, heat; a process per scenario."""
    limit_images(max_megapixels)
    from edgecv import registry
    from edgecv.benchmarks.options import BenchOptions
    from edgecv.benchmarks.report import as_document
    from edgecv.benchmarks.run import run_scenarios
    from edgecv.benchmarks.tables.report_table import render

    options = BenchOptions(
        runtime=runtime,
        precision=precision,
        variant=variant,
        threads=threads,
        runs=runs,
        warmup=warmup,
        seconds=seconds,
        streams=streams,
        mlperf=mlperf,
        source=source,
    )
    chosen = scenario or _DEFAULT
    for name in chosen:
        registry.place("scenarios", name)
    with progress_for(json) as progress:
        reports = run_scenarios(chosen, bundle, options, progress)
    if json:
        print_json([as_document(report) for report in reports])
    else:
        render(reports)
    if strict:
        _refuse_noise(reports)


def _refuse_noise(reports: list[Report]) -> None:
    noisy = [report.scenario for report in reports if report.quality.verdict == "noisy"]
    if noisy:
        note(f"noisy: {', '.join(noisy)}")
        raise typer.Exit(1)
