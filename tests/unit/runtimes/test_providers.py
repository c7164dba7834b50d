"""ONNX Runtime's providers: what is asked for, what is refused, and what of a session they really compute."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

import edgecv
from edgecv.bundles.cpu_classes import ACCELERATORS
from edgecv.choosing import computed_on
from edgecv.errors import ConfigError, DeviceError
from edgecv.runtimes.accelerators import DEVICES, nvidia, ort_device, providers
from edgecv.runtimes.accelerators.engines import engines_of
from edgecv.runtimes.accelerators.nvidia import linked, missing_libraries, parse_ldd
from edgecv.runtimes.accelerators.providers import (
    RECORD_PLACEMENT,
    check_available,
    check_used,
    given_options,
    placement_of,
    tensorrt_options,
)
from edgecv.runtimes.ort import OnnxRuntimeSession
from edgecv.specs import RuntimeOptions
from tests.models import arithmetic, write_bundle

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return arithmetic(tmp_path_factory.mktemp("ort") / "model.onnx")


@pytest.mark.parametrize(
    ("device", "provider", "library"),
    [
        ("cuda", CUDA, "libonnxruntime_providers_cuda.so"),
        ("tensorrt", TENSORRT, "libonnxruntime_providers_tensorrt.so"),
    ],
)
def test_a_build_for_the_cpu_names_the_provider_the_library_and_the_package(
    model: Path, device: str, provider: str, library: str
) -> None:
    with pytest.raises(DeviceError, match=provider) as caught:
        OnnxRuntimeSession(model, RuntimeOptions(device=device))
    assert library in caught.value.message
    assert "pip install onnxruntime-gpu" in caught.value.hint
    assert "edgecv doctor" in caught.value.hint


def test_providers_that_this_build_lacks_are_left_out_behind_the_first() -> None:
    assert check_available("tensorrt", (TENSORRT, CPU)) == (TENSORRT, CPU)
    assert check_available("tensorrt", (CPU, CUDA, TENSORRT)) == (TENSORRT, CUDA, CPU)


needs_placement = pytest.mark.skipif(
    not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"),
    reason="this onnxruntime does not say what each provider computes",
)


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that each build has, starts, and takes no node: as one does that supports nothing of a model."""
    changed = {**providers.PROVIDERS, "azure": ("AzureExecutionProvider", CPU)}
    monkeypatch.setattr(providers, "PROVIDERS", changed)


@needs_placement
@pytest.mark.usefixtures("azure")
def test_a_provider_that_starts_and_takes_no_node_is_refused(model: Path) -> None:
    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this build has no second provider")
    with pytest.raises(DeviceError, match=r"takes no node of this model: CPUExecutionProvider 100%") as caught:
        OnnxRuntimeSession(model, RuntimeOptions(device="azure"))
    assert "device='cpu'" in caught.value.hint


