"""What tuning and choosing need to know of the machine at hand."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from edgecv.devices.detect import Device, detect

# Which runtime and precision is tried first where nothing was measured: INT8 before float, since a bundle holds INT8 only where
# it kept the accuracy. By CPU class; from the tables of docs/benchmarks.md (x86) and devices.md section 5 (Arm: XNNPACK).
_RUNTIMES = {
    "x86-vnni": ("openvino", "onnxruntime", "litert"),
    "x86": ("openvino", "onnxruntime", "litert"),
    "arm64": ("litert", "onnxruntime", "openvino"),
    "other": ("onnxruntime", "litert", "openvino"),
}
_PRECISIONS = ("int8", "fp32", "fp16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine, as far as tuning asks."""

    fingerprint: str
    profile: str  # whose order is used where nothing was measured
    order: tuple[tuple[str, str], ...]  # (precision, runtime), the first choice first
    usable_cpus: int  # threads that can compute at once
    big_cores: int  # cores of the fastest kind where there are several kinds, else 0
    power_mode: str  # empty where there are none
    runtimes: dict[str, str]  # installed, with their versions


def order_of(runtimes: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Precision before runtime: the slowest INT8 runtime is faster than the quickest in float, on every CPU measured."""
    return tuple((precision, runtime) for precision in _PRECISIONS for runtime in runtimes)


@cache
def this_machine() -> Machine:
    """The machine at hand; it is looked at once."""
    return machine_of(detect())


def machine_of(device: Device) -> Machine:
    """What tuning needs of a device."""
    named = f"{device.board.name}|{device.arch}|{device.cpu.model}|{device.cpu.cores}|{_memory_class(device)}"
    return Machine(
        fingerprint=hashlib.sha256(named.encode()).hexdigest(),
        profile=device.cpu.cpu_class,
        order=order_of(_RUNTIMES[device.cpu.cpu_class]),
        usable_cpus=device.usable_cores,
        big_cores=0,
        power_mode="",
        runtimes=device.runtimes,
    )


def _memory_class(device: Device) -> int:
    """Main memory as a power of two, which the firmware's share does not change."""
    total = device.memory.total_bytes
    return 0 if not total else round(total / 2**30).bit_length()
