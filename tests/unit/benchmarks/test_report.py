from __future__ import annotations

import json

import msgspec

from edgecv.benchmarks.report import Report, as_document, as_text, table
from edgecv.benchmarks.statistics import StageStatistics

_REPORT = Report(
    scenario="single_stream",
    bundle="tiny",
    variant="onnx-int8",
    runtime="onnxruntime",
    options={"threads": 2},
    source="rendered",
    warmup=1,
    runs=5,
    stages={
        "preprocess": StageStatistics(p50_ms=1.0, p90_ms=2.0, p99_ms=3.0),
        "inference": StageStatistics(p50_ms=10.0, p90_ms=20.0, p99_ms=30.0),
    },
    fps=42.0,
    rss_bytes=100_000_000,
    pss_bytes=90_000_000,
    peak_rss_bytes=120_000_000,
    device={"cpu": {"model": "Cortex-A76"}},
    versions={"edgecv": "0"},
    started="2026-11-21T10:00:00+00:00",
)


def test_a_report_survives_json():
    assert msgspec.json.decode(json.dumps(as_document(_REPORT)), type=Report) == _REPORT


def test_the_table_has_a_row_per_stage_and_says_the_whole_once():
    columns, rows = table([_REPORT])
    assert len({len(columns), *(len(row) for row in rows)}) == 1
    assert rows[0] == ("single_stream", "onnx-int8", "preprocess", "1.00", "2.00", "3.00", "42.0", "100", "120")
    assert rows[1] == ("", "", "inference", "10.00", "20.00", "30.00", "", "", "")


def test_the_text_shows_every_figure():
    text = as_text([_REPORT])
    assert all(word in text for word in ("tiny", "Cortex-A76", "2 threads", "inference", "20.00", "42.0"))
    assert as_text([])
