"""Who used the processors: this process and its children, other programs, or the host of a virtual machine."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_IDLE, _IOWAIT, _STEAL, _GUEST = 3, 4, 7, 8  # columns of a cpu line in /proc/stat, see man 5 proc_stat
_USER_TICKS = 13  # column of utime in /proc/PID/stat, counted from 0; stime follows


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorTime:
    """Seconds of processor time since the start, on the processors that this process may use.

    Attributes:
        at_s: When it was read.
        cores: How many processors there are.
        busy_s: What anybody used.
        stolen_s: What the host of a virtual machine kept for itself.
        own_s: What this process and its children used.
    """

    at_s: float
    cores: int
    busy_s: float
    stolen_s: float
    own_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Parts of the usable processors' time, 0 to 1: what other programs used, and what the host kept."""

    foreign: float
    stolen: float


def read_processor_time(proc: Path = _PROC) -> ProcessorTime | None:
    """Read the counters of this moment; ``None`` where the kernel does not say, or says nothing but zeros."""
    usable = {f"cpu{number}" for number in usable_cpus()}
    try:
        lines = [line.split() for line in (proc / "stat").read_text().splitlines() if line.startswith("cpu")]
        columns = [[int(word) for word in words[1:]] for words in lines if words[0] in usable]
        own_ticks = sum(_ticks_of(proc, pid) for pid in ("self", *_children(proc)))
    except (OSError, ValueError, IndexError):
        return None
    if not any(map(sum, columns)) or any(len(row) <= _STEAL for row in columns):
        return None
    second = os.sysconf("SC_CLK_TCK")
    busy = sum(sum(row[:_GUEST]) - row[_IDLE] - row[_IOWAIT] - row[_STEAL] for row in columns)
    return ProcessorTime(
        at_s=time.monotonic(),
        cores=len(columns),
        busy_s=busy / second,
        stolen_s=sum(row[_STEAL] for row in columns) / second,
        own_s=own_ticks / second,
    )


def shares_between(before: ProcessorTime | None, after: ProcessorTime | None) -> Shares | None:
    """What others used between two readings; ``None`` where that cannot be told, such as over no time at all."""
    if before is None or after is None or after.at_s <= before.at_s:
        return None
    whole = (after.at_s - before.at_s) * after.cores
    foreign = after.busy_s - before.busy_s - (after.own_s - before.own_s)
    return Shares(foreign=_part(foreign, whole), stolen=_part(after.stolen_s - before.stolen_s, whole))


def usable_cpus() -> list[int]:
    """Numbers of the processors that this process may use."""
    return sorted(os.sched_getaffinity(0))


def _part(seconds: float, whole: float) -> float:
    return min(max(seconds / whole, 0.0), 1.0)


def _ticks_of(proc: Path, pid: str) -> int:
    """User and system ticks of a process, those of its ended children included."""
    columns = (proc / pid / "stat").read_text().rpartition(")")[2].split()  # its name may hold spaces
    return sum(int(word) for word in columns[_USER_TICKS - 2 : _USER_TICKS + 2])


def _children(proc: Path) -> Iterator[str]:
    """The processes that this one started, such as the reader of a camera; none where the kernel does not list them."""
    for listing in (proc / "self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            yield from (pid for pid in listing.read_text().split() if (proc / pid / "stat").exists())