@needs_placement
def test_the_share_of_nodes_is_counted_from_what_onnxruntime_says(model: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(RECORD_PLACEMENT, "1")
    session = onnxruntime.InferenceSession(str(model), options, providers=[CPU])
    assert placement_of(session) == {CPU: 1.0}


class Subgraph:
    """As ``OrtEpAssignedSubgraph`` answers."""

    def __init__(self, ep_name: str, nodes: int) -> None:
        self.ep_name = ep_name
        self._nodes = nodes

    def get_nodes(self) -> list[None]:
        return [None] * self._nodes


def test_shares_of_several_subgraphs_add_up_the_largest_first() -> None:
    found = providers.placement([Subgraph(CPU, 1), Subgraph(TENSORRT, 60), Subgraph(TENSORRT, 36), Subgraph(CUDA, 3)])
    assert found == {TENSORRT: 0.96, CUDA: 0.03, CPU: 0.01}
    assert list(found) == [TENSORRT, CUDA, CPU]
    assert providers.placement([]) == {}


def test_a_session_says_its_shares_and_else_its_providers(model: Path) -> None:
    session: Any = OnnxRuntimeSession(model, RuntimeOptions())
    assert computed_on(session) == CPU
    session.placement = {TENSORRT: 0.96, CPU: 0.04}
    assert computed_on(session) == f"{TENSORRT} 96%, {CPU} 4%"


def library_that_lacks(missing: str, library: Path) -> None:
    """A library that needs another one, which is not there."""
    if not (shutil.which("gcc") and shutil.which("ldd")):
        pytest.skip("gcc and ldd make and read a library")
    gone, source = library.parent / missing, library.parent / "empty.c"
    source.write_text("void nothing_here(void) {}")
    needs = ["-Wl,--no-as-needed", f"-L{library.parent}", f"-l:{missing}"]
    for target, more in ((gone, []), (library, needs)):
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", target, source, *more], check=True, timeout=60)
    gone.unlink()


def test_a_missing_library_of_tensorrt_is_named_before_a_build_is_asked_for(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library_that_lacks("libnvinfer.so.of-edgecv", tmp_path / "libonnxruntime_providers_tensorrt.so")
    monkeypatch.setattr(nvidia, "read_gpu", lambda *_: nvidia.Gpu(name="Orin", sm="87"))
    with pytest.raises(
        DeviceError, match=r"could not start TensorrtExecutionProvider: libnvinfer\.so\.of-edgecv is missing"
    ):
        engines_of(model, RuntimeOptions(device="tensorrt"), {}, onnxruntime, tmp_path)


def test_a_provider_that_did_not_start_names_what_the_loader_does_not_find(tmp_path: Path) -> None:
    library = tmp_path / "libonnxruntime_providers_cuda.so"
    library_that_lacks("libcudart-of-edgecv.so", library)
    assert missing_libraries(linked(library)) == ("libcudart-of-edgecv.so",)
    with pytest.raises(
        DeviceError, match=r"could not start CUDAExecutionProvider: libcudart-of-edgecv\.so is missing"
    ) as caught:
        check_used(CUDA, (CPU,), {}, tmp_path)
    assert "libcudart-of-edgecv.so" in caught.value.hint


def test_a_provider_that_did_not_start_with_all_libraries_points_at_the_driver(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="could not start it") as caught:
        check_used(CUDA, (CPU,), {}, tmp_path)
    assert "nvidia-smi" in caught.value.hint


LDD = """\tlinux-vdso.so.1 (0x00007ffd)
\tlibnvinfer.so.10 => not found
\tlibcudart.so.13 => /usr/local/cuda/lib64/libcudart.so.13 (0x00007f)
\tlibcublasLt.so.13 => not found
\t/lib64/ld-linux-x86-64.so.2 (0x00007f)
"""


def test_what_ldd_prints_is_read_and_what_was_loaded_before_is_not_missing() -> None:
    needed = parse_ldd(LDD)
    assert needed == {
        "libnvinfer.so.10": "",
        "libcudart.so.13": "/usr/local/cuda/lib64/libcudart.so.13",
        "libcublasLt.so.13": "",
    }
    assert missing_libraries(needed, lambda name: name.startswith("libcublas")) == ("libnvinfer.so.10",)
    assert parse_ldd("\tstatically linked\n") == {}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({CUDA: {"device_id": 1}, "ROCMExecutionProvider": {}}, "ROCMExecutionProvider"),
        ({CPU: {"arena": 1}}, CPU),
        ({"device_id": 1}, "by provider"),
        ([CUDA], "by provider"),
        ({TENSORRT: {"trt_engine_cache_path": "/tmp"}}, "trt_engine_cache_path is EdgeCV's own"),
        ({TENSORRT: {"trt_ep_context_file_path": "/tmp"}}, "trt_ep_context_file_path is EdgeCV's own"),
        ({TENSORRT: {"trt_fp16_enable": None}}, "trt_fp16_enable of TensorrtExecutionProvider is None"),
        ({CUDA: {"device_id": [1]}}, "device_id of CUDAExecutionProvider is"),
        ({CUDA: {"device_id": "first"}}, "device_id is 'first'"),
        ({CUDA: {"device_id": -1}}, "device_id is '-1'"),
        ({CUDA: {"device_id": 1}, TENSORRT: {"device_id": 0}}, "several GPUs: device_id is 0 and 1"),
    ],
)
def test_provider_options_that_make_no_sense_are_refused(given: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        given_options({"provider_options": given}, "tensorrt")
    assert caught.value.hint


def test_provider_options_are_passed_on_as_text() -> None:
    given = {TENSORRT: {"trt_builder_optimization_level": 5, "trt_fp16_enable": True}}
    assert given_options({"provider_options": given}, "tensorrt") == {
        TENSORRT: {"trt_builder_optimization_level": "5", "trt_fp16_enable": "True"}
    }
    assert given_options({}, "cpu") == {}


def test_all_providers_of_a_session_compute_on_the_gpu_that_one_of_them_is_given() -> None:
    given = {CUDA: {"device_id": 1, "cudnn_conv_algo_search": "HEURISTIC"}}
    assert given_options({"provider_options": given}, "tensorrt") == {
        TENSORRT: {"device_id": "1"},
        CUDA: {"device_id": "1", "cudnn_conv_algo_search": "HEURISTIC"},
    }


def test_options_for_a_provider_of_another_device_are_refused_before_anything_is_loaded(model: Path) -> None:
    with pytest.raises(ConfigError, match="device='cpu'"):
        edgecv.load(model, extra={"provider_options": {CUDA: {"device_id": 1}}}, spec=None)


def test_what_is_given_reaches_its_provider_and_tensorrt_gets_ours() -> None:
    device = ort_device.OrtDevice(
        runtime=onnxruntime, names=(TENSORRT, CUDA, CPU), given={CUDA: {"device_id": "1"}, TENSORRT: {"device_id": "1"}}
    )
    assert device._providers({"trt_fp16_enable": "True"}) == [
        (TENSORRT, {"trt_fp16_enable": "True"}),
        (CUDA, {"device_id": "1"}),
        (CPU, {}),
    ]


@pytest.mark.parametrize(
    ("precision", "fp16", "int8"), [("fp32", "False", "False"), ("fp16", "True", "False"), ("int8", "True", "True")]
)
def test_tensorrt_computes_in_the_types_of_the_variant(precision: str, fp16: str, int8: str) -> None:
    options = tensorrt_options(precision, "10.3.0", 1 << 30)
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == (fp16, int8)
    assert options["trt_builder_optimization_level"] == "3"
    assert options["trt_max_workspace_size"] == "1073741824"


def test_from_tensorrt_11_on_no_types_are_asked_for() -> None:
    assert not {"trt_fp16_enable", "trt_int8_enable"} & tensorrt_options("int8", "11.3.0", 1 << 30).keys()


def test_one_list_says_which_runtime_knows_which_device() -> None:
    assert set(providers.PROVIDERS) == {"cpu", *DEVICES["onnxruntime"]}
    assert set(ACCELERATORS) <= {device for devices in DEVICES.values() for device in devices}


def test_auto_takes_only_runtimes_that_know_the_device(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny.ecv")
    with pytest.raises(DeviceError, match="npu") as caught:
        edgecv.load(bundle.path, device="NPU")
    assert "cuda" in caught.value.hint
