"""NVIDIA's libraries, asked without any package of NVIDIA: which GPU, which TensorRT, which driver, and what is missing.

NVML answers nothing on a Jetson, so the driver's own library is asked (CUDA Driver API: ``cuDeviceGetName``,
``cuDeviceGetAttribute``). Not run on a GPU: none was at hand.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_CUDA = "libcuda.so.1"
_SM_MAJOR, _SM_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_NAME_BYTES = 256
_LDD_LINE = re.compile(r"^\s*(\S+) => (not found|/\S+)", re.MULTILINE)
_LDD_S = 20
_DRIVER = re.compile(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b")
_L4T = re.compile(r"# R(\d+) \(release\), REVISION: ([\d.]+)")
# What the packages on the index bring; a system's own libraries are found by the loader.
_TENSORRT_PACKAGES = ("tensorrt_libs", "tensorrt_cu13_libs", "tensorrt_cu12_libs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU as the driver names it: ``name``, and ``sm``, its compute capability as two digits such as ``87``."""

    name: str
    sm: str


def read_gpu(ordinal: int = 0, library: str = _CUDA) -> Gpu | None:
    """The GPU with a number; ``None`` without the driver's library or such a GPU."""
    with contextlib.suppress(OSError, AttributeError):
        cuda = ctypes.CDLL(library)
        device, name = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
        if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), ordinal):
            return None
        if cuda.cuDeviceGetName(name, _NAME_BYTES, device):
            return None
        return Gpu(name=name.value.decode(errors="replace"), sm="".join(_attributes(cuda, device)))
    return None


def _attributes(cuda: Any, device: ctypes.c_int) -> list[str]:
    found = []
    for number in (_SM_MAJOR, _SM_MINOR):
        value = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(value), number, device)
        found.append(str(value.value))
    return found


def tensorrt_version(library: str) -> str:
    """Version of a ``libnvinfer.so``; empty when it cannot be loaded."""
    with contextlib.suppress(OSError, AttributeError):
        return version_text(int(ctypes.CDLL(library).getInferLibVersion()))
    return ""


def version_text(number: int) -> str:
    """``getInferLibVersion`` in words: 8601 is 8.6.1, and from TensorRT 10 on 100300 is 10.3.0."""
    if number >= 100_000:
        return f"{number // 10_000}.{number // 100 % 100}.{number % 100}"
    return f"{number // 1000}.{number // 100 % 10}.{number % 100}"


def driver_version(root: Path = Path("/")) -> str:
    """Release of Jetson Linux, else of NVIDIA's kernel driver; empty where neither says it."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if found := _L4T.search((root / "etc/nv_tegra_release").read_text()):
            return f"L4T {found.group(1)}.{found.group(2)}"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if found := _DRIVER.search((root / "proc/driver/nvidia/version").read_text()):
            return found.group(1)
    return ""


def is_jetson(root: Path = Path("/")) -> bool:
    """Whether GPU and CPU share the memory of a Tegra chip."""
    for place in ("proc/device-tree/compatible", "sys/firmware/devicetree/base/compatible"):
        with contextlib.suppress(OSError):
            return b"nvidia,tegra" in (root / place).read_bytes()
    return False


def linked(library: Path) -> dict[str, str]:
    """The libraries that one needs, each with its path; an empty path where the system's loader finds none."""
    try:
        done = subprocess.run(["ldd", library], capture_output=True, text=True, timeout=_LDD_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return parse_ldd(done.stdout)


def parse_ldd(text: str) -> dict[str, str]:
    """What ``ldd`` printed: name to path, empty where it says ``not found``."""
    return {name: "" if path == "not found" else path for name, path in _LDD_LINE.findall(text)}


def missing_libraries(needed: Mapping[str, str], is_loadable: Callable[[str], bool] | None = None) -> tuple[str, ...]:
    """Names of what is not there: the loader does not find it, and nothing has loaded it before."""
    can_load = is_loadable or _can_load
    return tuple(name for name, path in needed.items() if not path and not can_load(name))


def _can_load(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


@cache
def preload(runtime: Any) -> None:
    """Load CUDA, cuDNN and TensorRT where they came as Python packages: the system's loader does not look there."""
    if hasattr(runtime, "preload_dlls"):
        with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(Exception):  # it prints what it does not find
            runtime.preload_dlls()
    for package in _TENSORRT_PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for name in ("libnvinfer.so.*", "libnvinfer_plugin.so.*", "libnvonnxparser.so.*"):
                for path in sorted(Path(folder).glob(name)):
                    with contextlib.suppress(OSError):
                        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
