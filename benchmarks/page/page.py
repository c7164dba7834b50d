"""One HTML page of any number of reports: no script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecv._internal.atomic import check_target, file_kind, new_file
from edgecv._internal.extras import require
from edgecv.benchmarks.page.charts import distribution, left_out, series
from edgecv.benchmarks.report import Reading, Report
from edgecv.benchmarks.tables.report_table import facts_of, table
from edgecv.bundles.metric_names import short_name
from edgecv.errors import EdgeCVError, MissingDependency
from edgecv.quantize.report.charts import Point, pareto
from edgecv.quantize.report.markup import Markup
from edgecv.quantize.report.template import render_report

_PACKAGE = "edgecv.benchmarks.page"
_PAGE = file_kind("an HTML page", r"\s*<!doctype html")
_SERIES: tuple[tuple[str, Callable[[Reading], float | None]], ...] = (
    ("Temperature, °C", lambda one: one.temperature_c),
    ("Clock, MHz", lambda one: one.clock_mhz),
    ("Power, W (sensor of the board)", lambda one: one.watts),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What the page tells of one report."""

    report: Report
    title: str
    charts: tuple[tuple[str, Markup], ...]
    remarks: tuple[str, ...]


def check_page(path: Path, force: bool) -> None:
    """Refuse before anything is measured what could not be written afterwards.

    Raises:
        ConfigError: the file exists, or its folder is not writable.
        MissingDependency: Jinja2 is not installed.
    """
    check_target(path, force, _PAGE)
    try:
        require("jinja2", "demo")
    except MissingDependency as error:
        raise MissingDependency(error.message, "Install it alone with: pip install jinja2") from error


def write_page(path: Path, reports: Sequence[Report]) -> None:
    """Write the page, whole or not at all.

    Raises:
        EdgeCVError: it cannot be written.
    """
    page = page_of(reports)
    try:
        with new_file(path) as file:
            file.write(page.encode())
    except OSError as error:
        raise EdgeCVError(
            f"{path} cannot be written: {error.strerror}.", "Is there space, and may you write?"
        ) from error


def page_of(reports: Sequence[Report]) -> str:
    """The page as text."""
    columns, rows = table(reports)
    return render_report(
        _PACKAGE,
        "demo",
        title=f"Benchmark of {', '.join(dict.fromkeys(report.bundle for report in reports))}",
        columns=columns,
        rows=rows,
        sections=[_section(report) for report in reports],
        accuracy=_accuracy(reports),
        devices=_devices(reports),
    )


def _section(report: Report) -> Section:
    threads = report.comparability.threads or "all"
    title = " ".join(
        part for part in (report.bundle, report.variant, report.scenario, report.runtime, f"{threads} threads") if part
    )
    return Section(report=report, title=title, charts=tuple(_charts(report)), remarks=tuple(facts_of(report)))


def _charts(report: Report) -> Iterator[tuple[str, Markup]]:
    times = report.times_ms
    if times:
        stage = report.stages.get(report.times_of)
        marks = [("p50", stage.p50_ms), ("p90", stage.p90_ms)] if stage else []
        more = left_out(times)
        yield (
            f"How long {report.times_of} took" + (f"; the {more} slowest are not shown" if more else ""),
            distribution(times, marks),
        )
        yield f"{report.times_of}, run after run", series(list(enumerate(times)), "run", "ms")
    if report.sustained is not None and len(report.sustained.minutes) > 1:
        minutes = [(one.start_s / 60, one.fps) for one in report.sustained.minutes]
        yield "Images per second over the minutes", series(minutes, "minutes", "images per second")
    for words, figure in _SERIES:
        points = [(one.at_s, value) for one in report.readings if (value := figure(one)) is not None]
        if len(points) > 1:
            yield words, series(points, "seconds", words)


def _accuracy(reports: Sequence[Report]) -> Markup:
    """Accuracy against latency, of the reports that have both."""
    scored = [report for report in reports if report.accuracy and report.accuracy.figures]
    if not scored:
        return Markup()
    metric = next(iter(scored[0].accuracy.figures)) if scored[0].accuracy else ""
    points = [
        Point(
            number=str(number + 1),
            title=f"{report.variant} on {report.runtime}",
            kind="float" if report.variant.endswith("fp32") else "passed",
            latency_ms=report.headline_ms,
            value=report.accuracy.figures[metric],
        )
        for number, report in enumerate(scored)
        if report.accuracy and metric in report.accuracy.figures
    ]
    return pareto(points, short_name(metric))


def _devices(reports: Sequence[Report]) -> list[tuple[str, str]]:
    """What was measured with, each thing once."""
    found: dict[tuple[str, str], None] = {}
    for report in reports:
        key = report.comparability
        found |= dict.fromkeys(
            [
                ("board", report.of_device("board", "name")),
                ("processor", report.of_device("cpu", "model")),
                ("kernel", report.of_device("kernel")),
                ("governor", key.governor or "unknown"),
                ("power mode", key.power_mode or "unknown"),
                ("runtime", key.runtimes or report.runtime),
                ("EdgeCV", report.versions.get("edgecv", "")),
                ("images", report.source),
                ("bundle", key.model),
                ("measured", report.started),
            ]
        )
    return list(found)
