"""What tuning makes of accelerators: which take part, that engines are built first, and that this is said."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgecv.devices.device import Accelerator
from edgecv.devices.tuning.cells import Cell, CellResult
from edgecv.devices.tuning.engines import build_engines
from edgecv.devices.tuning.machine import usable_devices
from edgecv.devices.tuning.record import SCHEMA, TuneKey, TuneRecord
from edgecv.devices.tuning.tune import engine_gate, still_counts
from edgecv.errors import SessionError


def accelerator(kind: str, state: str = "usable", driver: str = "") -> Accelerator:
    return Accelerator(kind=kind, name=kind, state=state, id="", node="", driver=driver, reason="", fix="")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("accelerators", "devices"),
    [
        ([], ("cpu",)),
        ([accelerator("nvidia")], ("cpu", "cuda", "tensorrt")),
        ([accelerator("nvidia", "driven")], ("cpu",)),
        ([accelerator("gpu", driver="xe"), accelerator("npu", driver="intel_vpu")], ("cpu", "gpu", "npu")),
        ([accelerator("npu", driver="RKNPU"), accelerator("edgetpu"), accelerator("hailo")], ("cpu",)),
    ],
)
def test_what_is_usable_takes_part_and_nothing_else(accelerators: list[Accelerator], devices: tuple[str, ...]) -> None:
    assert usable_devices(accelerators) == devices


def cell(variant: str, device: str) -> Cell:
    return Cell(variant=variant, precision="fp32", runtime="onnxruntime", threads=1, device=device)


class Shop:
    """Takes the seconds that it is told to, and fails for one variant."""

    def __init__(self) -> None:
        self.built: list[str] = []

    def build(self, cell: Cell, told: Callable[[float], None]) -> None:
        self.built.append(cell.variant)
        for second in range(1, 70):
            told(float(second))
        if cell.variant == "onnx-int8":
            raise SessionError("TensorRT built no engine of this model.")


def test_every_variant_is_built_once_and_the_wait_is_said_with_its_seconds() -> None:
    shop, said = Shop(), []
    cells = [cell("onnx-fp16", "cpu"), cell("onnx-fp16", "tensorrt"), cell("onnx-int8", "tensorrt")]
    failed = build_engines([*cells, cells[1]], shop, lambda step, done, total: said.append((step, done, total)))
    assert shop.built == ["onnx-fp16", "onnx-int8"]
    assert failed == {"onnx-int8": "TensorRT built no engine of this model."}
    assert said[:5] == [
        ("TensorRT engine of onnx-fp16: building, the first time may take minutes", 0, 1),
        ("TensorRT engine of onnx-fp16: building for 15 s", 0, 1),
        ("TensorRT engine of onnx-fp16: building for 30 s", 0, 1),
        ("TensorRT engine of onnx-fp16: building for 60 s", 0, 1),
        ("TensorRT engine of onnx-fp16: building, the first time may take minutes", 1, 1),
    ]


def test_nothing_is_built_where_nothing_shall_run_on_tensorrt() -> None:
    shop = Shop()
    assert build_engines([cell("onnx-fp32", "cuda"), cell("onnx-fp32", "cpu")], shop, lambda *_: None) == {}
    assert shop.built == []


def record_of(*results: CellResult) -> TuneRecord:
    key = TuneKey(fingerprint="f", bundle="b", versions={}, power_mode="", usable_cpus=1)
    return TuneRecord(schema=SCHEMA, name="b", key=key, measured_at="", elapsed_s=1, budget_s=1, results=results)


def test_an_earlier_result_counts_while_the_same_engines_are_missing() -> None:
    """A machine with a GPU and without TensorRT is measured once, not at each start of its service."""
    measured = CellResult(cell=cell("onnx-fp32", "cpu"), stage="final", median_ms=1.0)
    refused = CellResult(
        cell=cell("onnx-fp32", "tensorrt"), stage="refused", reason="no engine: libnvinfer.so.10 is missing."
    )
    built = CellResult(cell=cell("onnx-fp32", "tensorrt"), stage="final", median_ms=0.5)
    other = CellResult(cell=cell("onnx-int8", "tensorrt"), stage="refused", reason="it was built for x86-vnni")
    cells = {measured.cell, refused.cell, other.cell}
    failed = {"onnx-fp32": "libnvinfer.so.10 is missing."}
    assert still_counts(record_of(measured, refused, other), cells, failed)
    assert not still_counts(record_of(measured, refused, other), cells, {}), "the engine is there by now"
    assert not still_counts(record_of(measured, built, other), cells, failed), "the engine is there no more"
    assert still_counts(record_of(measured, built, other), cells, {})
    assert not still_counts(record_of(measured), cells, {}), "it did not try all of them"
    assert still_counts(record_of(measured, refused, other), {measured.cell}, {}), "nothing is asked of TensorRT"


def test_a_variant_without_an_engine_is_refused_on_tensorrt_alone() -> None:
    gate = engine_gate({"onnx-int8": "TensorRT built no engine."}, lambda _: "")
    assert gate(cell("onnx-int8", "tensorrt")) == "no engine: TensorRT built no engine."
    assert gate(cell("onnx-int8", "cuda")) == gate(cell("onnx-fp16", "tensorrt")) == ""
