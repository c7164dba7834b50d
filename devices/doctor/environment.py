"""What ``edgecv doctor`` looks at beside the device itself. All of it is read before the first check; nothing is changed."""

from __future__ import annotations

import os
import re
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgecv._internal.timing import clock_is_synced
from edgecv.devices.device import Device
from edgecv.devices.doctor.native import Native, try_runtimes
from edgecv.devices.doctor.pairs import packages_asked_for
from edgecv.devices.doctor.system_packages import debian_versions, tensorrt_majors
from edgecv.devices.facts.accelerators import may_open
from edgecv.devices.facts.jetson import power_mode_names
from edgecv.devices.facts.system import version_of
from edgecv.devices.roots import Roots, below, is_there, read_bytes, read_int, read_text
from edgecv.devices.sensors.commands import Command
from edgecv.devices.sensors.sensors import Reading, Sensors
from edgecv.devices.sensors.throttle import over_current_counters, parse_throttled, throttled_file

_MODULES = ("hailo_pci", "hailo1x_pci")
_DEBIAN = ("memx-drivers", "memx-accl")
_RKNN_PLACES = ("usr/lib/librknnrt.so", "usr/lib/*/librknnrt.so", "usr/local/lib/librknnrt.so")
_RKNN_VERSION = re.compile(rb"librknnrt version: (\d{1,4}(?:\.\d{1,4}){1,3})")
_RKNN_BYTES = 32 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What stands around a device. A check sees this and the device, and nothing else.

    Attributes:
        python: Path of the virtual environment's Python that runs this; empty for the system's.
        needs_root: Whether this user may not install packages there.
        packages: Versions of the Python packages that checks ask for; empty for one that is not installed.
        natives: What became of each installed runtime in a process of its own.
        reading: What the sensors say now.
        pi_bits: What a Raspberry Pi's firmware says of its supply and its heat, since the start; ``None`` when nothing says it.
        over_current: A Jetson's counters of too much current, since its start.
        power_modes: Names of a Jetson's power modes by number.
        governors: (driver, governor) of the processor's clocks.
        modules: Versions of loaded kernel modules.
        rknn_library: Version of ``librknnrt.so``; empty without one.
        debian: Versions of the Debian packages that checks ask for.
        tensorrt: Releases of TensorRT whose library the loader finds.
        closed_cameras: Nodes of cameras that this user may not open.
        pressure: Whether the kernel tells how long programs waited.
        control_group: Place of this process among the control groups.
        folder: The folder in which the doctor was called.
        free_bytes: Free there; ``None`` when it cannot be told.
        shm_free_bytes: Free in ``/dev/shm``; ``None`` without one.
        now_s: UTC seconds since 1970, as this machine's clock says.
        synced: Whether the clock follows a time server.
    """

    python: str = ""
    needs_root: bool = False
    packages: Mapping[str, str] = field(default_factory=dict)
    natives: tuple[Native, ...] = ()
    reading: Reading
    pi_bits: int | None = None
    over_current: Mapping[str, int] = field(default_factory=dict)
    power_modes: Mapping[int, str] = field(default_factory=dict)
    governors: frozenset[tuple[str, str]] = frozenset()
    modules: Mapping[str, str] = field(default_factory=dict)
    rknn_library: str = ""
    debian: Mapping[str, str] = field(default_factory=dict)
    tensorrt: tuple[int, ...] = ()
    closed_cameras: tuple[str, ...] = ()
    pressure: bool = True
    control_group: str = ""
    folder: str = "."
    free_bytes: int | None = None
    shm_free_bytes: int | None = None
    now_s: float = 0.0
    synced: bool = True


def free_bytes(folder: Path) -> int | None:
    """What this user can still write in a folder; ``None`` when it cannot be told."""
    try:
        return shutil.disk_usage(folder).free
    except (OSError, ValueError):
        return None


def read_environment(
    device: Device,
    roots: Roots | None = None,
    *,
    may_open: Callable[[Path], bool] = may_open,
    version_of: Callable[[str], str] = version_of,
    try_runtimes: Callable[[Callable[[str], str]], Iterable[Native]] = try_runtimes,
    free_bytes: Callable[[Path], int | None] = free_bytes,
    is_synced: Callable[[], bool] = clock_is_synced,
    now_s: Callable[[], float] = time.time,
) -> Environment:
    """Look around; what cannot be read stays empty or ``None``. Runtimes are tried in processes of their own.

    Args:
        device: What ``detect`` found.
        roots: Where to read; this machine by default.
        may_open: Whether this user may read and write a device node.
        version_of: The installed version of a Python package, empty without one.
        try_runtimes: Tries every installed runtime, given ``version_of``.
        free_bytes: What is free in a folder.
        is_synced: Whether the clock follows a time server.
        now_s: UTC seconds since 1970.
    """
    roots, folder = roots or Roots(), _folder()
    with Sensors.of(device, roots) as sensors:
        reading = sensors.read()
    return Environment(
        python=sys.executable if sys.prefix != sys.base_prefix else "",
        needs_root=not os.access(sysconfig.get_path("purelib"), os.W_OK),
        packages={name: version_of(name) for name in packages_asked_for()},
        natives=tuple(try_runtimes(version_of)),
        reading=reading,
        pi_bits=_pi_bits(roots),
        over_current=_over_current(roots),
        power_modes=power_mode_names(read_text(roots.etc / "nvpmodel.conf")),
        governors=_governors(roots.sys),
        modules={name: read_text(roots.sys / "module" / name / "version") for name in _MODULES},
        rknn_library=_rknn_library(roots.root),
        debian=debian_versions(roots.root, _DEBIAN),
        tensorrt=tensorrt_majors(roots.root),
        closed_cameras=tuple(str(node) for node in below(roots.dev, "video[0-9]*") if not may_open(node)),
        pressure=is_there(roots.proc / "pressure/cpu"),
        control_group=read_text(roots.proc / "self/cgroup"),
        folder=folder,
        free_bytes=free_bytes(Path(folder)),
        shm_free_bytes=free_bytes(roots.dev / "shm"),
        now_s=now_s(),
        synced=is_synced(),
    )


def _folder() -> str:
    """The working folder; ``.`` where it was deleted meanwhile."""
    try:
        return str(Path.cwd())
    except OSError:
        return "."


def _pi_bits(roots: Roots) -> int | None:
    path = throttled_file(roots)
    if path is not None:
        return parse_throttled(read_text(path))
    vcgencmd = Command(roots)
    return parse_throttled(vcgencmd.output("get_throttled") or "") if vcgencmd.is_there else None


def _over_current(roots: Roots) -> dict[str, int]:
    counters = over_current_counters(roots).items()
    return {name: count for path, name in counters if (count := read_int(path)) is not None}


def _governors(sys_root: Path) -> frozenset[tuple[str, str]]:
    policies = below(sys_root / "devices/system/cpu/cpufreq", "policy*")
    return frozenset((read_text(one / "scaling_driver"), read_text(one / "scaling_governor")) for one in policies)


def _rknn_library(root: Path) -> str:
    for pattern in _RKNN_PLACES:
        for path in below(root, pattern):
            found = _RKNN_VERSION.search(read_bytes(path, _RKNN_BYTES))
            if found:
                return found.group(1).decode()
    return ""
