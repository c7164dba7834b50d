"""Runtimes: whether each computes on this processor, and releases that are known to be bad here."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from edgecv.devices.device import Device
from edgecv.devices.doctor.environment import Environment
from edgecv.devices.doctor.finding import Finding
from edgecv.devices.doctor.native import Native
from edgecv.devices.doctor.pairs import bad_pairs, fits
from edgecv.devices.profiles import profile_of
from edgecv.runtimes import DISTRIBUTIONS

_FOR_TENSORRT_10 = ">=1.18,<1.33"  # onnxruntime.ai, TensorRT execution provider, requirements
_SMALL_PAGE = 4096
_SMALL_PAGES = "echo kernel=kernel8.img | sudo tee -a /boot/firmware/config.txt && sudo reboot"


def pairs(device: Device, environment: Environment) -> Iterator[Finding]:
    """Releases that are known to be bad on this device."""
    yield from bad_pairs(device, environment.packages)


def tensorrt(device: Device, environment: Environment) -> Iterator[Finding]:
    """Whether the TensorRT that the loader finds is the one that onnxruntime-gpu was built for; JetPack brings a pair that fits."""
    version = environment.packages.get("onnxruntime-gpu", "")
    if device.jetson or not environment.tensorrt or not fits(version, _FOR_TENSORRT_10) or 10 in environment.tensorrt:
        return
    there = ", ".join(f"libnvinfer.so.{major}" for major in environment.tensorrt)
    yield Finding(
        id="onnxruntime-tensorrt",
        level="warn",
        what=f"onnxruntime-gpu {version} is built for TensorRT 10, and the loader finds {there}",
        why="It looks for libnvinfer.so.10: `--device tensorrt` will be refused.",
        fix="pip install 'tensorrt-cu13>=10.13,<11'",
    )


def runtimes(device: Device, environment: Environment) -> Iterator[Finding]:
    """What became of each runtime in a process of its own."""
    if not environment.natives:
        best = profile_of(device).runtimes["int8"][0]
        why = "Nothing can run a model. The one named here stands first in this board's profile."
        fix = f"pip install {DISTRIBUTIONS[best][0]}"
        yield Finding(id="runtimes", level="fail", what="no runtime is installed", why=why, fix=fix)
    for native in environment.natives:
        yield _judge(device, native)
        if native.gpu_error:
            yield _no_gpu(device, native)


def _judge(device: Device, native: Native) -> Finding:
    kind, name = f"runtime-{native.runtime}", f"{native.package} {native.version}".strip()
    if native.outcome == "ok":
        done = "computes a tiny model" if native.ran_model else "can be loaded"
        return Finding(id=kind, level="ok", what=f"{name} {done}")
    if native.outcome == "timeout":
        why = "The device is very slow or busy, or the library hangs while it is loaded."
        again = "uptime; edgecv doctor  # once more, when nothing else runs"
        return Finding(id=kind, level="warn", what=f"{name}: {native.detail}", why=why, fix=again)
    if native.outcome == "signal":
        return Finding(id=kind, level="fail", what=f"{name} ends its process: {native.detail}", **_crash(native))
    if _is_page_trouble(native.detail) and device.page_bytes > _SMALL_PAGE:
        why = f"The kernel has pages of {device.page_bytes // 1024} KiB, and the library is linked for 4 KiB."
        return Finding(id=kind, level="fail", what=f"{name}: {native.detail}", why=why, fix=_SMALL_PAGES)
    why = "It is installed, but does not load or compute."
    return Finding(id=kind, level="fail", what=f"{name}: {native.detail}", why=why, fix=_again(native))


def _crash(native: Native) -> dict[str, str]:
    if native.detail == "SIGILL" and native.version:
        why = "It uses an instruction that this processor does not have. An older release may not."
        return {"why": why, "fix": f"pip install {shlex.quote(f'{native.package}<{native.version}')}"}
    return {"why": "Its native code fails on this device, or its files are damaged.", "fix": _again(native)}


def _again(native: Native) -> str:
    return f"pip install --force-reinstall --no-cache-dir {shlex.quote(native.package)}"


def _is_page_trouble(detail: str) -> bool:
    return "page-aligned" in detail or "page size" in detail.lower()


def _no_gpu(device: Device, native: Native) -> Finding:
    return Finding(
        id=f"runtime-{native.runtime}-gpu",
        level="warn",
        what=f"{native.package} {native.version} is built for NVIDIA's GPU and cannot use it: {native.gpu_error}",
        why="`--device cuda` will be refused; models run on the processor.",
        fix="ldd $(python3 -c 'import onnxruntime as o; print(o.__path__[0])')/capi/libonnxruntime_providers_cuda.so"
        " | grep 'not found'"
        if not device.jetson
        else "docker run --runtime nvidia IMAGE"
        if device.container
        else "sudo apt-get install nvidia-jetpack",
    )
