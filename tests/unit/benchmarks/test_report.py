from __future__ import annotations

import json

import msgspec
import pytest

from edgecv.benchmarks.report import Accuracy, Comparability, Quality, Reading, Report, as_document
from edgecv.benchmarks.statistics import StageStatistics
from edgecv.benchmarks.tables.report_table import as_text, remarks, table


def made_report(**changes: object) -> Report:
    """A report that fits no real machine."""
    report = Report(
        scenario="single_stream",
        bundle="tiny",
        variant="onnx-int8",
        runtime="onnxruntime",
        options={"threads": 2},
        source="rendered",
        warmup=1,
        runs=5,
        stages={
            "inference": StageStatistics(p50_ms=10.0, p90_ms=20.0, p99_ms=30.0, p90_bound_ms=25.0, max_ms=40.0),
            "total": StageStatistics(p50_ms=11.0, p90_ms=22.0, max_ms=44.0),
        },
        headline="total",
        fps=42.0,
        init_ms=300.0,
        times_ms=(10.0, 11.0, 44.0),
        rss_bytes=100_000_000,
        pss_bytes=90_000_000,
        peak_rss_bytes=120_000_000,
        quality=Quality(verdict="clean"),
        comparability=Comparability(device="d1", threads=2, runtimes="onnxruntime 1.32.0", model="m1"),
        device={"cpu": {"model": "Cortex-A76"}},
        versions={"edgecv": "0"},
        started="2026-11-21T10:00:00+00:00",
    )
    return msgspec.structs.replace(report, **changes)


def test_a_report_survives_json() -> None:
    full = made_report(
        readings=(Reading(at_s=0.0, temperature_c=50.0),), accuracy=Accuracy(figures={"map50": 0.5}, images=3)
    )
    assert msgspec.json.decode(json.dumps(as_document(full)), type=Report) == full


def test_the_table_has_a_row_per_stage_and_says_the_whole_once() -> None:
    columns, rows = table([made_report()])
    assert len({len(columns), *(len(row) for row in rows)}) == 1
    figures = ("10.00", "20.00", "25.00", "30.00")
    assert rows[0] == ("single_stream", "onnx-int8", "inference", *figures, "42.0", "300", "100", "120", "clean")
    assert rows[1] == ("", "", "total", "11.00", "22.00", "–", "–", "", "", "", "", "")


def test_the_text_shows_every_figure() -> None:
    text = as_text([made_report()])
    assert all(word in text for word in ("tiny", "Cortex-A76", "2 threads", "inference", "20.00", "42.0"))
    assert as_text([])


def test_remarks_say_why_it_is_noisy_how_warm_it_was_and_what_overlaps() -> None:
    report = made_report(
        quality=Quality(verdict="noisy", reasons=("other programs used 50% of the processors",), unknown=("heat",)),
        readings=(Reading(at_s=0.0, temperature_c=50.0, watts=3.0), Reading(at_s=1.0, temperature_c=61.0, watts=5.0)),
        note="Two frames at once.",
    )
    said = "\n".join(remarks([report, report]))
    assert said.count("other programs used 50%") == 1
    assert all(word in said for word in ("Unknown: heat.", "50 to 61 °C", "4.0 W", "Two frames at once.", "662 runs"))


@pytest.mark.parametrize(("headline", "expected"), [("total", 11.0), ("", 1000 / 42), ("gone", 1000 / 42)])
def test_reports_are_compared_by_a_stage_or_by_their_time_per_image(headline: str, expected: float) -> None:
    assert made_report(headline=headline).headline_ms == pytest.approx(expected)
