"""``edgecv tune`` measures on this device which variant of a bundle to run, and how."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecv.cli.console import note, print_json, print_table, progress_for, say
from edgecv.cli.options import Json

if TYPE_CHECKING:
    from edgecv.devices.tuning.cells import CellResult
    from edgecv.devices.tuning.record import TuneRecord
    from edgecv.devices.tuning.tune import Tuning


def tune(
    bundle: Annotated[Path, typer.Argument(help="Bundle to tune.")],
    budget: Annotated[float, typer.Option(min=1, help="Seconds that it may take.")] = 90.0,
    threads: Annotated[
        list[int] | None,
        typer.Option(min=1, max=1024, help="Thread count to try; may be repeated. Default: 1, 2, all, the big cores."),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(help="cpu, cuda, tensorrt, gpu, npu; may be repeated. Default: cpu, and what is usable here."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure even where a result is kept.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show everything that was compared, and why it lost.")
    ] = False,
    json: Json = False,
) -> None:
    """Find the fastest way to run a bundle on this device; `edgecv run` and `edgecv.load` use it from then on."""
    import msgspec

    from edgecv.devices.tuning.tune import TuneOptions, tune as tune_bundle

    options = TuneOptions(
        budget_s=budget, threads=tuple(threads or ()), devices=tuple(name.lower() for name in device or ()), again=again
    )
    with progress_for(json) as progress:
        found = tune_bundle(bundle, options, progress)
    if found.trouble:
        note(f"warning: {found.trouble}")
    if json:
        print_json(msgspec.to_builtins(found.record))
    else:
        _show(found, explain)


def _show(found: Tuning, explain: bool) -> None:
    record = found.record
    shapes = dict.fromkeys(result.cell.shape for result in record.results)
    firsts = [next(result for result in record.results if result.cell.shape == shape) for shape in shapes]
    winners = [first for first in firsts if first.median_ms is not None]
    for best in winners:
        say(f"{record.name}: {best.cell}: {best.median_ms:.2f} ms, {best.rss_bytes / 1e6:.0f} MB")
    if explain:
        print_table(
            f"{record.name}, measured {record.measured_at}", _COLUMNS, [_row(result) for result in record.results]
        )
    note(_how(record) if found.measured_now else f"It was measured at {record.measured_at}; --again measures anew.")
    for device in dict.fromkeys(best.cell.device for best in winners if best.cell.device != "cpu"):
        note(f"Only --compute-device {device} takes it: no run goes to another device unasked.")
    if found.path is not None:
        note(f"Kept in {found.path}: `edgecv run` and `edgecv.load` use it from now on.")


_COLUMNS = ("cell", "ms", "MB", "runs", "came to", "why no further")


def _row(result: CellResult) -> list[str]:
    ms = "" if result.median_ms is None else f"{result.median_ms:.2f}"
    megabytes = f"{result.rss_bytes / 1e6:.0f}" if result.rss_bytes else ""
    return [str(result.cell), ms, megabytes, str(result.runs or ""), result.stage, result.reason]


def _how(record: TuneRecord) -> str:
    timed = sum(result.median_ms is not None for result in record.results)
    return f"{timed} of {len(record.results)} cells were measured in {record.elapsed_s:.0f} s; --explain shows them."
