"""OpenVINO's devices beside the CPU. Not run on a GPU or an NPU; AUTO runs with the CPU that there is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino
import pytest
from openvino import opset13

import edgecv
from edgecv.bundles.bundle import Bundle
from edgecv.choosing import computed_on
from edgecv.errors import ConfigError, DeviceError, SessionError
from edgecv.runtimes.accelerators.openvino_device import find_device, fix_shapes, properties
from edgecv.runtimes.ov import OpenVinoSession
from edgecv.specs import RuntimeOptions, TensorSpec
from tests.golden_bundles import golden_bundle


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGECV_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return golden_bundle(tmp_path_factory.mktemp("ov") / "tiny.ecv")


def only(*names: str) -> Sequence[str]:
    return names


@pytest.mark.parametrize(
    ("wanted", "there", "found"),
    [
        ("GPU", ("CPU", "GPU"), "GPU"),
        ("gpu.0", ("CPU", "GPU"), "GPU.0"),
        ("gpu", ("CPU", "GPU.0", "GPU.1"), "GPU"),
        ("gpu.1", ("CPU", "GPU.0", "GPU.1"), "GPU.1"),
        ("npu", ("CPU", "NPU"), "NPU"),
        ("auto", ("CPU",), "AUTO"),
        ("auto:gpu,npu", ("CPU", "GPU", "NPU"), "AUTO:GPU,NPU"),
    ],
)
def test_a_device_that_is_there_is_taken(wanted: str, there: tuple[str, ...], found: str) -> None:
    assert find_device(wanted, lambda: only(*there)) == found


@pytest.mark.parametrize(
    ("wanted", "named", "next_step"),
    [
        ("gpu", "'gpu'", "intel-opencl-icd"),
        ("gpu.1", "'gpu.1'", "intel-opencl-icd"),
        ("npu", "'npu'", "intel-npu-driver"),
        ("auto:gpu,cpu", "'gpu'", "intel-opencl-icd"),
        ("hetero:gpu,cpu", "'hetero:gpu,cpu'", "Known: cpu, gpu, npu, auto"),
    ],
)
def test_a_device_that_is_not_there_is_refused_with_its_driver(wanted: str, named: str, next_step: str) -> None:
    with pytest.raises(DeviceError, match=named) as caught:
        find_device(wanted, lambda: only("CPU"))
    assert "it finds CPU" in caught.value.message
    assert next_step in caught.value.hint
    assert "device='cpu'" in caught.value.hint


@pytest.mark.parametrize("device", ["GPU", "NPU"])
def test_what_openvino_itself_does_not_list_is_refused(bundle: Bundle, device: str) -> None:
    if device in openvino.Core().available_devices:
        pytest.skip(f"this machine has a {device}")
    with pytest.raises(DeviceError, match=device.lower()):
        edgecv.load(bundle.path, device=device)


def test_auto_says_what_it_chose_and_computes_in_float32(bundle: Bundle) -> None:
    with edgecv.load(bundle.path, device="AUTO") as model:
        assert model.session.providers == ("AUTO", "CPU")
        assert computed_on(model.session) == "AUTO, CPU"
        assert model.session.float_precision == "float32"


def test_what_was_compiled_is_kept_in_the_users_cache_and_checked_when_it_is_read(bundle: Bundle, cache: Path) -> None:
    with edgecv.load(bundle.path, device="auto") as model:
        assert not model.session.from_cache
    kept = list(cache.glob("compiled/openvino-auto-*/model-*/*.blob"))
    assert len(kept) == 1
    assert kept[0].parent.stat().st_mode & 0o077 == 0
    with edgecv.load(bundle.path, device="auto") as model:
        assert model.session.from_cache


def test_what_was_compiled_and_computes_something_else_is_refused(tmp_path: Path) -> None:
    wrong = golden_bundle(tmp_path / "wrong.ecv", right=False)
    edgecv.load(wrong.path, device="auto").close()  # compiled now: nothing is read from a cache
    with pytest.raises(SessionError, match="does not compute what it should: cosine") as caught:
        edgecv.load(wrong.path, device="auto")
    assert "edgecv tune" in caught.value.hint


def test_a_cache_that_cannot_be_written_is_wrong_where_it_was_asked_for_and_else_said(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot keep what OpenVINO compiles"):
        edgecv.load(bundle.path, device="auto", cache_dir=tmp_path / "file")
    monkeypatch.setenv("EDGECV_CACHE", str(tmp_path / "file"))
    with edgecv.load(bundle.path, device="auto", threads=1) as model:
        assert not model.session.from_cache
    assert "What OpenVINO compiles is not kept" in caplog.text


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_where_compiled_models_lie_is_no_property(bundle: Bundle, tmp_path: Path, device: str) -> None:
    path = bundle.path / "openvino-fp32/model.xml"
    with pytest.raises(ConfigError, match="CACHE_DIR is EdgeCV's own") as caught:
        OpenVinoSession(path, RuntimeOptions(device=device, extra={"config": {"CACHE_DIR": str(tmp_path)}}))
    assert "cache_dir" in caught.value.hint


def test_the_cpu_keeps_nothing_unasked(bundle: Bundle, cache: Path) -> None:
    edgecv.load(bundle.path, runtime="openvino").close()
    assert not cache.exists() or not (cache / "compiled").exists()


def test_float32_stays_float32_where_the_device_can_and_threads_are_of_the_cpu() -> None:
    fp32 = RuntimeOptions(precision="fp32", threads=3, lanes=2)
    assert properties("GPU", fp32, ("FP32", "FP16")) == {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": 2,
    }
    assert properties("NPU", fp32, ("FP16", "INT8")) == {"PERFORMANCE_HINT": "LATENCY"}
    int8 = RuntimeOptions(precision="int8", extra={"config": {"PERFORMANCE_HINT": "THROUGHPUT"}})
    assert properties("GPU", int8, ("FP32", "FP16")) == {"PERFORMANCE_HINT": "THROUGHPUT"}


def test_auto_begins_and_ends_on_one_device() -> None:
    asked = properties("AUTO", RuntimeOptions(threads=3), ())
    assert asked["ENABLE_STARTUP_FALLBACK"] is False
    assert asked["ENABLE_RUNTIME_FALLBACK"] is False
    assert asked["DEVICE_PROPERTIES"] == {"CPU": {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 3}}
    assert properties("AUTO:GPU,CPU", RuntimeOptions(), ())["ENABLE_RUNTIME_FALLBACK"] is True


def open_network() -> openvino.Model:
    x = opset13.parameter([-1, 3, -1, 8], dtype=np.float32, name="x")
    x.output(0).get_tensor().set_names({"x"})
    return openvino.Model([opset13.relu(x)], [x])


def test_open_dimensions_become_those_of_the_specs_and_an_npu_takes_no_others() -> None:
    spec = TensorSpec(name="x", role="image", shape=(1, 3, 8, 8), dtype="float32")
    network = open_network()
    fix_shapes(network, (spec,), "NPU", "model.xml")
    assert list(network.input("x").shape) == [1, 3, 8, 8]
    left_open = open_network()
    fix_shapes(left_open, (), "GPU", "model.xml")
    assert left_open.is_dynamic()
    with pytest.raises(SessionError, match=r"model\.xml leaves dimensions") as caught:
        fix_shapes(left_open, (), "NPU", "model.xml")
    assert "--imgsz" in caught.value.hint


def test_bfloat16_is_of_the_cpu(bundle: Bundle) -> None:
    path = bundle.path / "openvino-fp32/model.xml"
    with pytest.raises(DeviceError, match="AUTO does not compute in bfloat16"):
        OpenVinoSession(path, RuntimeOptions(device="auto", precision="bf16"))
