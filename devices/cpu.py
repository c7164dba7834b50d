"""The processor, as ``/proc/cpuinfo`` tells it, and what of it matters for INT8."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgecv.bundles.cpu_classes import CpuClassName, cpu_class_of

# Names as the kernel writes them (arch/x86/include/asm/cpufeatures.h, arch/arm64/kernel/cpuinfo.c): instructions that
# INT8, half and bfloat16 kernels of the runtimes choose by.
_X86_FEATURES = ("sse4_2", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
_ARM_FEATURES = ("neon", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme")
_ARM_LIMITED = "0x41"  # implementer number of Arm's own designs
# Part numbers of the MIDR_EL1 register; source: util-linux sys-utils/lscpu-arm.c.
_ARM_PARTS: Mapping[str, str] = MappingProxyType(
    {
        "0xc07": "Cortex-A7",
        "0xd03": "Cortex-A53",
        "0xd04": "Cortex-A35",
        "0xd05": "Cortex-A55",
        "0xd07": "Cortex-A57",
        "0xd08": "Cortex-A72",
        "0xd09": "Cortex-A73",
        "0xd0a": "Cortex-A75",
        "0xd0b": "Cortex-A76",
        "0xd0c": "Neoverse-N1",
        "0xd0d": "Cortex-A77",
        "0xd40": "Neoverse-V1",
        "0xd41": "Cortex-A78",
        "0xd42": "Cortex-A78AE",
        "0xd44": "Cortex-X1",
        "0xd46": "Cortex-A510",
        "0xd47": "Cortex-A710",
        "0xd49": "Neoverse-N2",
        "0xd4b": "Cortex-A78C",
        "0xd4d": "Cortex-A715",
        "0xd4f": "Neoverse-V2",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """The processor of a device."""

    model: str  # its name; of several kinds of cores each with its count; empty when nothing says it
    cores: int  # logical cores; 0 when nothing says it
    features: tuple[str, ...]  # of the instructions that matter for INT8, those every core has
    cpu_class: CpuClassName  # the class of the processor, as variants of bundles and `--target` name it
    virtual: bool  # whether a hypervisor says it stands below


def read_cpu(cpuinfo: str, arch: str) -> Cpu:
    """Read the text of ``/proc/cpuinfo`` of a machine with the architecture ``arch`` (``uname -m``)."""
    cores = _cores(cpuinfo)
    everywhere = _common_flags(cores)
    features = tuple(name for name in (*_X86_FEATURES, *_ARM_FEATURES) if name in everywhere)
    return Cpu(
        model=_model(cores),
        cores=len(cores),
        features=features,
        cpu_class=cpu_class_of(arch, everywhere),
        virtual="hypervisor" in everywhere,
    )


def _cores(cpuinfo: str) -> list[dict[str, str]]:
    """One mapping per logical core; blocks without ``processor`` (board details at the end on ARM) are left out."""
    blocks = [_fields(block) for block in cpuinfo.split("\n\n")]
    return [block for block in blocks if "processor" in block]


def _fields(block: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in block.splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def _common_flags(cores: list[dict[str, str]]) -> frozenset[str]:
    sets = [frozenset((core.get("flags") or core.get("Features") or "").split()) for core in cores]
    return frozenset.intersection(*sets) if sets else frozenset()


def _model(cores: list[dict[str, str]]) -> str:
    counts = Counter(_core_name(core) for core in cores)
    if len(counts) == 1:
        return next(iter(counts))
    return " + ".join(f"{count} x {name}" for name, count in counts.items())


def _core_name(core: dict[str, str]) -> str:
    part = core.get("CPU part", "")
    if core.get("CPU implementer") == _ARM_LIMITED and part in _ARM_PARTS:
        return _ARM_PARTS[part]  # "model name" says no more than ARMv8 there
    return core.get("model name") or (f"ARM part {part}" if part else "")
