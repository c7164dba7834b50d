"""Where the kernel and the system tell about the machine, and how their small files are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MOST_BYTES = 1 << 20  # the largest, /proc/cpuinfo of a server, has some 400 KB


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """The folders of the machine; tests hand in folders of their own. ``root`` is for what stands elsewhere, such as ``/var``."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    dev: Path = Path("/dev")
    etc: Path = Path("/etc")
    root: Path = Path("/")


def read_bytes(path: Path, most: int = _MOST_BYTES) -> bytes:
    """The bytes of a small file, at most ``most``; none when it cannot be read, for whatever reason."""
    try:
        with path.open("rb") as file:
            return file.read(most) or b""  # nothing at all where a sensor that is switched off answers EAGAIN
    except (OSError, ValueError):  # a path with a NUL is a ValueError
        return b""


def read_text(path: Path) -> str:
    """Text of a small file without line end and the NUL that ends device-tree strings; empty when it cannot be read."""
    return read_bytes(path).decode(errors="replace").strip("\0\n ")


def read_list(path: Path) -> tuple[str, ...]:
    """The texts of a device-tree property such as ``compatible``, which NULs separate."""
    return tuple(text for text in read_text(path).split("\0") if text)


def read_int(path: Path) -> int | None:
    """A decimal number that stands alone in a file; ``None`` when there is none."""
    return to_int(read_text(path))


def to_int(text: str, base: int = 10) -> int | None:
    """``text`` as a number; ``None`` when it is none, or longer than any number that a kernel writes."""
    try:
        return int(text, base) if len(text) <= 24 else None
    except ValueError:
        return None


def below(folder: Path, pattern: str) -> list[Path]:
    """What fits ``pattern`` in a folder, sorted; nothing when the folder cannot be read."""
    try:
        return sorted(folder.glob(pattern))
    except (OSError, ValueError):
        return []


def hwmons(roots: Roots, *names: str) -> list[Path]:
    """The folders of the kernel's monitors with one of these names."""
    return [folder for folder in below(roots.sys / "class/hwmon", "hwmon*") if read_text(folder / "name") in names]


def tree_texts(roots: Roots, name: str) -> tuple[str, ...]:
    """A property of the device tree's root. A container may hide the first place, which is a link to the second."""
    return read_list(roots.proc / "device-tree" / name) or read_list(roots.sys / "firmware/devicetree/base" / name)


def is_raspberry_pi(roots: Roots) -> bool:
    """Whether the device tree names a Raspberry Pi."""
    return any(item.startswith("raspberrypi,") for item in tree_texts(roots, "compatible"))


def is_there(path: Path) -> bool:
    """Whether something is there, as far as this process may see: a container may forbid even the question."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


def link_name(path: Path) -> str:
    """The last part of where a link points to, such as the name of a driver; empty when there is none."""
    try:
        return path.readlink().name
    except OSError:
        return ""


def cpu_numbers(text: str) -> frozenset[int]:
    """The CPUs of a list as the kernel writes it: ``0-3,8``, or ``0 1 2`` in files of cpufreq. What is no list is left out."""
    return frozenset(number for part in text.replace(",", " ").split() for number in _range(part))


def _range(part: str) -> Iterator[int]:
    first, _, last = part.partition("-")
    ends = to_int(first), to_int(last or first)
    if ends[0] is not None and ends[1] is not None and 0 <= ends[0] <= ends[1] < 8192:  # NR_CPUS is at most that
        yield from range(ends[0], ends[1] + 1)
