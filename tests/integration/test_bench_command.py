"""``edgecv bench`` and ``edgecv compare`` from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgecv.benchmarks.report import as_document
from tests.command_line import run_here
from tests.models import save, write_bundle
from tests.unit.benchmarks.test_report import made_report
from tests.unit.quantize.test_labelled import boxes_in


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bench") / "tiny.ecv").path


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reports") / "a.json"
    path.write_text(json.dumps([as_document(made_report())]))
    return path


def test_every_variant_stands_in_one_table_with_its_accuracy(bundle: Path, tmp_path: Path) -> None:
    data, page = boxes_in(tmp_path / "boxes"), tmp_path / "page.html"
    asked = ("--precision", "int8", "--runtime", "onnxruntime", "--runs", "3", "--warmup", "1")
    done = run_here("bench", bundle, "--all", *asked, "--data", data, "--html", page, "--strict", "--json")
    (row,) = json.loads(done.stdout)["rows"]
    assert (row["variant"], row["runtime"], row["status"]) == ("onnx-int8", "onnxruntime", "done")
    assert row["accuracy"] == {"figures": {"map50_95": 1.0, "map50": 1.0}, "images": 4}
    assert [one["scenario"] for one in row["reports"]] == ["single_stream", "pipeline"]
    assert "Accuracy against time" in page.read_text()
    assert done.returncode == 1  # --strict: three runs are over too soon to be clean
    assert "noisy" in done.stderr


def test_a_file_that_says_nothing_about_itself_is_measured(tmp_path: Path) -> None:
    path = save(
        tmp_path / "peer.onnx",
        [helper.make_node("ReduceMean", ["x"], ["y"], keepdims=0)],
        [("x", TensorProto.FLOAT, (1, 3, 32, 32))],
        [("y", TensorProto.FLOAT, ())],
        {},
    )
    (found,) = json.loads(run_here("bench", path, "--runs", "3", "--json").stdout)
    assert (found["bundle"], found["scenario"], found["runtime"]) == ("peer", "single_stream", "onnxruntime")
    assert found["comparability"]["model"]


def test_where_no_variant_can_be_measured_the_command_fails(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny.ecv").path
    for model in bundle.glob("onnx-*/model.onnx"):
        model.write_bytes(b"damaged")
    done = run_here("bench", bundle, "--all", "--runtime", "onnxruntime", "--runs", "1", "--json")
    assert done.returncode == 1
    assert {row["status"] for row in json.loads(done.stdout)["rows"]} == {"failed"}
    assert "could be measured" in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        ("--sweep", "1,2"),
        ("--data", "x"),
        ("--table", "csv"),
        ("--all", "--table", "excel"),
        ("--all", "--against", "other.ecv"),
        ("--all", "--scenario", "offline"),
        ("--baseline", "a.json", "--against", "b.ecv"),
        ("--allow", "device"),
        ("--max-regression", "3%"),
        ("--force",),
        ("--baseline", "missing.json"),
        ("--baseline", "missing.json", "--max-regression", "much"),
        ("--mlperf", "--runs", "3"),
        ("--scenario", "single_straem"),
        ("--all", "--sweep", "0"),
        ("--seconds", "-1"),
    ],
)
def test_what_means_nothing_is_wrong_usage(bundle: Path, wrong: tuple[str, ...]) -> None:
    done = run_here("bench", bundle, *wrong)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr


def test_reports_are_compared_and_unlike_ones_refused(report: Path, tmp_path: Path) -> None:
    other = tmp_path / "b.json"
    other.write_text(json.dumps([as_document(made_report(variant="onnx-fp32"))]))
    done = run_here("compare", report, other)
    assert done.returncode == 2
    assert "the variant: onnx-int8 and onnx-fp32" in done.stderr
    assert "--allow variant" in done.stderr
    done = run_here("compare", report, other, "--allow", "variant", "--html", tmp_path / "page.html", "--json")
    (found,) = json.loads(done.stdout)["compared"]
    assert (found["change"], found["files"]) == (0.0, ["a.json", "b.json"])
    assert (tmp_path / "page.html").exists()
    text = run_here("compare", report, other, "--allow", "variant")
    assert "They differ in the variant" in text.stdout


@pytest.mark.parametrize("given", [(), ("a.json",), ("a.json", "--allow", "all")])
def test_a_comparison_needs_two_files_and_known_names(report: Path, given: tuple[str, ...]) -> None:
    named = [report if name == "a.json" else name for name in given]
    assert run_here("compare", *named).returncode == 2


def test_a_torn_report_is_named(report: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.json"
    torn.write_bytes(report.read_bytes()[:100])
    for command in (("compare", report, torn), ("bench", tmp_path / "x.ecv", "--baseline", torn)):
        done = run_here(*command)
        assert done.returncode == 2
        assert "torn.json is no report" in done.stderr


def _chain(folder: Path, layers: int) -> Path:
    """A model file of as many convolutions as wanted."""
    shape = (1, 3, 96, 96)
    weights = {f"w{n}": np.full((3, 3, 5, 5), 0.01, np.float32) for n in range(layers)}
    nodes = [helper.make_node("Conv", [f"x{n}", f"w{n}"], [f"x{n + 1}"], pads=[2, 2, 2, 2]) for n in range(layers)]
    ends = ([("x0", TensorProto.FLOAT, shape)], [(f"x{layers}", TensorProto.FLOAT, shape)])
    return save(folder / f"chain{layers}.onnx", nodes, *ends, weights)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_model_that_does_twice_as_much_is_proven_slower_and_itself_is_not(tmp_path: Path) -> None:
    short, long = _chain(tmp_path, 20), _chain(tmp_path, 40)
    assert onnx.load(long).graph.node
    slower = run_here("bench", long, "--against", short, "--threads", "1", "--runs", "60")
    assert slower.returncode == 4, slower.stdout + slower.stderr
    assert "more than the 5.0%" in slower.stdout
    same = run_here("bench", short, "--against", short, "--threads", "1", "--runs", "60")
    assert same.returncode == 0, same.stdout


@pytest.fixture
def busy_core() -> Iterator[None]:
    """Something that uses a processor meanwhile."""
    import subprocess
    import sys

    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        yield
        process.kill()


@pytest.mark.slow
@pytest.mark.usefixtures("busy_core")
def test_beside_a_busy_core_a_measurement_is_noisy(bundle: Path) -> None:
    done = run_here("bench", bundle, "--scenario", "single_stream", "--runs", "3000", "--threads", "1", "--json")
    (found,) = json.loads(done.stdout)
    assert found["quality"]["verdict"] == "noisy"
    assert any("other programs used" in reason for reason in found["quality"]["reasons"])
