"""TensorRT engines: where they lie, which options they are built with, and that nobody builds one unasked (docs/adr/0018).

Not run on TensorRT: no board was at hand. Which folder, which options and which refusal follow is decided here, by functions
that need no GPU.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgecv._internal.atomic import Kind, new_folder
from edgecv._internal.printable import printable
from edgecv.bundles.opened_files import OpenedModel, path_of
from edgecv.errors import ConfigError, DeviceError
from edgecv.runtimes.accelerators import nvidia
from edgecv.runtimes.accelerators.compiled import CompiledKey, compiled_root, content_hash, why_not_kept
from edgecv.runtimes.accelerators.providers import (
    PROVIDER_LIBRARIES,
    WORKSPACE,
    cache_options,
    check_linked,
    tensorrt_options,
)
from edgecv.runtimes.cpu_budget import memory_limit
from edgecv.specs import RuntimeOptions

BUILD = "build_engine"  # of `RuntimeOptions.extra`: `edgecv tune` says so, or a program that may wait
TENSORRT = "TensorrtExecutionProvider"
_MARK = "engine.json"
_WORKSPACE_BYTES = 1 << 30
_NVINFER = re.compile(r"libnvinfer\.so(\.\d+)+")
# What has the name of a folder of engines is one, if only of a build that was not ended: a new one takes its place.
_FOLDER = Kind(name="a folder of engines", other=lambda path: "" if path.is_dir() else "a file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """The engines of one model on this machine.

    Attributes:
        folder: Theirs alone.
        timing: For the times of kernels, which all models on this hardware share.
        key: What they depend on.
        options: What TensorRT is asked for, without its folders.
    """

    folder: Path
    timing: Path
    key: CompiledKey
    options: Mapping[str, str]

    @property
    def are_built(self) -> bool:
        """Whether a build was ended here: the mark is written last, and the folder appears as a whole."""
        return (self.folder / _MARK).is_file() and bool(self.files())

    def files(self) -> set[str]:
        """Names of the engines that lie there."""
        return {path.name for path in self.folder.glob("*.engine")}

    def provider_options(self, folder: Path | None = None) -> dict[str, str]:
        """All options of the provider, which reads and writes engines in ``folder``."""
        return {**self.options, **cache_options(folder or self.folder, self.timing)}

    def check_built(self, model: Path) -> None:
        """Refuse to go on without engines.

        Raises:
            DeviceError: there are none for this model, GPU and these versions.
        """
        if self.are_built:
            return
        raise DeviceError(
            f"TensorRT has no engine of {printable(model.name)} for this GPU and these versions: building one may take minutes, "
            "and is never done unasked.",
            how_to_build(model),
        )

    def begin(self) -> Any:
        """A folder to build in, which takes its name when the block ends well; see ``new_folder``.

        Raises:
            ConfigError: the cache cannot be written.
        """
        for folder in (self.folder.parent, self.timing):
            if reason := why_not_kept(folder):
                raise ConfigError(
                    f"TensorRT's engines cannot be kept in {printable(str(folder))}: {reason}.",
                    "Set EDGECV_CACHE, or cache_dir, to a folder that this user may write.",
                )
        return new_folder(self.folder, force=True, kind=_FOLDER)

    def mark(self, folder: Path) -> None:
        """Write down in a folder what its engines were built for.

        Raises:
            DeviceError: there is no engine in it.
        """
        if not any(folder.glob("*.engine")):
            raise DeviceError(
                "TensorRT built no engine of this model.", "See what it can use: edgecv info BUNDLE --lint tensorrt"
            )
        document = msgspec.json.encode(msgspec.to_builtins(self.key))
        (folder / _MARK).write_bytes(msgspec.json.format(document, indent=2) + b"\n")


def engines_of(
    model: Path | OpenedModel, options: RuntimeOptions, given: Mapping[str, str], runtime: Any, package: Path
) -> Engines:
    """The engines of a model on the machine at hand.

    Args:
        model: What shall run.
        options: How; ``cache_dir`` is the root of the folders.
        given: Options of TensorRT that the caller sets himself, which win.
        runtime: The module ``onnxruntime``.
        package: Folder of its libraries.

    Raises:
        DeviceError: the driver shows no such GPU, or the loader does not find a library of TensorRT.
        ConfigError: there is no folder to keep engines in.
    """
    number = int(given.get("device_id", "0"))
    gpu = nvidia.read_gpu(number)
    if gpu is None:
        raise DeviceError(
            f"NVIDIA's driver shows no GPU {number}: libcuda.so.1 is missing, or finds none of that number.",
            "Look at: nvidia-smi, on a Jetson tegrastats; in a container: docker run --runtime nvidia IMAGE",
        )
    check_linked(TENSORRT, package)
    version = nvidia.tensorrt_version(_nvinfer(nvidia.linked(package / PROVIDER_LIBRARIES[TENSORRT])))
    versions = {"onnxruntime": str(runtime.__version__), "tensorrt": version, "driver": nvidia.driver_version()}
    return place_engines(model, options, given, gpu, versions)


def place_engines(
    model: Path | OpenedModel,
    options: RuntimeOptions,
    given: Mapping[str, str],
    gpu: nvidia.Gpu,
    versions: Mapping[str, str],
) -> Engines:
    """The same for a GPU and versions that are known; ``given`` as in ``engines_of``."""
    asked = {**tensorrt_options(options.precision, versions["tensorrt"], _workspace_bytes()), **given}
    key = CompiledKey(
        runtime="onnxruntime",
        device="tensorrt",
        hardware=f"{gpu.name} sm{gpu.sm}",
        versions=versions,
        model=content_hash(model),
        # Our limit of memory differs with a service's own; an engine that was built with less is as right.
        options={name: value for name, value in asked.items() if name != WORKSPACE or name in given},
    )
    root = compiled_root(options.cache_dir)
    if root is None:
        raise ConfigError("There is no folder to keep TensorRT's engines in.", "Set EDGECV_CACHE to one, or cache_dir.")
    machine, path = root / key.machine_folder(), path_of(model)
    return Engines(
        folder=machine / key.model_folder(_readable_name(path)),
        timing=machine / "timing",
        key=key,
        options=asked,
    )


def workspace_bytes(is_jetson: bool, memory_bytes: int) -> int:
    """Memory for the trials of a build: 1 GiB, and a quarter of all where the GPU shares it with the processor."""
    return memory_bytes // 4 if is_jetson else _WORKSPACE_BYTES


def bundle_of(path: Path) -> Path:
    """The bundle that a model file stands in; the file itself outside of one."""
    return next((folder for folder in path.parents if (folder / "bundle.json").is_file()), path)


def how_to_build(model: Path) -> str:
    """The next step of someone whose model has no engine."""
    bundle = bundle_of(model)
    if bundle == model:
        program = f"edgecv.load(..., device='tensorrt', extra={{'{BUILD}': True}})"
        return f"A program that may wait builds it: {program}. Of a bundle, edgecv tune does."
    return f"Build it once: edgecv tune {printable(str(bundle))} --device tensorrt"


def _readable_name(path: Path) -> str:
    bundle = bundle_of(path)
    return path.stem if bundle == path else " ".join([bundle.stem, *path.relative_to(bundle).with_suffix("").parts])


def _workspace_bytes() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return workspace_bytes(nvidia.is_jetson(), min(memory, memory_limit() or memory))


def _nvinfer(needed: Mapping[str, str]) -> str:
    """Which TensorRT the provider was linked with: by path, or by name where only a preloaded one fits."""
    return next((path or name for name, path in needed.items() if _NVINFER.fullmatch(name)), "libnvinfer.so")
