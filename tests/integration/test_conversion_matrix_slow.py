"""The conversion matrix: every cell at real size (hours, so ``make test-slow``), and one small cell in every run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from edgecv.benchmarks.lab.matrix.cells import Cell, Conversion, Outcome, Source, _outcomes, conversions, run_conversion
from edgecv.benchmarks.lab.matrix.matrix import (
    all_cells,
    chosen_cells,
    known_outcomes,
    record_of,
    run_matrix,
    table,
    versions,
)
from edgecv.benchmarks.lab.process_tree import Measured, run_measured
from edgecv.errors import ConfigError
from tests.conftest import CHECKOUT, SHARED

_DAY = "2026-01-31"


def _cell(name: str) -> Cell:
    return chosen_cells(all_cells(SHARED), name)[0]


def _run(folder: Path, *cells: Cell, timeout_s: float = 100) -> dict[str, Outcome]:
    conversion = Conversion(source=cells[0].source, cells=cells)
    return run_conversion(conversion, folder, _DAY, timeout_s=timeout_s)


def test_one_command_fills_cells_of_several_formats(resnet20: Path, tmp_path: Path) -> None:
    cells = [_cell(f"resnet20-cifar10.onnx {name} int8") for name in ("onnx", "tflite")]
    found = _run(tmp_path, *cells)
    made, refused = (found[cell.name] for cell in cells)
    assert (made.status, made.day) == ("ok", _DAY)
    assert made.wall_s > 0.5
    assert made.peak_rss_bytes > 50e6
    assert 0.2 < made.size_ratio < 0.6
    assert made.source_cosine >= 0.9999
    assert made.agreement["top1_agreement"] > 0.8
    assert (refused.status, refused.reason) == ("refused", "An .onnx cannot be converted to TFLite.")


@pytest.mark.slow
def test_the_float_cells_come_from_one_command(resnet20: Path, tmp_path: Path) -> None:
    found = _run(tmp_path, *[_cell(f"resnet20-cifar10.onnx onnx {name}") for name in ("fp32", "fp16")])
    assert [outcome.status for outcome in found.values()] == ["ok", "ok"]
    sizes = [outcome.size_ratio for outcome in found.values()]
    assert sizes[0] == 1
    assert sizes[1] < 0.6


def test_fp32_stands_where_fp16_fails(large: Path, tmp_path: Path) -> None:
    calibration = SHARED / "data/cifar10-jpeg/calibration"
    source = Source(name="large", argument=str(large), calibration=str(calibration))
    found = _run(tmp_path, *[Cell(source=source, format="onnx", precision=name) for name in ("fp32", "fp16")])
    assert found["large onnx fp32"].status == "ok"
    assert found["large onnx fp16"].status == "failed"


def test_the_cells_of_a_source_are_one_command_and_smaller_ones_if_it_fails() -> None:
    (whole,) = conversions(chosen_cells(all_cells(SHARED), "resnet18 *"))
    assert (len(whole.cells), whole.precisions, whole.formats) == (
        9,
        ("fp32", "fp16", "int8"),
        ("onnx", "openvino", "tflite"),
    )
    by_format = whole.smaller()
    assert [(one.formats, len(one.cells)) for one in by_format] == [
        (("onnx",), 3),
        (("openvino",), 3),
        (("tflite",), 3),
    ]
    assert [one.precisions for one in by_format[0].smaller()] == [("fp32",), ("fp16",), ("int8",)]
    assert by_format[0].smaller()[0].smaller() == ()


def test_another_error_than_the_expected_one_is_a_failure_of_each_format(tmp_path: Path) -> None:
    source = Source(name="gone", argument="gone.onnx")
    pairs = [("onnx", "fp32"), ("onnx", "fp16"), ("tflite", "fp32")]
    found = _run(tmp_path, *[Cell(source=source, format=name, precision=precision) for name, precision in pairs])
    assert [outcome.status for outcome in found.values()] == ["failed"] * 3
    assert all("gone.onnx does not exist" in outcome.reason for outcome in found.values())


def test_a_refusal_that_is_expected_of_a_cell_and_a_failure_of_another() -> None:
    cells = chosen_cells(all_cells(SHARED), "sam_h *")
    reasons = {
        ("onnx", "fp16"): "The float model has 2.4 GiB, larger than the 2 GiB that the fp16 converter reads.",
        ("onnx", "int8"): "The float model has 2.4 GiB, larger than the 2 GiB that onnxruntime's quantizer reads.",
        ("openvino", "int8"): "",
        ("tflite", "fp32"): "The weights of encoder need 2.4 GiB; a .tflite holds 2.",
    }
    failures = [
        {"format": name, "precision": precision, "message": reason, "hint": "", "exit_code": 1}
        for (name, precision), reason in reasons.items()
    ]
    floats = [
        {
            "name": f"{name}-{precision}",
            "format": name,
            "precision": precision,
            "bytes": 2,
            "parts": {"encoder": 1, "decoder": 1},
            "latency_ms": 1.0,
            "recipe": "",
            "metrics": {"source_cosine": 1.0},
        }
        for name, precision in (("onnx", "fp32"), ("openvino", "fp32"))
    ]
    rows = [{"variant": row["name"], "status": "ok", "reason": ""} for row in floats]
    verified = Measured(code=0, stdout=json.dumps({"variants": rows}), stderr="", wall_s=1.0, peak_rss_bytes=1)
    found = _outcomes(
        Conversion(source=cells[0].source, cells=cells), {"failures": failures, "variants": floats}, verified, {}
    )
    assert {name.removeprefix("sam_h "): outcome.status for name, outcome in found.items()} == {
        "onnx fp32": "ok",
        "onnx fp16": "refused",
        "onnx int8": "refused",
        "openvino fp32": "ok",
        "openvino fp16": "failed",  # neither made nor named
        "openvino int8": "failed",
        "tflite fp32": "refused",
        "tflite fp16": "refused",
        "tflite int8": "refused",
    }


def test_a_command_that_takes_too_long_is_stopped(resnet20: Path, tmp_path: Path) -> None:
    found = _run(tmp_path, _cell("resnet20-cifar10.onnx onnx fp32"), timeout_s=0.2)
    assert [outcome.status for outcome in found.values()] == ["timed out"]


def test_a_command_is_ended_with_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"sleep 60 & echo $! > {pid_file}; wait"
    done = run_measured(["sh", "-c", script], timeout_s=1)
    assert done.code is None
    state = Path(f"/proc/{pid_file.read_text().strip()}/stat")
    deadline_s = time.monotonic() + 5
    while state.exists() and state.read_text().split()[2] != "Z" and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_the_peak_counts_children() -> None:
    child = "import time; block = b'x' * 80_000_000; time.sleep(1)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    done = run_measured([sys.executable, "-c", parent], timeout_s=30)
    assert done.code == 0
    assert 85e6 < done.peak_rss_bytes < 300e6


def test_the_matrix_has_every_family_task_format_and_precision() -> None:
    names = {cell.name for cell in all_cells(SHARED)}
    for source in ("yolov8x-pose.yaml", "yolov8m.yaml", "resnet152", "yolov8n-coco.pt", "resnet20-cifar10.onnx"):
        assert {f"{source} {f} {p}" for f in ("onnx", "openvino", "tflite") for p in ("fp32", "fp16", "int8")} <= names


def test_the_table_tells_what_was_not_run_and_keeps_a_reason_on_one_line() -> None:
    cells = chosen_cells(all_cells(SHARED), "resnet18 onnx *")
    outcomes = {cells[0].name: Outcome(status="failed", reason="one\ntwo | three", wall_s=3.2, peak_rss_bytes=10**9)}
    text = table(cells, outcomes)
    assert "1 failed, 2 not run" in text
    assert "**resnet18 onnx fp32**: one two \\| three" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({row.replace("\\|", "").count("|") for row in rows}) == 1


def test_the_table_names_the_machines_of_its_cells() -> None:
    cells = chosen_cells(all_cells(SHARED), "resnet18 onnx *")
    one, other = (Outcome(status="ok", machine=name) for name in ("A, 2 cores", "B, 4 cores"))
    assert "\nMachine: A, 2 cores. Versions" in table(cells, {cells[0].name: one, cells[1].name: one})
    assert "\nMachines: " in table(cells, {cells[0].name: one, cells[1].name: Outcome(status="ok")})
    text = table(cells, {cells[0].name: one, cells[1].name: other, cells[2].name: one})
    assert "\nMachines: A, 2 cores (2 cells); B, 4 cores (1 cells). Versions" in text


def test_resume_keeps_what_these_versions_did_and_tries_failures_again(tmp_path: Path) -> None:
    out = tmp_path / "m.md"
    cells = chosen_cells(all_cells(SHARED), "resnet18 onnx *")
    now = versions()
    before = {
        cells[0].name: Outcome(status="ok", made_with=now),
        cells[1].name: Outcome(status="failed", reason="x", made_with=now),
        cells[2].name: Outcome(status="ok", made_with="edgecv 0.0.1"),
    }
    run_matrix(cells, (), out, tmp_path, before)
    assert known_outcomes(out) == {cells[0].name: before[cells[0].name]}
    (tmp_path / "m.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        known_outcomes(out)


@pytest.mark.slow
@pytest.mark.timeout(0)  # each command has its own
def test_every_cell_is_ok_or_refused_for_an_expected_reason(yolov8n: Path, resnet20: Path) -> None:
    out = CHECKOUT / "docs/conversion-matrix.md"
    done = subprocess.run(
        [sys.executable, "-m", "edgecv.benchmarks.lab", "matrix", "--out", str(out), "--resume"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    read = msgspec.json.decode(record_of(out).read_bytes(), type=dict[str, Outcome])
    assert {outcome.status for outcome in read.values()} <= {"ok", "refused"}
    assert "not run" not in out.read_text()
