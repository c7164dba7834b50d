"""How much memory a process holds, as Linux counts it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgecv.errors import DeviceError

_OWN = Path("/proc/self")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMemory:
    """Bytes of main memory that a process holds."""

    rss_bytes: int  # held now, pages shared with other processes included
    pss_bytes: int  # the same with shared pages divided by the number of processes that share them
    peak_rss_bytes: int  # the most that was held since the process started


def read_memory(process: Path = _OWN) -> ProcessMemory:
    """Memory of a process; ``process`` is its folder in ``/proc``, this process's own by default.

    Raises:
        DeviceError: the kernel does not say.
    """
    try:
        rollup, status = (_kibibytes(process / name) for name in ("smaps_rollup", "status"))
        return ProcessMemory(
            rss_bytes=rollup["Rss"] * 1024,
            pss_bytes=rollup["Pss"] * 1024,
            peak_rss_bytes=max(status["VmHWM"], rollup["Rss"]) * 1024,  # the kernel updates VmHWM lazily
        )
    except (OSError, KeyError) as error:
        raise DeviceError(
            f"{process} does not say how much memory is used: {error}.", "Linux 4.14 or newer is needed."
        ) from error


def _kibibytes(path: Path) -> dict[str, int]:
    """Lines of the form ``Name:   123 kB``; ``kB`` are 1024 bytes there."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) == 3 and words[2] == "kB"}
