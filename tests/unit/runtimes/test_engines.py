"""Where TensorRT's engines lie, what they are keyed by, and that none is built unasked. Not run on TensorRT."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from edgecv.bundles.bundle import Bundle
from edgecv.bundles.golden import _as_loaded
from edgecv.errors import ConfigError, DeviceError, SessionError
from edgecv.runtimes.accelerators import engines as engines_module, nvidia
from edgecv.runtimes.accelerators.compiled import CompiledKey, compiled_root, content_hash
from edgecv.runtimes.accelerators.engines import bundle_of, engines_of, place_engines, workspace_bytes
from edgecv.runtimes.accelerators.nvidia import Gpu, driver_version, read_gpu, tensorrt_version, version_text
from edgecv.runtimes.accelerators.ort_device import OrtDevice, Providers
from edgecv.runtimes.ort import _openable
from edgecv.specs import RuntimeOptions
from tests.models import arithmetic, detector, with_external_data, write_bundle

ORIN = Gpu(name="Orin", sm="87")
VERSIONS = {"onnxruntime": "1.23.0", "tensorrt": "10.3.0", "driver": "L4T 36.4.3"}


def placed(model: Path, cache: Path, *, gpu: Gpu = ORIN, given: dict[str, str] | None = None, **versions: str):
    options = RuntimeOptions(device="tensorrt", precision="int8", cache_dir=str(cache))
    return place_engines(model, options, given or {}, gpu, {**VERSIONS, **versions})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "door.ecv").path / "onnx-int8/model.onnx"


def test_the_folder_says_the_gpu_the_bundle_and_the_variant(model: Path, tmp_path: Path) -> None:
    folder = placed(model, tmp_path / "cache").folder
    assert folder.name.startswith("door-onnx-int8-model-")
    assert folder.parent.name.startswith("onnxruntime-tensorrt-orin-sm87-")
    assert folder == placed(model, tmp_path / "cache").folder


def test_whatever_an_engine_depends_on_gives_it_another_folder(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    other = model.parent / "other.onnx"
    arithmetic(other)
    folders = [
        placed(model, cache),
        placed(other, cache),
        placed(model, cache, gpu=Gpu(name="Orin", sm="86")),
        placed(model, cache, gpu=Gpu(name="RTX", sm="87")),
        placed(model, cache, tensorrt="10.4.0"),
        placed(model, cache, onnxruntime="1.24.0"),
        placed(model, cache, driver="L4T 36.5"),
        placed(model, cache, given={"trt_builder_optimization_level": "5"}),
    ]
    assert len({engines.folder for engines in folders}) == len(folders)
    assert folders[0].timing == folders[1].timing, "all models on one machine share the times of kernels"


def test_the_memory_of_a_process_is_no_part_of_the_key_unless_it_is_given(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service has a limit of its own: an engine that a shell has built is the same."""
    before = placed(model, tmp_path)
    monkeypatch.setattr(engines_module, "_workspace_bytes", lambda: 1 << 28)
    assert placed(model, tmp_path).folder == before.folder
    assert placed(model, tmp_path).options["trt_max_workspace_size"] == str(1 << 28)
    assert placed(model, tmp_path, given={"trt_max_workspace_size": "5"}).folder != before.folder


def test_a_variant_that_was_converted_anew_is_another_one(model: Path, tmp_path: Path) -> None:
    before = placed(model, tmp_path).folder
    detector(model, {"converted": "again"})
    assert placed(model, tmp_path).folder != before


def test_weights_beside_a_file_are_a_part_of_it(tmp_path: Path) -> None:
    path = with_external_data(tmp_path / "model.onnx")
    before = content_hash(path)
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\7")
    assert content_hash(path) != before


def test_without_an_engine_nothing_is_built_and_the_command_is_named(model: Path, tmp_path: Path) -> None:
    engines = placed(model, tmp_path / "cache")
    assert not engines.are_built
    with pytest.raises(DeviceError, match="never done unasked") as caught:
        engines.check_built(model)
    assert caught.value.hint == f"Build it once: edgecv tune {tmp_path}/door.ecv --device tensorrt"
    assert not (tmp_path / "cache").exists()


def test_an_engine_counts_once_its_build_has_ended(model: Path, tmp_path: Path) -> None:
    engines = placed(model, tmp_path / "cache")
    with engines.begin() as folder:
        (folder / "TensorrtExecutionProvider_TRTKernel_graph_0_0_int8_sm87.engine").write_bytes(b"engine")
        assert not engines.are_built
        engines.mark(folder)
    assert engines.are_built
    engines.check_built(model)
    mark = json.loads((engines.folder / "engine.json").read_text())
    assert (mark["hardware"], mark["versions"]["tensorrt"]) == ("Orin sm87", "10.3.0")
    assert engines.provider_options()["trt_engine_cache_path"] == str(engines.folder)
    next(engines.folder.glob("*.engine")).unlink()
    assert not engines.are_built, "onnxruntime would build it anew without a word"


