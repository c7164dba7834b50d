"""The processor, as ``/proc/cpuinfo`` tells it, and what of it matters for INT8.

Decisions look at the features of the cores that this process may use; names of parts are for people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgecv.bundles.cpu_classes import CpuClassName, cpu_class_of, is_x86
from edgecv.devices.tables import core_names

# Names as the kernel writes them (arch/x86/include/asm/cpufeatures.h, arch/arm64/kernel/cpuinfo.c): instructions that
# INT8, half and bfloat16 kernels of the runtimes choose by.
_X86_FEATURES = ("sse4_2", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
_ARM_FEATURES = ("neon", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme")

Core = dict[str, str]
"""What ``/proc/cpuinfo`` says of one core, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The cores of one kind.

    Attributes:
        name: For people, such as ``Cortex-A76``.
        implementer: Number of the maker on Arm, such as ``0x41``; the vendor on x86.
        part: Number of the design on Arm, such as ``0xd0b``; family, model and stepping on x86.
        cores: How many there are.
        usable_cores: How many of them this process may run on.
        usable: The numbers of those.
        max_mhz: The highest clock that their frequency driver knows; ``None`` without one, as in virtual machines.
        features: Of the instructions that matter for INT8, those that each of these cores has.
    """

    name: str
    implementer: str
    part: str
    cores: int
    usable_cores: int
    usable: tuple[int, ...]
    max_mhz: int | None
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """The processor of a device.

    Attributes:
        model: Its name; of several kinds of cores each with its count; empty when nothing says it.
        cores: Logical cores; 0 when nothing says it.
        clusters: The kinds of cores, in the order of the first core of each.
        features: Of the instructions that matter for INT8, those that every usable core has.
        cpu_class: The class of the processor, as variants of bundles and ``--target`` name it, by the usable cores.
        virtual: Whether a hypervisor says it stands below.
    """

    model: str
    cores: int
    clusters: tuple[Cluster, ...]
    features: tuple[str, ...]
    cpu_class: CpuClassName
    virtual: bool


def read_cpu(
    cpuinfo: str, arch: str, allowed: frozenset[int] | None = None, max_khz: dict[int, int] | None = None
) -> Cpu:
    """Read the text of ``/proc/cpuinfo`` of a machine with the architecture ``arch`` (``uname -m``).

    Cores of another architecture are counted and not described: qemu shows an emulated program the processor below.

    Args:
        cpuinfo: The text.
        arch: The architecture.
        allowed: The CPUs that this process may run on; ``None``: all.
        max_khz: The highest clock of each CPU, where it is known.
    """
    cores = [_described(core, arch) for core in _cores(cpuinfo)]
    usable = [core for core in cores if _may_use(core, allowed)]
    everywhere = _common_flags(usable or cores)
    return Cpu(
        model=_model(cores),
        cores=len(cores),
        clusters=_clusters(cores, allowed, max_khz or {}),
        features=_known(everywhere),
        cpu_class=cpu_class_of(arch, everywhere),
        virtual="hypervisor" in everywhere,
    )


def numbers_of(cpuinfo: str) -> frozenset[int]:
    """The numbers of the CPUs that ``/proc/cpuinfo`` lists: those that are online."""
    return frozenset(_number(core) for core in _cores(cpuinfo))


def _known(flags: frozenset[str]) -> tuple[str, ...]:
    return tuple(name for name in (*_X86_FEATURES, *_ARM_FEATURES) if name in flags)


def _cores(cpuinfo: str) -> list[Core]:
    """One mapping per logical core; blocks without ``processor`` (board details at the end on ARM) are left out."""
    blocks = [_fields(block) for block in cpuinfo.split("\n\n")]
    return [block for block in blocks if block.get("processor", "").isdecimal()]


def _described(core: Core, arch: str) -> Core:
    """The core, or no more than its number if what it can do is said as another architecture says it."""
    foreign = "Features" if is_x86(arch) else "flags"
    return {"processor": core["processor"]} if foreign in core else core


def _fields(block: str) -> Core:
    pairs = (line.partition(":") for line in block.splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def _number(core: Core) -> int:
    return int(core["processor"][:6])


def _may_use(core: Core, allowed: frozenset[int] | None) -> bool:
    return allowed is None or _number(core) in allowed


def _common_flags(cores: Iterable[Core]) -> frozenset[str]:
    sets = [frozenset((core.get("flags") or core.get("Features") or "").split()) for core in cores]
    return frozenset.intersection(*sets) if sets else frozenset()


def _clusters(cores: Sequence[Core], allowed: frozenset[int] | None, max_khz: dict[int, int]) -> tuple[Cluster, ...]:
    kinds: dict[tuple[str, str], list[Core]] = {}
    for core in cores:
        kinds.setdefault(_kind(core), []).append(core)
    return tuple(_cluster(kind, alike, allowed, max_khz) for kind, alike in kinds.items())


def _cluster(
    kind: tuple[str, str], cores: Sequence[Core], allowed: frozenset[int] | None, max_khz: dict[int, int]
) -> Cluster:
    usable = tuple(_number(core) for core in cores if _may_use(core, allowed))
    clocks = [max_khz[_number(core)] for core in cores if _number(core) in max_khz]
    return Cluster(
        name=_core_name(cores[0]),
        implementer=kind[0],
        part=kind[1],
        cores=len(cores),
        usable_cores=len(usable),
        usable=usable,
        max_mhz=max(clocks) // 1000 if clocks else None,
        features=_known(_common_flags(cores)),
    )


def _kind(core: Core) -> tuple[str, str]:
    """(implementer, part): the one pair that tells designs apart."""
    if "CPU part" in core:
        return core.get("CPU implementer", ""), core["CPU part"]
    numbers = [core[name] for name in ("cpu family", "model", "stepping") if name in core]
    return core.get("vendor_id", ""), "-".join(numbers)


def _model(cores: Sequence[Core]) -> str:
    counts = Counter(_core_name(core) for core in cores)
    if len(counts) == 1:
        return next(iter(counts))
    return " + ".join(f"{count} x {name}" for name, count in counts.items())


def _core_name(core: Core) -> str:
    implementer, part = _kind(core)
    if name := core_names().get(f"{implementer} {part}"):
        return name  # "model name" says no more than ARMv8 there
    return core.get("model name") or (f"ARM part {part}" if "CPU part" in core else "")
