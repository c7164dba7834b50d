"""The page and the tables: everything is in them, nothing is markup that should be text."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import msgspec
import pytest

from edgecv.benchmarks.page.charts import distribution, left_out, series
from edgecv.benchmarks.page.page import check_page, page_of, write_page
from edgecv.benchmarks.report import Accuracy, Minute, Quality, Reading
from edgecv.benchmarks.scenarios.sustained import conclude
from edgecv.benchmarks.tables.every_variant import Row, read_sweep, rows_document
from edgecv.benchmarks.tables.formats import as_csv, as_markdown, cells_of, notes
from edgecv.benchmarks.tables.report_table import as_text
from edgecv.bundles.bundle import Bundle
from edgecv.errors import ConfigError
from tests.unit.benchmarks.test_report import made_report
from tests.unit.benchmarks.tiny_bundle import write_bundle

EVIL = "<script>alert(1)</script> & \x1b \u202e {{ 7 * 7 }} | x"


def _readings(values: list[float]) -> tuple[Reading, ...]:
    return tuple(
        Reading(at_s=float(at), temperature_c=value, clock_mhz=1000 + value, watts=value / 10)
        for at, value in enumerate(values)
    )


def test_the_page_shows_distribution_series_heat_and_accuracy() -> None:
    minutes = [
        Minute(start_s=60.0 * n, fps=50.0 - n, p50_ms=20.0, rss_bytes=1000, reading=Reading(at_s=60.0 * n))
        for n in range(3)
    ]
    report = made_report(
        times_of="total",
        times_ms=tuple(10.0 + n % 7 for n in range(300)),
        readings=_readings([50.0, 55.0, 61.0]),
        accuracy=Accuracy(figures={"map50_95": 0.37}, images=3),
        sustained=conclude(minutes),
    )
    page = page_of([report, made_report(variant="onnx-fp32", accuracy=Accuracy(figures={"map50_95": 0.38}, images=3))])
    for words in ("How long total took", "run after run", "Images per second over the minutes", "Temperature", "Clock"):
        assert words in page
    assert "Accuracy against time" in page
    assert page.count("<svg") >= 6
    assert "holds its speed" in page or "falls to" in page


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    page = page_of(
        [made_report(bundle=EVIL, variant=EVIL, note=EVIL, quality=Quality(verdict="noisy", reasons=(EVIL,)))]
    )
    assert "<script" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert not re.search(r"(src|href)=|url\(|@import", page)
    assert "default-src 'none'" in page


def test_an_existing_page_is_replaced_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    check_page(path, force=False)
    write_page(path, [made_report()])
    with pytest.raises(ConfigError, match="exists already"):
        check_page(path, force=False)
    check_page(path, force=True)
    path.write_text("my notes")
    with pytest.raises(ConfigError, match="another kind"):
        check_page(path, force=True)
    with pytest.raises(ConfigError, match="does not exist"):
        check_page(tmp_path / "gone/page.html", force=False)


@pytest.mark.parametrize("times", [[5.0], [5.0, 5.0], [0.0], [1.0, 1e6], [float(n) for n in range(5000)]])
def test_charts_draw_any_times(times: list[float]) -> None:
    for chart in (distribution(times, [("p50", times[0])]), series(list(enumerate(times)), "run", "ms")):
        assert "nan" not in chart
        assert "inf" not in chart
        assert chart.startswith("<svg")
    assert left_out(times) == len(times) - max(1, round(len(times) * 0.995))


@pytest.mark.parametrize(("text", "threads", "found"), [("", 0, (0,)), ("", 3, (3,)), ("1,2, 4,2", 0, (1, 2, 4))])
def test_a_sweep_is_a_list_of_numbers(text: str, threads: int, found: tuple[int, ...]) -> None:
    assert read_sweep(text, threads) == found


@pytest.mark.parametrize(("text", "threads"), [("0", 0), ("1,x", 0), ("1,,2", 0), ("9999", 0), ("1,2", 4), ("²", 0)])
def test_what_is_no_sweep_is_refused(text: str, threads: int) -> None:
    with pytest.raises(ConfigError):
        read_sweep(text, threads)


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    fp32, int8 = Bundle.open(write_bundle(tmp_path / "tiny.ecv")).variants
    score = Accuracy(figures={"map50_95": 0.371}, images=3)
    reports = (
        made_report(accuracy=score),
        made_report(scenario="pipeline", headline="", fps=52.0, note="Inference takes 36.0 ms: two frames at once."),
    )
    return [
        Row(variant=int8, runtime="onnxruntime", threads=2, reports=reports, accuracy=score),
        Row(variant=fp32, runtime="litert", threads=0, status="skipped", reason="litert is not installed"),
    ]


def test_accuracy_stands_beside_speed_and_what_overlaps_is_explained(rows: list[Row]) -> None:
    header, cells = cells_of(rows)
    found = dict(zip(header, cells[0], strict=True))
    assert (found["p50 ms"], found["pipeline fps"], found["mAP50-95"], found["quality"]) == (
        "11.00",
        "52.0",
        "0.3710",
        "clean",
    )
    assert dict(zip(header, cells[1], strict=True))["quality"] == "skipped"
    said = "\n".join(notes(rows))
    assert "two frames at once" in said
    assert "litert is not installed" in said


def test_the_table_is_markdown_csv_and_json(rows: list[Row]) -> None:
    columns, cells = cells_of(rows)
    lines = as_markdown(columns, cells).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    read = list(csv.DictReader(io.StringIO(as_csv(columns, cells))))
    assert [row["variant"] for row in read] == ["onnx-int8", "onnx-fp32"]
    assert read[1]["p50 ms"] == ""
    document = msgspec.json.decode(msgspec.json.encode(rows_document(Path("tiny.ecv"), rows)))
    assert [row["status"] for row in document["rows"]] == ["done", "skipped"]
    assert document["rows"][0]["reports"][0]["schema"] == 2


def test_a_bar_in_a_name_does_not_break_the_table(rows: list[Row]) -> None:
    assert as_markdown(("a", "b"), [(EVIL, "1")]).splitlines()[2].count(" | ") == 1


@pytest.mark.parametrize("device", [{}, {"cpu": None}, {"cpu": "x", "board": ["y"]}, {"cpu": {"model": {}}}])
def test_a_device_of_another_form_is_unknown(device: dict[str, object]) -> None:
    report = made_report(device=device, times_ms=(-1.0, 0.0, 5.0), times_of="gone")
    assert "unknown" in page_of([report])
    assert "unknown" in as_text([report])
