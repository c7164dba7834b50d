"""What this device is: board, processor, memory, accelerators, installed runtimes. Nothing is opened
or started, so it is safe beside a running pipeline."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from edgecv import registry
from edgecv.devices.cpu import Cpu, read_cpu
from edgecv.errors import PluginError
from edgecv.runtimes import DISTRIBUTIONS

BoardSource = Literal["device-tree", "dmi", "hypervisor", "unknown"]

# What makers leave in the firmware when they did not fill it in.
_PLACEHOLDERS = frozenset({"", "to be filled by o.e.m.", "system product name", "default string", "not specified"})
# Kind and device node. Jetson boards before JetPack 6 have no /dev/nvidia0 but always /dev/nvhost-gpu.
_NODES = (
    ("nvidia", "nvidia[0-9]*"),
    ("nvidia", "nvhost-gpu"),
    ("hailo", "hailo[0-9]*"),
    ("edgetpu", "apex_[0-9]*"),
    ("npu", "accel/accel[0-9]*"),
    ("gpu", "dri/renderD[0-9]*"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """Where the kernel tells about the machine; tests hand in folders of their own."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    dev: Path = Path("/dev")
    etc: Path = Path("/etc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """Name of the machine and where it was read."""

    name: str
    source: BoardSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes; ``None`` where the machine does not say. ``limit_bytes`` is what a container allows."""

    total_bytes: int | None
    available_bytes: int | None
    limit_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """A device node that suggests an accelerator; whether a runtime can use it is another question."""

    kind: str  # `nvidia`, `hailo`, `edgetpu`, `npu` or `gpu` (a render node)
    node: str  # its path
    driver: str  # the kernel driver, where it says so


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """This device, as far as it tells."""

    board: Board  # the machine
    arch: str  # as `uname -m` says
    cpu: Cpu  # the processor
    usable_cores: int  # logical cores this process may run on
    memory: Memory  # main memory
    os: str  # name of the distribution; empty when it does not say
    kernel: str  # release of the kernel
    python: str  # version of this Python
    accelerators: tuple[Accelerator, ...]  # by device node
    runtimes: dict[str, str]  # installed runtimes and their versions; none was imported

    def as_dict(self) -> dict[str, Any]:
        """Return the description as a dict that JSON can hold."""
        return asdict(self)


def detect(roots: Roots | None = None, arch: str = "") -> Device:
    """Read what the machine tells about itself, or a machine of architecture ``arch`` below ``roots``.

    What it does not tell stays empty or ``None``.
    """
    roots = roots or Roots()
    arch = arch or platform.machine()
    cpu = read_cpu(_text(roots.proc / "cpuinfo"), arch)
    return Device(
        board=_board(roots, cpu),
        arch=arch,
        cpu=cpu,
        usable_cores=_usable_cores(),
        memory=_memory(roots),
        os=_os_name(_text(roots.etc / "os-release")),
        kernel=_text(roots.proc / "sys/kernel/osrelease") or platform.release(),
        python=platform.python_version(),
        accelerators=_accelerators(roots),
        runtimes=_installed_runtimes(),
    )


def describe(device: Device) -> list[tuple[str, str]]:
    """What to show, line by line: a name and a text."""
    cpu = device.cpu
    found = [f"{a.kind} ({a.node}{', ' + a.driver if a.driver else ''})" for a in device.accelerators]
    return [
        ("board", device.board.name or "unknown"),
        ("system", ", ".join(part for part in (device.os, f"Linux {device.kernel}", device.arch) if part)),
        ("processor", f"{cpu.model or 'unknown'}, {cpu.cores} cores ({device.usable_cores} usable here)"),
        ("class", cpu.cpu_class),
        ("features", " ".join(cpu.features) or "none known"),
        ("memory", _memory_text(device.memory)),
        ("accelerators", ", ".join(found) or "none found"),
        ("runtimes", ", ".join(f"{name} {version}" for name, version in device.runtimes.items()) or "none installed"),
        ("python", device.python),
    ]


def _text(path: Path) -> str:
    """Text of a small file without line end and the NUL that ends device-tree strings; empty when it cannot be read."""
    try:
        return path.read_bytes().decode(errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _board(roots: Roots, cpu: Cpu) -> Board:
    model = _text(roots.proc / "device-tree/model") or _text(roots.sys / "firmware/devicetree/base/model")
    if model:
        return Board(name=model, source="device-tree")
    if product := _dmi_name(roots.sys / "class/dmi/id"):
        return Board(name=product, source="dmi")
    hypervisor = _text(roots.sys / "hypervisor/type")
    if hypervisor or cpu.virtual:
        return Board(name=f"virtual machine ({hypervisor})" if hypervisor else "virtual machine", source="hypervisor")
    return Board(name="", source="unknown")


def _dmi_name(folder: Path) -> str:
    for vendor, product in (("sys_vendor", "product_name"), ("board_vendor", "board_name")):
        parts = [text for text in (_text(folder / vendor), _text(folder / product)) if not _is_placeholder(text)]
        if not _is_placeholder(_text(folder / product)):
            return " ".join(parts)
    return ""


def _is_placeholder(text: str) -> bool:
    return text.lower() in _PLACEHOLDERS


def _memory(roots: Roots) -> Memory:
    fields = dict(line.split(":", 1) for line in _text(roots.proc / "meminfo").splitlines() if ":" in line)
    limit = _text(roots.sys / "fs/cgroup/memory.max")  # cgroup version 2; "max" when there is none
    return Memory(
        total_bytes=_kibibytes(fields.get("MemTotal", "")),
        available_bytes=_kibibytes(fields.get("MemAvailable", "")),
        limit_bytes=int(limit) if limit.isdecimal() else None,
    )


def _kibibytes(text: str) -> int | None:
    number = text.split(maxsplit=1)[0] if text.split() else ""
    return int(number) * 1024 if number.isdecimal() else None


def _os_name(os_release: str) -> str:
    fields = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    return fields.get("PRETTY_NAME", "").strip("\"'")


def _accelerators(roots: Roots) -> tuple[Accelerator, ...]:
    found = [(kind, node) for kind, pattern in _NODES for node in sorted(roots.dev.glob(pattern))]
    return tuple(Accelerator(kind=kind, node=str(node), driver=_driver(roots.sys, node)) for kind, node in found)


def _driver(sys_root: Path, node: Path) -> str:
    """Driver of a render or accel node, as its ``uevent`` says."""
    subsystem = {"dri": "drm", "accel": "accel"}.get(node.parent.name, "")
    lines = _text(sys_root / "class" / subsystem / node.name / "device/uevent").splitlines() if subsystem else []
    return next((line.removeprefix("DRIVER=") for line in lines if line.startswith("DRIVER=")), "")


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _installed_runtimes() -> dict[str, str]:
    found = {}
    for name in chain.from_iterable(map(_distributions, registry.names("runtimes"))):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _distributions(runtime: str) -> tuple[str, ...]:
    """The names under which a runtime may be installed; only a plug-in is loaded to say them."""
    with contextlib.suppress(PluginError):  # one that is broken is told where it is used
        return DISTRIBUTIONS.get(runtime) or registry.resolve("runtimes", runtime).distributions
    return ()


def _memory_text(memory: Memory) -> str:
    parts = [f"{_gibibytes(memory.total_bytes)} in all", f"{_gibibytes(memory.available_bytes)} available"]
    if memory.limit_bytes is not None:
        parts.append(f"limited to {_gibibytes(memory.limit_bytes)}")
    return ", ".join(parts)


def _gibibytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**30:.1f} GiB"
