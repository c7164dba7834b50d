"""Reports as a table for people: a row per stage, and below it what the figures cannot say."""

from __future__ import annotations

import io
from collections.abc import Sequence

from edgecv._internal.printable import printable
from edgecv.benchmarks.report import Report, Sustained
from edgecv.benchmarks.statistics import StageStatistics

_MEGABYTE = 1e6
_NOTABLE_MB = 0.5
_COLUMNS = (
    "scenario",
    "variant",
    "stage",
    "p50 ms",
    "p90 ms",
    "p90 below",
    "p99 ms",
    "fps",
    "load ms",
    "RSS MB",
    "peak MB",
    "quality",
)
_LEFT = 3


def table(reports: Sequence[Report]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows: one row per report and stage; what belongs to the whole report stands in its first row."""
    return _COLUMNS, [row for report in reports for row in _rows(report)]


def render(reports: Sequence[Report]) -> None:
    """Print the table on stdout."""
    for line in as_text(reports).splitlines():
        print(printable(line))


def as_text(reports: Sequence[Report]) -> str:
    """The table as text, as wide as it needs to be, and the remarks."""
    from rich.console import Console
    from rich.table import Table

    columns, rows = table(reports)
    grid = Table(title=_title(reports), title_justify="left")
    for number, column in enumerate(columns):
        grid.add_column(column, justify="left" if number < _LEFT else "right", no_wrap=True)
    for number, row in enumerate(rows):
        is_last = number + 1 == len(rows) or bool(rows[number + 1][0])
        grid.add_row(*row, end_section=is_last)
    text = io.StringIO()
    Console(file=text, width=180).print(grid)
    return "\n".join([*(line.rstrip() for line in text.getvalue().splitlines()), *remarks(reports)])


def remarks(reports: Sequence[Report]) -> list[str]:
    """Sentences to the figures: why a run is noisy, what overlaps, how the device felt, what is unknown."""
    said: dict[str, None] = {}
    for report in reports:
        threads = f" with {report.comparability.threads} threads" if report.comparability.threads else ""
        where = f"{report.scenario} {report.variant or report.bundle}{threads}"
        said |= dict.fromkeys(f"{where}: {text}" for text in (*_noise(report), *facts_of(report)))
    unknown = dict.fromkeys(what for report in reports for what in report.quality.unknown)
    if unknown:
        said.setdefault(f"Unknown: {', '.join(unknown)}.")
    if any(stage.p99_ms is None for report in reports for stage in report.stages.values()):
        said.setdefault("p99 is shown from 662 runs on: below that it would be chance.")
    return list(said)


def _noise(report: Report) -> list[str]:
    return [f"noisy: {', '.join(report.quality.reasons)}."] if report.quality.verdict == "noisy" else []


def facts_of(report: Report) -> list[str]:
    """Sentences to one report, but for its quality."""
    found = [] if report.sustained is None else [f"{report.sustained.verdict}{_growth(report.sustained)}."]
    if report.note:
        found.append(report.note)
    return [*found, *_felt(report)]


def _growth(sustained: Sustained) -> str:
    grown = sustained.rss_bytes_per_minute / _MEGABYTE
    return f"; the memory grows by {grown:.1f} MB a minute" if grown >= _NOTABLE_MB else ""


def _felt(report: Report) -> list[str]:
    temperatures = [one.temperature_c for one in report.readings if one.temperature_c is not None]
    clocks = [one.clock_mhz for one in report.readings if one.clock_mhz is not None]
    watts = [one.watts for one in report.readings if one.watts is not None]
    parts = [f"{temperatures[0]:.0f} to {max(temperatures):.0f} °C"] if temperatures else []
    parts += [f"{min(clocks):.0f} to {max(clocks):.0f} MHz"] if clocks else []
    parts += [f"{sum(watts) / len(watts):.1f} W (sensor of the board)"] if watts else []
    return [f"{', '.join(parts)}."] if parts else []


def _rows(report: Report) -> list[tuple[str, ...]]:
    megabytes = (f"{size / _MEGABYTE:.0f}" for size in (report.rss_bytes, report.peak_rss_bytes))
    whole = (f"{report.fps:.1f}", f"{report.init_ms:.0f}", *megabytes, report.quality.verdict)
    rows = []
    for number, (stage, times) in enumerate(report.stages.items()):
        named = (report.scenario, report.variant or report.bundle)
        head, tail = (named, whole) if number == 0 else (("", ""), ("",) * len(whole))
        rows.append((*head, stage, *_figures(times), *tail))
    return rows


def _figures(times: StageStatistics) -> tuple[str, ...]:
    return tuple(_ms(value) for value in (times.p50_ms, times.p90_ms, times.p90_bound_ms, times.p99_ms))


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _title(reports: Sequence[Report]) -> str:
    if not reports:
        return "Nothing was measured"
    first = reports[0]
    threads = first.comparability.threads or "all"
    floats = f" (floats in {first.float_precision})" if first.float_precision else ""
    place = f" ({first.computed_on})" if first.computed_on else ""
    processor = first.of_device("cpu", "model")
    return f"{first.bundle} on {first.runtime}{place}{floats}, {threads} threads, processor {processor}"
