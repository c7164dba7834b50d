"""``edgecv tune`` with real processes and real models."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

import edgecv
from edgecv.benchmarks.options import BenchOptions
from edgecv.benchmarks.run import run_scenario
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.manifest import MANIFEST
from edgecv.devices.tuning.cells import Cell
from edgecv.devices.tuning.tune import TuneOptions, tune
from edgecv.devices.tuning.workshop import Workshop, _available_bytes, workshop
from edgecv.errors import BundleError, SessionError
from edgecv.runtimes.cpu_budget import effective_cpus
from tests.command_line import run_here
from tests.models import write_bundle

CELL = Cell(variant="onnx-fp32", precision="fp32", runtime="onnxruntime", threads=1)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "tiny.ecv")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGECV_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_bundle_is_tuned_once_and_loaded_as_it_was_tuned(bundle: Bundle, cache: Path) -> None:
    done = run_here("tune", bundle.path, "--budget", "2", "--threads", "1", "--explain")
    assert done.returncode == 0, done.stderr
    assert "on onnxruntime, 1 thread: " in done.stdout
    assert "onnx-fp32" in done.stdout
    assert "onnx-int8" in done.stdout
    kept = list(cache.rglob("*.json"))
    assert len(kept) == 1
    assert str(kept[0]) in done.stderr
    again = run_here("tune", bundle.path, "--threads", "1", "--json")
    record = json.loads(again.stdout)
    assert record["budget_s"] == 2.0
    with edgecv.load(bundle.path) as model:
        assert model.variant.name == record["results"][0]["cell"]["variant"]


def test_what_was_not_tried_yet_is_measured_though_a_result_is_kept(bundle: Bundle) -> None:
    assert tune(bundle.path, TuneOptions(budget_s=2, threads=(1,))).measured_now
    found = tune(bundle.path, TuneOptions(budget_s=2, threads=(2, 2)))
    assert found.measured_now
    cells = [result.cell for result in found.record.results]
    assert {cell.threads for cell in cells} == {2}
    assert len(cells) == len(set(cells))
    assert not tune(bundle.path, TuneOptions(threads=(2,))).measured_now


def test_a_narrow_search_does_not_answer_a_wide_one_and_a_wide_one_answers_a_narrow_one(bundle: Bundle) -> None:
    assert tune(bundle.path, TuneOptions(budget_s=2, threads=(1,))).measured_now
    wide = tune(bundle.path, TuneOptions(budget_s=2))
    assert wide.measured_now
    assert {result.cell.threads for result in wide.record.results} >= {1, effective_cpus()}
    assert not tune(bundle.path, TuneOptions()).measured_now
    assert not tune(bundle.path, TuneOptions(threads=(1,))).measured_now


def test_a_session_is_measured_on_the_cores_of_its_cell(bundle: Bundle) -> None:
    core = max(os.sched_getaffinity(0))
    bound = Cell(variant="onnx-fp32", precision="fp32", runtime="onnxruntime", threads=2, cores=(core,))
    with workshop(bundle) as shop:
        shop.measure(bound, 0.01)
        process = next(iter(shop._children.values()))._process
        statuses = [path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/status")]
        assert any(f"Cpus_allowed_list:\t{core}\n" in status for status in statuses)
        with pytest.raises(SessionError, match="may not run on the cores"):
            shop.measure(
                Cell(variant="onnx-fp32", precision="fp32", runtime="onnxruntime", threads=1, cores=(1000,)), 0.01
            )


def test_a_benchmark_reports_the_threads_that_were_tuned_and_else_all_that_can_be_used(bundle: Bundle) -> None:
    quick = BenchOptions(runs=3, warmup=1)
    before = run_scenario("single_stream", bundle.path, quick)
    assert before.comparability.threads == effective_cpus()
    tuned = effective_cpus() + 1  # no machine takes that by itself
    done = run_here("tune", bundle.path, "--budget", "2", "--threads", str(tuned))
    assert done.returncode == 0, done.stderr
    after = run_scenario("single_stream", bundle.path, quick)
    assert after.comparability.threads == tuned


@pytest.mark.parametrize("change", ["manifest", "model"])
def test_a_bundle_that_changes_while_it_is_tuned_is_refused_and_nothing_is_kept(
    bundle: Bundle, cache: Path, change: str
) -> None:
    began = threading.Event()

    def spoil() -> None:
        began.wait(60)
        path = bundle.path / (MANIFEST if change == "manifest" else "onnx-int8/model.onnx")
        path.write_bytes(path.read_bytes().replace(b'"tiny"', b'"other"') + b"\n")

    spoiler = threading.Thread(target=spoil)
    spoiler.start()
    with pytest.raises(BundleError, match=r"changed|damaged|hash|sha256"):
        tune(bundle.path, TuneOptions(budget_s=3, threads=(1,)), lambda *_: began.set())
    spoiler.join(60)
    assert not list(cache.rglob("*.json"))


def test_a_module_in_the_working_folder_is_not_run(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("msgspec", "numpy", "runpy"):
        (tmp_path / f"{name}.py").write_text("open('mark', 'w').close()\nraise ImportError\n")
    monkeypatch.chdir(tmp_path)
    with workshop(bundle) as shop:
        assert shop.gate(CELL) == ""
    assert not (tmp_path / "mark").exists()


def test_a_process_that_dies_is_a_reason_and_the_next_question_starts_a_new_one(bundle: Bundle) -> None:
    with workshop(bundle) as shop:
        assert shop.gate(CELL) == ""
        process = next(iter(shop._children.values()))._process
        os.kill(process.pid, 4)
        process.wait(60)
        with pytest.raises(SessionError, match="SIGILL"):
            shop.measure(CELL, 0.01)
        block = shop.measure(CELL, 0.01)
    assert len(block.times_ms) >= 3
    assert block.rss_bytes > 10 << 20


def test_where_memory_is_short_one_process_lives_at_a_time(bundle: Bundle, tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 400000 kB\nMemAvailable: 1000 kB\n")
    assert _available_bytes(meminfo) == 1000 * 1024
    shop = Workshop(bundle, meminfo)
    try:
        for variant in ("onnx-fp32", "onnx-int8"):
            shop.measure(Cell(variant=variant, precision="fp32", runtime="onnxruntime", threads=1), 0.01)
            assert len(shop._children) == 1
    finally:
        shop.close()


def test_a_torn_meminfo_says_nothing_of_memory(tmp_path: Path) -> None:
    for text in ("", "MemAvailable:", "MemAvailable: \n", "MemAvailable: many kB\n"):
        (tmp_path / "meminfo").write_text(text)
        assert _available_bytes(tmp_path / "meminfo") > 1 << 60


def test_wrong_usage_of_tune_ends_with_two(bundle: Bundle) -> None:
    assert run_here("tune", bundle.path, "--budget", "0").returncode == 2
    assert run_here("tune", bundle.path, "--threads", "0").returncode == 2


def test_what_cannot_be_tuned_says_why(tmp_path: Path, bundle: Bundle) -> None:
    missing = run_here("tune", tmp_path / "none.ecv")
    assert missing.returncode == 1
    assert "does not exist" in missing.stderr
    nowhere = run_here("tune", bundle.path, "--device", "cuda", "--threads", "1", "--budget", "2")
    assert nowhere.returncode == 1
    assert "CUDAExecutionProvider" in nowhere.stderr


def test_run_says_in_one_line_that_nothing_was_tuned_and_names_the_command(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    done = run_here("run", bundle.path, "--source", "synthetic://?frames=2&width=64&height=64")
    assert done.returncode == 0, done.stderr
    said = [line for line in caplog.messages if f"`edgecv tune {bundle.path}`" in line]
    assert len(said) == 1


@pytest.mark.slow
def test_three_formats_of_yolov8n_are_tuned_within_90_seconds(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    from tests.conftest import CHECKOUT

    source = CHECKOUT / "../shared/models/yolov8n-coco.pt"
    if not source.exists():
        pytest.skip("../shared is not on this machine")
    made = edgecv.convert(source, formats=["onnx", "openvino", "tflite"], precision="fp32", out=tmp_path / "y.ecv")
    began = time.monotonic()
    found = tune(made.path)
    assert time.monotonic() - began <= 90
    assert found.record.best is not None
