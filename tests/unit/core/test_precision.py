"""In which precision a session computes: float32 unless bfloat16 is asked for, and it says so."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import openvino
import pytest

import edgecv
from edgecv.bundles.bundle import Bundle, describe_file
from edgecv.bundles.cpu_classes import has_bf16
from edgecv.bundles.manifest import MANIFEST, dump_manifest
from edgecv.choosing import float_precision
from edgecv.errors import ConfigError, DeviceError
from edgecv.runtimes.ov import OpenVinoSession, _precision
from edgecv.specs import RuntimeOptions
from tests.command_line import run_here
from tests.models import SPEC, bright_cell, detector, write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Variants onnx-fp32, onnx-int8, and the float one for OpenVINO."""
    made = write_bundle(tmp_path_factory.mktemp("precision") / "tiny.ecv")
    place = made.path / "openvino-fp32"
    place.mkdir()
    network = openvino.convert_model(str(made.path / "onnx-fp32/model.onnx"))
    openvino.save_model(network, str(place / "model.xml"), compress_to_fp16=False)
    onnx = made.variants[0]
    files = tuple(describe_file(made.path, place / name) for name in ("model.xml", "model.bin"))
    models = {"main": msgspec.structs.replace(onnx.models["main"], files=files)}
    floats = msgspec.structs.replace(onnx, name="openvino-fp32", format="openvino", latency_ms=9.0, models=models)
    manifest = msgspec.structs.replace(made.manifest, variants=(*made.variants, floats))
    (made.path / MANIFEST).write_bytes(dump_manifest(manifest))
    return Bundle.open(made.path)


class Processor:
    """OpenVINO's core on a processor that this machine may not be."""

    def __init__(self, *able: str) -> None:
        self.able = list(able)

    def get_property(self, device: str, name: str) -> list[str]:
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        return self.able


AMX = Processor("FP32", "INT8", "BF16", "FP16")
ARM = Processor("FP32", "FP16", "INT8")
OLD = Processor("FP32", "INT8")


@pytest.mark.parametrize(
    ("processor", "precision", "hint"),
    [
        (AMX, "auto", "f32"),
        (AMX, "fp32", "f32"),
        (AMX, "int8", "f32"),
        (AMX, "bf16", "bf16"),
        (ARM, "fp32", "f32"),
        (ARM, "int8", "f32"),
        (ARM, "fp16", "f16"),
        (OLD, "fp16", "f32"),
        (OLD, "fp32", "f32"),
    ],
)
def test_a_cpu_computes_floats_in_float32_unless_it_is_asked(processor: Processor, precision: str, hint: str) -> None:
    options = msgspec.convert({"precision": precision}, RuntimeOptions)
    assert _precision(processor, "CPU", options) == {"INFERENCE_PRECISION_HINT": hint}


def test_bfloat16_where_the_cpu_has_none_is_refused() -> None:
    for processor in (ARM, OLD):
        with pytest.raises(DeviceError, match="bfloat16") as caught:
            _precision(processor, "CPU", RuntimeOptions(precision="bf16"))
        assert "float32" in caught.value.hint


def test_what_the_caller_sets_himself_stays() -> None:
    config = {"INFERENCE_PRECISION_HINT": "bf16"}
    assert _precision(OLD, "CPU", RuntimeOptions(extra={"config": config})) == config


def test_the_session_tells_what_was_compiled(bundle: Bundle) -> None:
    with edgecv.load(bundle.path, runtime="openvino") as model:
        assert float_precision(model.session) == "float32"
        assert str(model.session._compiled.get_property("INFERENCE_PRECISION_HINT")) == str(openvino.Type.f32)
    with edgecv.load(bundle.path, runtime="onnxruntime", precision="int8") as model:
        assert float_precision(model.session) == "float32"


def test_bf16_takes_the_float_files_on_openvino_or_says_that_this_cpu_cannot(bundle: Bundle) -> None:
    try:
        with edgecv.load(bundle.path, precision="bf16") as model:
            assert model.variant.name == "openvino-fp32"
            assert float_precision(model.session) == "bfloat16"
            assert np.isclose(model(bright_cell(1, 1)).confidence[0], 1.0, atol=0.03)
    except DeviceError as error:
        assert not has_bf16()
        assert "CPU does not compute in bfloat16" in error.message


@pytest.mark.parametrize(
    "options",
    [{"runtime": "onnxruntime"}, {"variant": "onnx-int8"}, {"runtime": "litert"}],
    ids=lambda o: next(iter(o)),
)
def test_bf16_where_it_means_nothing_is_refused(bundle: Bundle, options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="bfloat16") as caught:
        edgecv.load(bundle.path, precision="bf16", **options)
    assert "openvino" in caught.value.hint.lower()


def test_bf16_of_a_bare_onnx_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bfloat16"):
        edgecv.load(detector(tmp_path / "model.onnx"), spec=SPEC, precision="bf16")


def test_a_bare_graph_of_openvino_is_computed_in_float32(bundle: Bundle) -> None:
    session = OpenVinoSession(bundle.path / "openvino-fp32/model.xml", RuntimeOptions())
    assert session.float_precision == "float32"


def command(*arguments: str) -> str:
    """What a command prints."""
    done = run_here(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_info_says_it(bundle: Bundle) -> None:
    told = command("info", str(bundle.path))
    assert "float32 on CPUs; bfloat16 only when asked" in told
    assert ("this CPU has it" in told) == has_bf16()
