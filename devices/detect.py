"""What this device is: board, processor, memory, accelerators, installed runtimes. Nothing is opened
or started, so it is safe beside a running pipeline."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

from edgecv.devices.cpu import Cpu, numbers_of, read_cpu
from edgecv.devices.device import Device
from edgecv.devices.facts import system
from edgecv.devices.facts.accelerators import Around, may_open, read_accelerators
from edgecv.devices.facts.board import container_of, read_board
from edgecv.devices.facts.jetson import read_jetson, read_power_mode
from edgecv.devices.roots import Roots, read_text
from edgecv.runtimes.cpu_budget import cpu_quota, within_quota


def detect(
    roots: Roots | None = None,
    arch: str = "",
    *,
    may_open: Callable[[Path], bool] = may_open,
    version_of: Callable[[str], str] = system.version_of,
) -> Device:
    """Read what the machine tells about itself; what it does not tell stays empty or ``None``.

    Args:
        roots: Where to read; this machine by default.
        arch: As ``uname -m`` says; this machine's by default.
        may_open: Whether this user may read and write a device node.
        version_of: The installed version of a Python package, empty without one: for accelerators.
    """
    roots, arch = roots or Roots(), arch or platform.machine()
    cpuinfo = read_text(roots.proc / "cpuinfo")
    allowed = system.allowed_cpus(roots)
    cpu = read_cpu(cpuinfo, arch, allowed, system.max_khz(roots))
    board, memory = read_board(roots, cpu), system.read_memory(roots, cpuinfo)
    jetson, container = read_jetson(roots, board), container_of(roots)
    around = Around(
        may_open=may_open, version_of=version_of, container=container, jetpack=jetson.jetpack if jetson else ""
    )
    accelerators = read_accelerators(roots, board.compatible, around)
    quota = cpu_quota(roots.proc, roots.sys / "fs/cgroup")
    usable = _usable_cores(cpu, cpuinfo, allowed)
    return Device(
        board=board,
        arch=arch,
        cpu=cpu,
        usable_cores=usable,
        quota_cpus=quota,
        effective_cpus=within_quota(usable, quota),
        memory=memory,
        os=system.os_name(read_text(roots.etc / "os-release")),
        kernel=read_text(roots.proc / "sys/kernel/osrelease") or platform.release(),
        page_bytes=system.page_bytes(),
        libc=system.libc(),
        python=platform.python_version(),
        container=container,
        jetson=jetson,
        power_mode=read_power_mode(roots),
        accelerators=accelerators,
        runtimes=system.installed_runtimes(),
        fingerprint=system.fingerprint(board, arch, cpu, memory, accelerators),
    )


def _usable_cores(cpu: Cpu, cpuinfo: str, allowed: frozenset[int] | None) -> int:
    """The CPUs that are online and allowed. The list of allowed ones may also name some that could be plugged in."""
    there = numbers_of(cpuinfo)
    usable = there if allowed is None else allowed & there if there else allowed
    return max(1, len(usable) or cpu.cores)
