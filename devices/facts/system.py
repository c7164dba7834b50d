"""The system: memory and its limits, distribution, pages, C library, installed runtimes; and the fingerprint of it all."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable

from edgecv import registry
from edgecv.devices.cpu import Cpu
from edgecv.devices.device import Accelerator, Board, Memory
from edgecv.devices.facts.board import fitted_bytes
from edgecv.devices.roots import Roots, below, cpu_numbers, read_int, read_text
from edgecv.runtimes import DISTRIBUTIONS
from edgecv.runtimes.cpu_budget import memory_limit


def read_memory(roots: Roots, cpuinfo: str) -> Memory:
    """What there is, what is free, and what a container allows."""
    meminfo = read_text(roots.proc / "meminfo")
    return Memory(
        total_bytes=bytes_of(meminfo, "MemTotal"),
        available_bytes=bytes_of(meminfo, "MemAvailable"),
        limit_bytes=memory_limit(roots.proc, roots.sys / "fs/cgroup"),
        fitted_bytes=fitted_bytes(cpuinfo),
    )


def os_name(os_release: str) -> str:
    """The name of the distribution in the text of ``os-release``; empty when it holds none."""
    fields = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    return fields.get("PRETTY_NAME", "").strip("\"' ")


def allowed_cpus(roots: Roots) -> frozenset[int] | None:
    """The CPUs that this process is bound to; ``None`` when nothing says it."""
    lines = read_text(roots.proc / "self/status").splitlines()
    said = next((line.partition(":")[2] for line in lines if line.startswith("Cpus_allowed_list:")), "")
    return cpu_numbers(said) or None


def max_khz(roots: Roots) -> dict[int, int]:
    """The highest clock of each CPU, as its frequency driver says; empty without one."""
    found: dict[int, int] = {}
    for policy in below(roots.sys / "devices/system/cpu/cpufreq", "policy*"):
        clock = read_int(policy / "cpuinfo_max_freq")
        if clock is not None and 0 < clock < 10**8:
            found |= dict.fromkeys(cpu_numbers(read_text(policy / "related_cpus")), clock)
    return found


def libc() -> str:
    """The C library of this Python; empty when it does not say."""
    return " ".join(part for part in platform.libc_ver() if part)


def page_bytes() -> int:
    """The size of a page of memory."""
    return os.sysconf("SC_PAGE_SIZE")


def version_of(package: str) -> str:
    """The installed version of a package, from its metadata; empty when it is not installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):
        return importlib.metadata.version(package) or ""
    return ""


def installed_runtimes() -> dict[str, str]:
    """Runtimes and their versions; nothing is imported. A plug-in is named by the package that registers it."""
    own = [package for packages in DISTRIBUTIONS.values() for package in packages]
    foreign = [point.dist.name for point in registry.entry_points("runtimes") if point.dist is not None]
    found = {package: version_of(package) for package in sorted({*own, *foreign})}
    return {package: version for package, version in found.items() if version}


def fingerprint(board: Board, arch: str, cpu: Cpu, memory: Memory, accelerators: Iterable[Accelerator]) -> str:
    """What makes two devices alike, as 16 hexadecimal digits; no serial number and no address is in it.

    A Coral changes its number on the bus when it is first used: the name counts, not the number. What only a node shows does
    not count, since a container may lack it.
    """
    said = {
        "board": [*board.compatible] or board.name,
        "arch": arch,
        "clusters": [[one.implementer, one.part or one.name, one.cores, one.max_mhz] for one in cpu.clusters],
        "memory_gib": _memory_class(memory),
        "accelerators": sorted({one.name for one in accelerators if one.id}),
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def _memory_class(memory: Memory) -> int:
    """Memory in GiB, rounded up to a power of two: what the kernel and the graphics take moves with every release."""
    size = memory.fitted_bytes or memory.total_bytes or 0
    return 1 << max(0, (size - 1 >> 30).bit_length()) if size else 0


def bytes_of(text: str, name: str) -> int | None:
    """A size in the text of ``/proc/meminfo`` or of a process's ``status``, which are in KiB; ``None`` without it."""
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    number = next(iter(fields.get(name, "").split()), "")
    return int(number) * 1024 if number.isascii() and number.isdecimal() and len(number) < 20 else None