def test_a_build_that_fails_or_makes_no_engine_leaves_nothing(model: Path, tmp_path: Path) -> None:
    engines = placed(model, tmp_path / "cache")
    with pytest.raises(RuntimeError), engines.begin() as folder:
        (folder / "half.engine").write_bytes(b"half")
        raise RuntimeError("killed")
    with pytest.raises(DeviceError, match="built no engine") as caught, engines.begin() as folder:
        engines.mark(folder)
    assert "--lint tensorrt" in caught.value.hint
    assert [path.name for path in engines.folder.parent.iterdir()] == ["timing"]


def test_engines_lie_in_the_cache_of_the_user_or_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECV_CACHE", str(tmp_path))
    assert compiled_root("") == tmp_path / "compiled"
    assert compiled_root("here") == Path.cwd() / "here"
    monkeypatch.delenv("EDGECV_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", homeless)
    model = arithmetic(tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match="no folder") as caught:
        place_engines(model, RuntimeOptions(device="tensorrt"), {}, ORIN, VERSIONS)
    assert "EDGECV_CACHE" in caught.value.hint


def test_a_file_outside_of_a_bundle_stands_for_itself(tmp_path: Path, model: Path) -> None:
    assert bundle_of(model) == tmp_path / "door.ecv"
    bare = arithmetic(tmp_path / "model.onnx")
    assert bundle_of(bare) == bare
    with pytest.raises(DeviceError) as caught:
        placed(bare, tmp_path / "cache").check_built(bare)
    assert "extra={'build_engine': True}" in caught.value.hint
    assert "edgecv tune model" not in caught.value.hint, "that takes bundles"


def test_names_that_differ_only_in_their_parts_give_other_folders() -> None:
    first = CompiledKey(runtime="onnxruntime", device="tensorrt", hardware="a b", model="m")
    second = CompiledKey(runtime="onnxruntime", device="tensorrt a", hardware="b", model="m")
    assert first.machine_folder() != second.machine_folder()


class Session:
    """As a session of onnxruntime with TensorRT answers: it writes its engine where it is told to, unless it lies there."""

    def __init__(self, providers: Providers, name: str) -> None:
        self.providers = [provider for provider, _ in providers]
        self.folder = Path(dict(providers)["TensorrtExecutionProvider"]["trt_engine_cache_path"])
        self.builds = not (self.folder / name).exists()
        (self.folder / name).write_bytes(b"engine")

    def get_providers(self) -> list[str]:
        return self.providers


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> OrtDevice:
    """TensorRT on an Orin, as far as this side of onnxruntime goes."""
    import onnxruntime

    monkeypatch.setattr(nvidia, "read_gpu", lambda *_: ORIN)
    names = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
    return OrtDevice(runtime=onnxruntime, names=names, given={})


