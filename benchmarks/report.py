"""``Report``: what one scenario measured, in a form that stays readable for later versions."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import msgspec

from edgecv._internal.printable import printable
from edgecv.benchmarks.statistics import StageStatistics

SCHEMA = 1
_MEGABYTE = 1e6


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One scenario on one device."""

    schema: int = SCHEMA  # version of this form
    scenario: str  # registered name of the scenario
    bundle: str  # name of the model
    variant: str  # the variant that ran, such as `onnx-int8`; empty for a bare model file
    runtime: str  # what ran it
    options: dict[str, Any]  # what was asked for
    source: str  # where the images came from
    warmup: int  # runs or frames before the first that counts
    runs: int  # runs or frames that count
    # Statistics per stage; `total` is a whole frame, `age` the time from capture to result
    stages: dict[str, StageStatistics]
    fps: float  # frames per second over all that count
    rss_bytes: int  # memory at the end
    pss_bytes: int  # the same, shared pages divided among those who share them
    peak_rss_bytes: int  # the most memory, loading the model included
    device: dict[str, Any]  # what `edgecv devices --json` says
    versions: dict[str, str]  # EdgeCV, Python and numpy
    started: str  # UTC, ISO 8601
    float_precision: str = (
        ""  # the type in which it computed what is not in integers; empty where the runtime does not say
    )


def as_document(report: Report) -> dict[str, Any]:
    """Return the report as a dict that JSON can hold."""
    document: dict[str, Any] = msgspec.to_builtins(report)
    return document


def table(reports: Sequence[Report]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows: one row per report and stage; what belongs to the whole report stands in its first row."""
    columns = ("scenario", "variant", "stage", "p50 ms", "p90 ms", "p99 ms", "fps", "RSS MB", "peak MB")
    return columns, [row for report in reports for row in _rows(report)]


def render(reports: Sequence[Report]) -> None:
    """Print the table on stdout."""
    for line in as_text(reports).splitlines():
        print(printable(line))


def as_text(reports: Sequence[Report]) -> str:
    """The table as text, as wide as it needs to be."""
    from rich.console import Console
    from rich.table import Table

    columns, rows = table(reports)
    grid = Table(title=_title(reports), title_justify="left")
    for number, column in enumerate(columns):
        grid.add_column(column, justify="left" if number < 3 else "right", no_wrap=True)
    for number, row in enumerate(rows):
        is_last = number + 1 == len(rows) or bool(rows[number + 1][0])
        grid.add_row(*row, end_section=is_last)
    text = io.StringIO()
    Console(file=text, width=160).print(grid)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _rows(report: Report) -> list[tuple[str, ...]]:
    megabytes = (f"{size / _MEGABYTE:.0f}" for size in (report.rss_bytes, report.peak_rss_bytes))
    whole = (f"{report.fps:.1f}", *megabytes)
    rows = []
    for number, (stage, times) in enumerate(report.stages.items()):
        figures = (f"{times.p50_ms:.2f}", f"{times.p90_ms:.2f}", f"{times.p99_ms:.2f}")
        head, tail = ((report.scenario, report.variant), whole) if number == 0 else (("", ""), ("", "", ""))
        rows.append((*head, stage, *figures, *tail))
    return rows


def _title(reports: Sequence[Report]) -> str:
    if not reports:
        return "Nothing was measured"
    first = reports[0]
    cpu = first.device.get("cpu", {})
    threads = first.options.get("threads") or "all"
    floats = f" (floats in {first.float_precision})" if first.float_precision else ""
    return f"{first.bundle} on {first.runtime}{floats}, {threads} threads, {cpu.get('model') or 'unknown processor'}"
