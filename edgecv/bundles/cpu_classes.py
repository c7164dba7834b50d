"""CPU classes: INT8 variants are built for them, devices report them, and ``--target`` takes them."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

BuiltFor = Literal["x86-vnni", "x86", "arm64"]
CpuClassName = BuiltFor | Literal["other"]
CPU_CLASS_NAMES: tuple[BuiltFor, ...] = get_args(BuiltFor)

# Devices, as `RuntimeOptions` names them, and which variants suit them: TensorRT takes float files as well, an
# Edge TPU takes its own alone.
ACCELERATORS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"tensorrt": ("tensorrt", ""), "edgetpu": ("edgetpu",), "coral": ("edgetpu",)}
)

# Names as `platform.machine()` gives them on Linux, macOS and Windows.
_X86 = frozenset({"x86_64", "amd64"})
_ARM64 = frozenset({"aarch64", "arm64"})
_VNNI = frozenset({"avx_vnni", "avx512_vnni", "amx_int8"})  # without one of them U8S8 products saturate at 16 bits
_BF16 = frozenset({"amx_bf16", "avx512_bf16"})


def cpu_class_of(machine: str, flags: frozenset[str] | None) -> CpuClassName:
    """The class of a processor, from what ``platform.machine()`` says and what it can do, as in ``/proc/cpuinfo``.

    ``flags`` are ``None`` where nobody says what it can do, which is held against none.
    """
    machine = machine.lower()
    if machine in _X86:
        return "x86-vnni" if flags is None or _VNNI & flags else "x86"
    return "arm64" if machine in _ARM64 else "other"


def suits(cpu_class: str, machine: str, flags: frozenset[str] | None) -> bool:
    """Whether a variant built for ``cpu_class`` is right for a processor, which is given as in ``cpu_class_of``.

    Any will do for an empty class; a class that this release does not know suits none.
    """
    if cpu_class not in CPU_CLASS_NAMES:
        return not cpu_class
    own = cpu_class_of(machine, flags)
    return cpu_class == own or (cpu_class == "x86" and own == "x86-vnni")


def suits_device(cpu_class: str, device: str) -> bool:
    """Whether a variant built for ``cpu_class`` is right for ``device``, an accelerator by its name or a device of this machine."""
    if device in ACCELERATORS:
        return cpu_class in ACCELERATORS[device]
    return suits_this_machine(cpu_class)


def suits_this_machine(cpu_class: str) -> bool:
    """Whether a variant built for ``cpu_class`` is right for the machine at hand."""
    return suits(cpu_class, platform.machine(), _flags())


@cache
def saturates_int8() -> bool:
    """Whether this machine's processor adds two products of int8 in 16 bits, as x86 without VNNI does."""
    return suits_this_machine("x86") and not suits_this_machine("x86-vnni")


@cache
def has_bf16() -> bool:
    """Whether this machine's processor computes in bfloat16."""
    return bool(_BF16 & (_flags() or frozenset()))


def is_x86(machine: str) -> bool:
    """Whether a machine is an x86 of 64 bits, by what ``platform.machine()`` says."""
    return machine.lower() in _X86


def _flags() -> frozenset[str] | None:
    if not is_x86(platform.machine()):
        return None  # in an emulated machine the file tells the flags of the processor below
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    found = next((line.partition(":")[2] for line in lines if line.startswith("flags")), None)
    return None if found is None else frozenset(found.split())
