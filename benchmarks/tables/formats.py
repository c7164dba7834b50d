"""The table of every variant as text, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from edgecv._internal.printable import printable
from edgecv.benchmarks.tables.every_variant import Row
from edgecv.benchmarks.tables.report_table import remarks
from edgecv.bundles.metric_names import short_name
from edgecv.cli.console import print_table

_COLUMNS = ("variant", "runtime", "threads", "p50 ms", "p90 below", "pipeline fps", "load ms", "peak MB", "file MB")
_MEGABYTE = 1e6


def show_rows(title: str, rows: Sequence[Row], form: str) -> None:
    """Print the rows as ``text``, ``markdown`` or ``csv``; the remarks follow, but for CSV."""
    columns, cells = cells_of(rows)
    if form == "csv":
        print(as_csv(columns, cells), end="")
        return
    if form == "markdown":
        print(as_markdown(columns, cells))
    else:
        print_table(title, columns, cells)
    print()
    for line in notes(rows):
        print(printable(f"- {line}" if form == "markdown" else line))


def cells_of(rows: Sequence[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and cells; a column for each figure of accuracy."""
    metrics = list(dict.fromkeys(name for row in rows if row.accuracy for name in row.accuracy.figures))
    header = (*_COLUMNS, *map(short_name, metrics), "quality")
    return header, [_cells(row, metrics) for row in rows]


def notes(rows: Sequence[Row]) -> list[str]:
    """Why a row has no figures, and what a reader of the others should know."""
    missing = [f"{row.variant.name} on {row.runtime}: {row.status}: {row.reason}" for row in rows if row.reason]
    return [*missing, *remarks([report for row in rows for report in row.reports])]


def as_markdown(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table for a README."""
    lines = [columns, ["---", "---", *["---:"] * (len(columns) - 2)], *cells]
    return "\n".join("| " + " | ".join(printable(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def as_csv(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """The same for a spreadsheet; what is unknown is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([["" if cell == "–" else printable(cell) for cell in row] for row in cells])
    return text.getvalue()


def _cells(row: Row, metrics: Sequence[str]) -> tuple[str, ...]:
    single, pipeline = row.report("single_stream"), row.report("pipeline")
    total = single.stages["total"] if single else None
    scores = row.accuracy.figures if row.accuracy else {}
    quality = [report.quality.verdict for report in row.reports]
    return (
        row.variant.name,
        row.runtime,
        str(row.threads or "–"),
        _number(total.p50_ms if total else None, 2),
        _number(total.p90_bound_ms if total else None, 2),
        _number(pipeline.fps if pipeline else None, 1),
        _number(single.init_ms if single else None, 0),
        _number(single.peak_rss_bytes / _MEGABYTE if single else None, 0),
        _number(row.variant.bytes / _MEGABYTE, 2),
        *(_number(scores.get(name), 4) for name in metrics),
        "noisy" if "noisy" in quality else "clean" if quality else row.status,
    )


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
