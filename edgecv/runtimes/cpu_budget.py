"""How much of the machine this process may use: the CPUs it is bound to, and the limits of its control groups.

A limit may stand at any level above the process, so every level up to the root counts, and the tightest one wins. Sources:
Linux, Documentation/admin-guide/cgroup-v2.rst (``cpu.max``, ``memory.max``), cgroup-v1/memory.rst, scheduler/sched-bwc.rst.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60  # version 1 writes the largest number of pages where there is no limit
_MOST_BYTES = 1 << 16


def effective_cpus() -> int:
    """How many threads of this process can compute at once: at least 1.

    It is the number of CPUs that the process is bound to, or its quota rounded up if that is less. Without this a session
    in a container with two CPUs of a server starts as many threads as the server has cores.
    """
    return within_quota(_bound_cpus(), cpu_quota())


def within_quota(cpus: int, quota: float | None) -> int:
    """``cpus``, or the quota rounded up if that is less; half a CPU is one thread."""
    return max(1, cpus if quota is None else min(cpus, math.ceil(quota)))


def cpu_quota(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> float | None:
    """CPUs' worth of time that the tightest control group above this process allows; ``None`` without a limit."""
    return min(_found(proc, cgroups, "cpu", _quota), default=None)


def memory_limit(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int | None:
    """Bytes that the tightest control group above this process allows; ``None`` without a limit."""
    found = min(_found(proc, cgroups, "memory", _memory), default=None)
    return None if found is None else int(found)


def _bound_cpus() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _found(proc: Path, cgroups: Path, controller: str, read: Callable[[Path], float | None]) -> Iterator[float]:
    for folder in _levels(proc, cgroups, controller):
        value = read(folder)
        if value is not None:
            yield value


def _levels(proc: Path, cgroups: Path, controller: str) -> Iterator[Path]:
    """The folders of the control groups of this process, from its own to the root, of both versions.

    The roots are looked at in any case: a container has its limits there, whatever it says about its place.
    """
    yield from (cgroups, cgroups / "unified", cgroups / controller)
    for line in _text(proc / "self/cgroup").splitlines():
        controllers, _, place = line.partition(":")[2].partition(":")
        if not controllers:
            mounts = (cgroups, cgroups / "unified")  # alone, or beside version 1
        elif controller in controllers.split(","):
            mounts = (cgroups / controllers, cgroups / controller)
        else:
            continue
        for mount in mounts:
            yield from _up(mount, place)


def _up(mount: Path, place: str) -> Iterator[Path]:
    """A folder and all above it. In a container the place may be that of the host: then only its root is there."""
    parts = [part for part in PurePosixPath(place).parts if part not in ("/", "..")]
    for count in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:count])


def _quota(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    if not quota:
        quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
    if not (_is_count(quota) and _is_count(period)):  # "max", -1, or torn
        return None
    return int(quota) / int(period)


def _memory(folder: Path) -> int | None:
    text = _text(folder / "memory.max") or _text(folder / "memory.limit_in_bytes")
    return int(text) if _is_count(text) and int(text) < _NO_LIMIT else None


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 20 and int(text) > 0


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return (file.read(_MOST_BYTES) or b"").decode(errors="replace").strip()
    except (OSError, ValueError):
        return ""
