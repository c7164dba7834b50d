"""OpenVINO's devices beside the CPU: whether they are there, what they are asked for, and where compiled models are kept.

Not run on a GPU or an NPU: none was at hand. AUTO was run where it has nothing but a CPU to choose.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgecv._internal.printable import printable
from edgecv.bundles.opened_files import OpenedModel, path_of
from edgecv.errors import ConfigError, DeviceError, SessionError
from edgecv.runtimes.accelerators.compiled import CompiledKey, compiled_root, content_hash, why_not_kept
from edgecv.specs import RuntimeOptions, TensorSpec

PRECISION_HINT = "INFERENCE_PRECISION_HINT"
_DRIVERS: Mapping[str, str] = MappingProxyType(
    {
        "GPU": "Its driver is a package of its own: sudo apt-get install intel-opencl-icd; you must be in the group render.",
        "NPU": "Its driver is a package of its own: sudo snap install intel-npu-driver; you must be in the group render.",
    }
)
# What tells one device from another, as far as it says it.
_IDENTITY = (
    "FULL_DEVICE_NAME",
    "DEVICE_ARCHITECTURE",
    "NPU_DRIVER_VERSION",
    "NPU_COMPILER_VERSION",
    "GPU_UARCH_VERSION",
)
_OURS = ("CACHE_DIR",)

log = logging.getLogger("edgecv.runtimes")


def check_config(config: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` for a property that is EdgeCV's: what is kept is found again by where it lies."""
    taken = next((name for name in config if name in _OURS), None)
    if taken is not None:
        raise ConfigError(f"{taken} is EdgeCV's own.", "Choose the folder with cache_dir, or EDGECV_CACHE.")


def find_device(wanted: str, list_devices: Callable[[], Sequence[str]]) -> str:
    """The device as OpenVINO calls it.

    Args:
        wanted: ``cpu``, ``gpu``, ``gpu.1``, ``npu``, ``auto``, or ``auto:gpu,cpu``: the best of those.
        list_devices: What OpenVINO finds here. It is not asked for ``cpu`` and ``auto``: that loads the plug-ins of all, 20 MB.

    Raises:
        DeviceError: it is not there. ``auto`` always is.
    """
    device = wanted.upper()
    kind, _, choices = device.partition(":")
    if device in ("CPU", "AUTO"):
        return device
    there = list(list_devices())
    asked = choices.split(",") if kind == "AUTO" else [device]
    missing = next((one for one in asked if not _is_there(one.strip(), there)), None)
    if missing is None:
        return device
    hint = _DRIVERS.get(missing.partition(".")[0], "Known: cpu, gpu, npu, auto.")
    raise DeviceError(
        f"OpenVINO finds no device '{missing.lower()}' here (it finds {', '.join(there)}).",
        f"{hint} `edgecv doctor` says what is missing; or use device='cpu'.",
    )


def _is_there(device: str, there: Sequence[str]) -> bool:
    """``GPU`` and ``GPU.0`` are the first one, which is listed under either name."""
    kind, _, number = device.partition(".")
    return device in there or (number in ("", "0") and bool({kind, f"{kind}.0"}.intersection(there)))


def properties(device: str, options: RuntimeOptions, capabilities: Sequence[str]) -> dict[str, Any]:
    """What an accelerator is asked for, without the folder of its cache.

    Threads are of the CPU: only AUTO, which may choose it, hands them on. A device other than the CPU computes in float16
    by itself; files of float32 stay in float32 where it can.

    Args:
        device: As ``find_device`` gives it.
        options: How to run; ``extra["config"]`` wins.
        capabilities: What the device says that it computes in.
    """
    asked: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if device.startswith("AUTO"):
        threads = {"INFERENCE_NUM_THREADS": options.threads} if options.threads else {}
        # Else it begins on the CPU while it compiles, and goes on there when the device fails: nobody would know where. Whoever
        # names the CPU in the list allows the latter; without it AUTO would strike the CPU from the list.
        asked |= {"ENABLE_STARTUP_FALLBACK": False, "ENABLE_RUNTIME_FALLBACK": "CPU" in device}
        asked["DEVICE_PROPERTIES"] = {"CPU": {PRECISION_HINT: "f32", **threads}}
    elif options.precision == "fp32" and "FP32" in capabilities:
        asked[PRECISION_HINT] = "f32"
    if device.startswith("GPU") and options.lanes > 1:
        asked["NUM_STREAMS"] = options.lanes
    return asked | dict(options.extra.get("config", {}))


def cache_folder_of(core: Any, device: str, model: Path | OpenedModel, options: RuntimeOptions, version: str) -> str:
    """Where what is compiled for this device is kept; empty where that is nowhere, such as for a user without a home.

    Raises:
        ConfigError: ``cache_dir`` cannot be written.
    """
    root = compiled_root(options.cache_dir)
    if root is None:
        return ""
    kinds = [device] if not device.startswith("AUTO") else list(core.available_devices)
    key = CompiledKey(
        runtime="openvino",
        device=device.lower(),
        hardware=", ".join(_identity(core, kind) for kind in kinds),
        versions={"openvino": version},
        model=content_hash(model),
        options={"precision": options.precision},
    )
    folder = root / key.machine_folder() / key.model_folder(path_of(model).stem)
    reason = "" if any(folder.glob("*.blob")) else why_not_kept(folder)  # what was kept before is read from any folder
    if reason and options.cache_dir:
        raise ConfigError(
            f"{options.cache_dir} cannot keep what OpenVINO compiles: {reason}.", "Choose another cache_dir."
        )
    if reason:
        log.warning("What OpenVINO compiles is not kept: %s: %s.", printable(str(root)), reason)
    return "" if reason else str(folder)


def _identity(core: Any, device: str) -> str:
    found = []
    for name in _IDENTITY:
        with contextlib.suppress(RuntimeError):  # a property that this device does not have
            found.append(str(core.get_property(device, name)))
    return " ".join(found) or device


def fix_shapes(network: Any, inputs: Sequence[TensorSpec], device: str, name: str) -> None:
    """Give a network with open dimensions those of its specs: accelerators compile for fixed shapes.

    Raises:
        SessionError: the specs leave them open, too, and the device is an NPU, which takes no such network.
    """
    if not network.is_dynamic():
        return
    if inputs and all(size > 0 for spec in inputs for size in spec.shape):
        network.reshape({spec.name: list(spec.shape) for spec in inputs})
    elif device.startswith("NPU"):
        raise SessionError(
            f"{name} leaves dimensions of its input open, and the NPU takes fixed shapes only.",
            "Convert the model with --imgsz, or use device='cpu'.",
        )


def chosen_devices(compiled: Any, device: str) -> tuple[str, ...]:
    """The device that was asked for, and after AUTO the one that it chose."""
    if not device.startswith("AUTO"):
        return (device,)
    return ("AUTO", *(name.strip("()") for name in compiled.get_property("EXECUTION_DEVICES")))


def is_from_cache(compiled: Any) -> bool:
    """Whether it was compiled by an earlier process."""
    with contextlib.suppress(RuntimeError):
        return bool(compiled.get_property("LOADED_FROM_CACHE"))
    return False
