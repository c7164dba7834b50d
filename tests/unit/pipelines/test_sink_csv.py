"""Rows for spreadsheets: quoted, harmless, whole."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecv.errors import SinkError
from edgecv.pipelines.sinks.files.csv import COLUMNS, CsvSink
from tests.unit.pipelines.made_results import START_NS, classified, made_result


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


def test_a_row_per_detection_and_none_for_an_empty_frame(tmp_path: Path) -> None:
    sink = CsvSink(tmp_path / "out.csv")
    sink.emit(made_result(0.0, class_ids=()))
    two = made_result(0.5, class_ids=(0, 1))
    assert two.detections is not None
    sink.emit(replace(two, detections=replace(two.detections, tracker_id=np.array([7, 8]))))
    first, second = rows(tmp_path / "out.csv")  # before close: each frame leaves the process
    sink.close()
    assert first == {
        "source_id": "cam",
        "index": "5",
        "captured_ns": str(START_NS + 500_000_000),
        "class_id": "0",
        "label": "person",
        "confidence": "0.750000",
        "tracker_id": "7",
        "left": "1.000",
        "top": "2.000",
        "right": "30.500",
        "bottom": "40.000",
        "position_s": "",
        "path": "",
    }
    assert (second["label"], second["tracker_id"]) == ("car", "8")


def test_a_classifier_gives_the_best_class(tmp_path: Path) -> None:
    sink = CsvSink(tmp_path / "out.csv")
    sink.emit(classified(0.0))
    sink.close()
    (row,) = rows(tmp_path / "out.csv")
    assert (row["label"], row["confidence"], row["left"]) == ("car", "0.900000", "")


@pytest.mark.parametrize("label", ['a "b", c', "two\nlines", "two\r\nlines", "", "späť", "1,5"])
def test_every_label_comes_back_as_it_was(tmp_path: Path, label: str) -> None:
    sink = CsvSink(tmp_path / "out.csv")
    sink.emit(made_result(0.0, labels=(label,)))
    sink.close()
    assert [row["label"] for row in rows(tmp_path / "out.csv")] == [label]


@pytest.mark.parametrize("label", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x";"y")'])
def test_no_label_is_a_formula(tmp_path: Path, label: str) -> None:
    sink = CsvSink(tmp_path / "out.csv")
    sink.emit(made_result(0.0, labels=(label,), source_id=label))
    sink.close()
    (row,) = rows(tmp_path / "out.csv")
    assert (row["label"], row["source_id"]) == ("'" + label, "'" + label)


def test_lines_end_as_rfc_4180_says(tmp_path: Path) -> None:
    sink = CsvSink(tmp_path / "out.csv")
    sink.emit(made_result(0.0))
    sink.close()
    lines = (tmp_path / "out.csv").read_bytes().split(b"\r\n")
    assert lines[0].decode().split(",") == list(COLUMNS)
    assert (len(lines), lines[-1]) == (3, b"")


def test_a_full_disk_is_an_error() -> None:
    with pytest.raises(SinkError, match="No space left"):
        CsvSink("/dev/full", overwrite=True)
