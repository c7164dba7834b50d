"""Weights beyond 2 GiB: refused before anything is converted. The module's tensors have shapes, but no memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecv.converters.exporters.common import weight_bytes
from edgecv.converters.exporters.litert import TfliteExporter
from edgecv.converters.source import Part
from edgecv.errors import QuantizationError, UnsupportedSource
from edgecv.quantize.ort.quantizer import OrtStaticQuantizer

torch = pytest.importorskip("torch")


def test_tflite_refuses_more_than_two_gibibytes(tmp_path: Path) -> None:
    module = torch.nn.Linear(40_000, 20_000, device="meta")
    assert weight_bytes(module) > 3 * 10**9
    part = Part(name="encoder", inputs=(), outputs=(), reference=dict, module=module)
    with pytest.raises(UnsupportedSource, match=r"need 3\.0 GiB; a \.tflite holds 2") as caught:
        TfliteExporter().export(part, tmp_path)
    assert "--to onnx" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_int8_for_onnx_refuses_more_than_two_gibibytes(tmp_path: Path) -> None:
    model, weights = tmp_path / "model.onnx", tmp_path / "model.onnx.data"
    model.write_bytes(b"")
    with weights.open("wb") as file:
        file.truncate(3 * 2**30)  # sparse: it takes no room on the disk
    with pytest.raises(QuantizationError, match=r"3\.0 GiB, larger than the 2 GiB") as caught:
        OrtStaticQuantizer((model, weights), (), tmp_path)
    assert "--to openvino" in caught.value.hint
