"""Where a tuning is kept, when it counts, and what ``edgecv.load`` makes of it."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import edgecv
from edgecv.bundles.bundle import Bundle
from edgecv.choosing import choose, runnable, runtime_options
from edgecv.devices.tuning.advice import Question, advise_on, preferred
from edgecv.devices.tuning.cells import Cell, CellResult
from edgecv.devices.tuning.machine import Machine, order_of, this_machine
from edgecv.devices.tuning.record import (
    SCHEMA,
    TuneRecord,
    key_of,
    read_record,
    record_path,
    write_record,
)
from edgecv.errors import EdgeCVError
from edgecv.runtimes.cache_folder import cache_folder
from tests.models import write_bundle

MACHINE = Machine(
    fingerprint="f" * 64,
    profile="x86",
    order=order_of(dict.fromkeys(("int8", "fp32", "fp16"), ("openvino", "onnxruntime", "litert"))),
    usable_cpus=4,
    more_threads=0,
    power_mode="15W",
    runtimes={"onnxruntime": "1.32.0"},
)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "tiny.ecv")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGECV_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def result(precision: str, threads: int, median_ms: float | None, rss_mb: int = 100) -> CellResult:
    cell = Cell(variant=f"onnx-{precision}", precision=precision, runtime="onnxruntime", threads=threads)
    return CellResult(cell=cell, stage="final", median_ms=median_ms, rss_bytes=rss_mb << 20, runs=30)


def record_of(bundle: Bundle, machine: Machine, *results: CellResult) -> TuneRecord:
    return TuneRecord(
        schema=SCHEMA,
        name=bundle.name,
        key=key_of(bundle, machine),
        measured_at="2026-11-27T12:00:00+00:00",
        elapsed_s=60.0,
        budget_s=90.0,
        results=results,
    )


def test_a_record_is_read_as_it_was_written(bundle: Bundle, cache: Path) -> None:
    record = record_of(bundle, MACHINE, result("fp32", 2, 9.0), result("int8", 2, None))
    path = write_record(record)
    assert path.is_relative_to(cache / "tune" / MACHINE.fingerprint[:16])
    assert read_record(record.key, bundle.name) == record
    assert record.best == record.results[0].cell
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"power_mode": "7W"}, "power mode was 15W and is 7W"),
        ({"runtimes": {"onnxruntime": "1.33.0"}}, "other versions"),
        ({"usable_cpus": 2}, "4 CPUs could be used, and now 2"),
    ],
    ids=["power mode", "versions", "fewer CPUs"],
)
def test_a_record_of_other_circumstances_is_ignored_in_one_line(
    bundle: Bundle, changes: dict[str, object], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    from dataclasses import replace

    write_record(record_of(bundle, MACHINE, result("fp32", 2, 9.0)))
    now = replace(MACHINE, **changes)  # type: ignore[arg-type]
    assert read_record(key_of(bundle, now), bundle.name) is None
    assert len(caplog.messages) == 1
    assert reason in caplog.messages[0]
    assert "edgecv tune" in caplog.messages[0]


def test_another_device_and_another_bundle_have_records_of_their_own(bundle: Bundle, tmp_path: Path) -> None:
    from dataclasses import replace

    other = write_bundle(tmp_path / "other.ecv", {"fp32": 3.0})
    elsewhere = replace(MACHINE, fingerprint="e" * 64)
    keys = [key_of(bundle, MACHINE), key_of(other, MACHINE), key_of(bundle, elsewhere)]
    assert len({record_path(key, "tiny") for key in keys}) == 3


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"schema": 1}', b"[" * 100_000, b"0" * (2 << 20)],
    ids=["empty", "torn", "a list", "no text", "half", "deep", "huge"],
)
def test_a_corrupt_record_is_named_and_ignored(
    bundle: Bundle, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_record(record_of(bundle, MACHINE, result("fp32", 2, 9.0)))
    path.write_bytes(content)
    assert read_record(key_of(bundle, MACHINE), bundle.name) is None
    assert len(caplog.messages) == 1
    assert str(path) in caplog.messages[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"results": []}, "no time"),
        ({"results": [{"cell": {"threads": 0}}]}, "damaged"),
        ({"results": [{"cell": {"threads": 10**6}}]}, "damaged"),
        ({"results": [{"median_ms": None}]}, "no time"),
        ({"results": [{"median_ms": 0.0}]}, "damaged"),
        ({"\x1b[2J": 1}, "damaged"),
    ],
    ids=["no cell", "no threads", "too many threads", "no time", "no length", "a name that clears a terminal"],
)
def test_a_record_with_values_that_cannot_be_is_named_and_ignored(
    bundle: Bundle, changes: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_record(record_of(bundle, MACHINE, result("fp32", 2, 9.0)))
    content = json.loads(path.read_text())
    rows = changes.pop("results", [{}])
    first = content["results"][0]
    content["results"] = [{**first, **row, "cell": {**first["cell"], **row.get("cell", {})}} for row in rows]
    path.write_text(json.dumps({**content, **changes}))
    assert read_record(key_of(bundle, MACHINE), bundle.name) is None
    assert [said in line for line in caplog.messages] == [True]
    assert "\x1b" not in caplog.text


def test_a_newer_schema_is_ignored(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    write_record(msgspec.structs.replace(record_of(bundle, MACHINE, result("fp32", 2, 9.0)), schema=SCHEMA + 1))
    assert read_record(key_of(bundle, MACHINE), bundle.name) is None
    assert "schema" in caplog.messages[0]


def test_a_record_that_is_a_folder_is_named_and_ignored(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    key = key_of(bundle, MACHINE)
    path = record_path(key, bundle.name)
    assert path is not None
    path.mkdir(parents=True)
    assert read_record(key, bundle.name) is None
    assert str(path) in caplog.messages[0]


def test_a_folder_that_cannot_be_written_is_an_error_with_the_next_step(bundle: Bundle, cache: Path) -> None:
    cache.write_text("a file is in the way")
    with pytest.raises(EdgeCVError, match="cannot be kept") as caught:
        write_record(record_of(bundle, MACHINE, result("fp32", 2, 9.0)))
    assert "XDG_CACHE_HOME" in caught.value.hint


def test_a_name_that_is_no_file_name_is_made_one(bundle: Bundle) -> None:
    path = record_path(key_of(bundle, MACHINE), "../../a model/ü")
    assert path is not None
    assert path.name.startswith("_.._a_model_")
    assert ".." not in path.parts


def test_the_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EDGECV_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("tune") == tmp_path / "edgecv/tune"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder("tune") == Path.home() / ".cache/edgecv/tune"


def question(bundle: Bundle, **options: object) -> Question:
    checked = runtime_options(**options)
    return Question(bundle=bundle, pairs=runnable(bundle, checked), options=checked)


def test_auto_takes_what_tune_measured_and_its_threads(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    record = record_of(bundle, MACHINE, result("fp32", 2, 9.0), result("int8", 4, 12.0))
    with caplog.at_level(logging.INFO):
        advice = advise_on(MACHINE, record, question(bundle))
    assert (advice.variant.name, advice.runtime, advice.threads) == ("onnx-fp32", "onnxruntime", 2)
    assert len(caplog.messages) == 1
    assert "measured here" in caplog.messages[0]


def test_a_precision_takes_the_best_cell_of_that_precision(bundle: Bundle) -> None:
    slow_one, quick_two = result("int8", 1, 30.0), result("int8", 2, 12.0)
    record = record_of(bundle, MACHINE, result("fp32", 2, 9.0), slow_one, quick_two)
    advice = advise_on(MACHINE, record, question(bundle, precision="int8"))
    assert (advice.variant.name, advice.threads) == ("onnx-int8", 2)


def test_threads_that_are_given_win_and_choose_the_cell_measured_with_them(bundle: Bundle) -> None:
    record = record_of(bundle, MACHINE, result("fp32", 4, 9.0), result("int8", 4, 10.0), result("int8", 1, 11.0))
    advice = advise_on(MACHINE, record, question(bundle, threads=1))
    assert (advice.variant.name, advice.threads) == ("onnx-int8", 1)
    assert advise_on(MACHINE, record, question(bundle, threads=3)).threads == 3


def test_two_lanes_get_a_cell_with_two_threads(bundle: Bundle) -> None:
    record = record_of(bundle, MACHINE, result("fp32", 1, 9.0), result("fp32", 2, 9.1))
    assert advise_on(MACHINE, record, question(bundle)).threads == 1
    assert advise_on(MACHINE, record, question(bundle, lanes=2)).threads == 2


def test_cells_of_another_device_decide_nothing(bundle: Bundle) -> None:
    cell = Cell(variant="onnx-fp32", precision="fp32", runtime="onnxruntime", threads=4, device="cuda")
    record = record_of(bundle, MACHINE, CellResult(cell=cell, stage="final", median_ms=1.0))
    assert advise_on(MACHINE, record, question(bundle)).variant.name == "onnx-int8"


def test_without_tuning_the_order_of_the_machine_decides_and_the_log_names_tune(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        advice = advise_on(MACHINE, None, question(bundle))
    assert (advice.variant.name, advice.threads) == ("onnx-int8", 0)
    assert len(caplog.messages) == 1
    assert f"edgecv tune {bundle.path}" in caplog.messages[0]


@pytest.mark.parametrize("latencies_ms", [{"fp32": 1.0, "int8": 50.0}, {"fp32": 50.0, "int8": 1.0}])
def test_latency_that_another_machine_recorded_decides_nothing(tmp_path: Path, latencies_ms: dict[str, float]) -> None:
    bundle = write_bundle(tmp_path / "measured.ecv", latencies_ms)
    assert choose(bundle.path, runtime_options()).variant.name == "onnx-int8"


def test_int8_weights_alone_come_after_all_that_computes_in_8_bits(bundle: Bundle) -> None:
    base = bundle.variants[0]

    def variant(name: str, precision: str, recipe: str = "") -> tuple[object, str]:
        runtime = {"openvino": "openvino", "onnx": "onnxruntime", "tflite": "litert"}[name]
        return msgspec.structs.replace(
            base, name=name + precision, format=name, precision=precision, recipe=recipe
        ), runtime

    pairs = [
        variant("tflite", "fp16"),
        variant("tflite", "fp32"),
        variant("openvino", "int8", "ov-weights"),
        variant("tflite", "int8", "litert-static"),
        variant("onnx", "int8", "ort-u8s8"),
    ]
    order = [pair[0].name for pair in preferred(pairs, MACHINE.order)]  # type: ignore[arg-type]
    assert order == ["onnxint8", "tfliteint8", "openvinoint8", "tflitefp32", "tflitefp16"]


def test_a_loaded_model_runs_as_it_was_tuned(bundle: Bundle) -> None:
    write_record(record_of(bundle, this_machine(), result("fp32", 1, 1.0), result("int8", 1, 2.0)))
    with edgecv.load(bundle.path) as model:
        assert model.variant.name == "onnx-fp32"
    with edgecv.load(bundle.path, precision="int8") as model:
        assert model.variant.name == "onnx-int8"
    assert choose(bundle.path, runtime_options()).options.threads == 1
    assert choose(bundle.path, runtime_options(threads=2)).options.threads == 2


def test_auto_takes_the_cores_that_were_tuned_unless_another_number_of_threads_is_asked_for(bundle: Bundle) -> None:
    won = Cell(variant="onnx-int8", precision="int8", runtime="onnxruntime", threads=4, cores=(4, 5, 6, 7))
    record = record_of(bundle, MACHINE, CellResult(cell=won, stage="final", median_ms=1.0), result("int8", 8, 1.5))
    write_record(record)
    read = read_record(record.key, bundle.name)
    assert read == record
    asked = {threads: runtime_options(threads=threads, variant="onnx-int8") for threads in (0, 4, 2)}
    found = {
        threads: advise_on(MACHINE, read, Question(bundle=bundle, pairs=runnable(bundle, options), options=options))
        for threads, options in asked.items()
    }
    assert {threads: (advice.threads, advice.cores) for threads, advice in found.items()} == {
        0: (4, (4, 5, 6, 7)),
        4: (4, (4, 5, 6, 7)),
        2: (2, ()),
    }


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core alone")
def test_a_bundle_is_loaded_on_the_cores_that_were_tuned(bundle: Bundle) -> None:
    core = max(os.sched_getaffinity(0))
    won = Cell(variant="onnx-int8", precision="int8", runtime="onnxruntime", threads=1, cores=(core,))
    write_record(record_of(bundle, this_machine(), CellResult(cell=won, stage="final", median_ms=1.0)))
    chosen = choose(bundle.path, runtime_options())
    assert (chosen.options.threads, chosen.options.cores) == (1, (core,))
    with edgecv.load(bundle.path) as model:
        assert model(np.zeros((64, 64, 3), np.uint8)) is not None