def test_a_session_refuses_builds_once_and_then_reads_what_was_built(
    device: OrtDevice, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[Session] = []

    def create(providers: Providers, name: str = "a.engine") -> Session:
        made.append(Session(providers, name))
        return made[-1]

    options = RuntimeOptions(device="tensorrt", precision="int8", cache_dir=str(tmp_path / "cache"))
    with pytest.raises(DeviceError, match="never done unasked"):
        device.open(model, options, create)
    assert made == []
    allowed = RuntimeOptions(
        device="tensorrt", precision="int8", cache_dir=options.cache_dir, extra={"build_engine": True}
    )
    device.open(model, allowed, create)
    assert [session.builds for session in made] == [True, False]
    assert made[0].folder != made[1].folder, "it is built beside its place, and read from there"
    assert "building an engine of model.onnx: the first time may take minutes" in caplog.text
    for again in (options, allowed):
        device.open(model, again, create)
    assert [session.builds for session in made[2:]] == [False, False]
    assert "anew" not in caplog.text
    device.open(model, options, lambda providers: create(providers, "b.engine"))
    assert "built it anew" in caplog.text


def test_what_an_ended_build_left_is_replaced(device: OrtDevice, model: Path, tmp_path: Path) -> None:
    options = RuntimeOptions(device="tensorrt", cache_dir=str(tmp_path), extra={"build_engine": True})
    device.open(model, options, lambda providers: Session(providers, "a.engine"))
    (kept,) = tmp_path.rglob("engine.json")
    kept.unlink()
    (kept.parent / "half.engine").write_bytes(b"half")
    made: list[Session] = []

    def create(providers: Providers) -> Session:
        made.append(Session(providers, "a.engine"))
        return made[-1]

    device.open(model, options, create)
    assert [session.builds for session in made] == [True, False]
    assert sorted(path.name for path in kept.parent.iterdir()) == ["a.engine", "engine.json"]


def test_a_cache_that_cannot_be_written_is_said_before_anything_is_built(
    device: OrtDevice, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    options = RuntimeOptions(device="tensorrt", cache_dir=str(tmp_path / "file"), extra={"build_engine": True})
    with pytest.raises(ConfigError, match="engines cannot be kept in") as caught:
        device.open(model, options, lambda _: pytest.fail("it builds"))
    assert "EDGECV_CACHE" in caught.value.hint


def test_an_engine_that_cannot_be_loaded_is_named(device: OrtDevice, model: Path, tmp_path: Path) -> None:
    options = RuntimeOptions(device="tensorrt", cache_dir=str(tmp_path), extra={"build_engine": True})
    device.open(model, options, lambda providers: Session(providers, "a.engine"))

    def torn(_: Providers) -> Session:
        raise RuntimeError("could not deserialize engine from cache")

    with pytest.raises(SessionError, match="deserialize engine") as caught:
        device.open(model, options, torn)
    (kept,) = tmp_path.rglob("engine.json")
    assert str(kept.parent) in caught.value.message
    assert caught.value.hint.startswith("Remove that folder. Build it once: edgecv tune ")


def test_tensorrt_opens_a_bundles_file_by_its_name_which_it_calls_the_engine_by(model: Path) -> None:
    bundle = Bundle.open(bundle_of(model))
    (variant,) = (one for one in bundle.variants if one.name == "onnx-int8")
    with bundle.opened_model(variant) as opened:
        assert _openable(opened, "tensorrt") == model
        assert _openable(opened, "cpu") == opened.main.readable


def test_golden_vectors_are_replayed_with_the_engine_that_is_loaded_later(model: Path) -> None:
    int8, fp32 = (
        one for one in sorted(Bundle.open(bundle_of(model)).variants, key=lambda one: one.precision, reverse=True)
    )
    on_tensorrt = RuntimeOptions(device="tensorrt")
    assert [_as_loaded(on_tensorrt, one).precision for one in (int8, fp32)] == ["int8", "fp32"]
    assert _as_loaded(None, int8) == RuntimeOptions()


def test_a_build_whose_provider_did_not_start_leaves_nothing(device: OrtDevice, model: Path, tmp_path: Path) -> None:
    options = RuntimeOptions(device="tensorrt", cache_dir=str(tmp_path / "cache"), extra={"build_engine": True})

    def create(providers: Providers) -> Session:
        session = Session(providers, "a.engine")
        session.providers = ["CPUExecutionProvider"]
        return session

    with pytest.raises(DeviceError, match="could not start"):
        device.open(model, options, create)
    assert not list((tmp_path / "cache").rglob("*.engine"))


@pytest.mark.parametrize(
    ("number", "text"), [(8601, "8.6.1"), (8502, "8.5.2"), (100300, "10.3.0"), (101302, "10.13.2"), (110300, "11.3.0")]
)
def test_the_number_of_tensorrt_in_words(number: int, text: str) -> None:
    assert version_text(number) == text


def test_a_quarter_of_a_memory_that_is_shared_and_else_a_gibibyte() -> None:
    assert workspace_bytes(True, 8 << 30) == 2 << 30
    assert workspace_bytes(False, 64 << 30) == 1 << 30


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic"}, "L4T 36.4.3"),
        (
            {"proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19"},
            "535.104.05",
        ),
        (
            {
                "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release",
                "etc/nv_tegra_release": "# R39 (release), REVISION: 2, GCID: 1",
            },
            "L4T 39.2",
        ),
        ({"etc/nv_tegra_release": "torn"}, ""),
        ({}, ""),
    ],
)
def test_the_release_of_the_driver(files: dict[str, str], said: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert driver_version(tmp_path) == said


def test_without_a_driver_there_is_no_gpu_and_no_tensorrt(model: Path) -> None:
    if read_gpu() is not None:
        pytest.skip("this machine has a GPU of NVIDIA")
    assert tensorrt_version("libnvinfer-of-nobody.so.10") == ""
    import onnxruntime

    with pytest.raises(DeviceError, match="shows no GPU") as caught:
        engines_of(model, RuntimeOptions(device="tensorrt"), {}, onnxruntime, model.parent)
    assert "nvidia-smi" in caught.value.hint


CUDA = """
#include <string.h>
int cuInit(unsigned flags) { return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal > 1 ? 101 : 0; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, device ? "RTX A2000" : "Orin", length); return 0; }
int cuDeviceGetAttribute(int *value, int number, int device) {
  *value = number == 75 ? 8 : number == 76 ? 7 - device : -1;
  return 0;
}
int getInferLibVersion(void) { return 100300; }
"""


def test_the_driver_is_asked_as_its_interface_says(tmp_path: Path) -> None:
    """A library with the functions that NVIDIA's has, since no GPU is at hand."""
    if not shutil.which("gcc"):
        pytest.skip("gcc makes the library")
    library, source = tmp_path / "libcuda.so.1", tmp_path / "cuda.c"
    source.write_text(CUDA)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)
    assert read_gpu(0, str(library)) == ORIN
    assert read_gpu(1, str(library)) == Gpu(name="RTX A2000", sm="86")
    assert read_gpu(2, str(library)) is None
    assert tensorrt_version(str(library)) == "10.3.0"


def test_a_tegra_is_known_by_its_device_tree(tmp_path: Path) -> None:
    assert not nvidia.is_jetson(tmp_path)
    tree = tmp_path / "sys/firmware/devicetree/base"
    tree.mkdir(parents=True)
    (tree / "compatible").write_bytes(b"nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0")
    assert nvidia.is_jetson(tmp_path)
