"""``edgecv bench`` measures a bundle on this device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecv.cli.console import print_json
from edgecv.cli.options import Json, MaxMegapixels, Precision, Runtime, Threads, limit_images


def bench(
    bundle: Annotated[Path, typer.Argument(help="Bundle to measure.")],
    scenario: Annotated[list[str] | None, typer.Option(help="May be repeated. Default: all.")] = None,
    source: Annotated[str | None, typer.Option(help="Frames to measure with. Default: synthetic ones.")] = None,
    runtime: Runtime = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    runs: Annotated[int, typer.Option(min=1, help="Frames that count.")] = 100,
    warmup: Annotated[int, typer.Option(min=0, help="Frames before them.")] = 10,
    max_megapixels: MaxMegapixels = None,
    json: Json = False,
) -> None:
    """Measure a bundle on this device: p50/p90/p99 per stage, frames per second, memory; a process per scenario."""
    import msgspec

    limit_images(max_megapixels)
    from edgecv import registry
    from edgecv.benchmarks.report import render
    from edgecv.benchmarks.run import run_scenario
    from edgecv.benchmarks.scenarios import BenchOptions

    options = BenchOptions(
        runtime=runtime, precision=precision, threads=threads, runs=runs, warmup=warmup, source=source
    )
    chosen = scenario or list(registry.names("scenarios"))
    for name in chosen:
        registry.place("scenarios", name)
    reports = [run_scenario(name, bundle, options) for name in chosen]
    if json:
        print_json([msgspec.to_builtins(report) for report in reports])
    else:
        render(reports)
