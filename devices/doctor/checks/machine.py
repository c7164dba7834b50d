"""The machine: its system, its limits, memory, disk and clock."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator

from edgecv.devices.device import Device
from edgecv.devices.doctor.environment import Environment
from edgecv.devices.doctor.finding import Finding

_ARCHES = ("aarch64", "arm64", "x86_64", "AMD64")
_GIB, _MIB = 2**30, 2**20
_LEAST_MEMORY = 400 * _MIB  # a Zero 2 W with 64-bit system has 415 MiB, of which a small model takes a fifth
_FULL, _TIGHT = 100 * _MIB, _GIB
_LEAST_SHM = 16 * _MIB
_OLDEST_S = 1_767_225_600  # 2026-01-01: this program is younger
_SMALL_IMAGE = "https://downloads.raspberrypi.com/raspios_lite_arm64_latest"


def system(device: Device, _: Environment) -> Iterator[Finding]:
    """Whether there are wheels of the runtimes for this system."""
    if device.arch in _ARCHES:
        yield Finding(id="system", level="ok", what=f"{device.os or 'this system'}, {device.arch}")
        return
    is_pi = device.board.is_raspberry_pi
    fix = f"rpi-imager --cli {_SMALL_IMAGE} /dev/sdX" if is_pi else "uname -m; getconf LONG_BIT"
    yield Finding(
        id="system",
        level="fail",
        what=f"a 32-bit system ({device.arch})" if device.arch.startswith("arm") else f"a system for {device.arch}",
        why="No runtime has a package for it. Install a 64-bit system: on another computer, with the card at /dev/sdX."
        if is_pi
        else "No runtime has a package for it. Install a 64-bit system for x86 or Arm.",
        fix=fix,
    )


def cpus(device: Device, environment: Environment) -> Iterator[Finding]:
    """Whether a quota takes cores away. Sessions start no more threads than there are effective CPUs."""
    quota = device.quota_cpus
    if quota is None or quota >= device.usable_cores:
        yield Finding(id="cpus", level="ok", what=f"{device.effective_cpus} CPUs to compute on")
        return
    yield Finding(
        id="cpus",
        level="warn" if quota < 1 else "note",
        what=f"a quota of {quota:g} CPUs of {device.usable_cores} cores",
        why=f"Models run with {device.effective_cpus} thread{'s' * (device.effective_cpus != 1)}"
        + (", which is stopped for a part of every tenth of a second." if quota < 1 else "."),
        fix=_quota_fix(device, environment),
    )


def memory(device: Device, _: Environment) -> Iterator[Finding]:
    """Whether a small model fits."""
    sizes = [size for size in (device.memory.limit_bytes, device.memory.total_bytes) if size is not None]
    if not sizes:
        yield Finding(
            id="memory", level="note", what="unknown", why="Nothing tells how much there is.", fix="cat /proc/meminfo"
        )
    elif min(sizes) < _LEAST_MEMORY:
        what = f"{min(sizes) // _MIB} MiB"
        why = "A small model with a camera takes about 200 MiB: the system may end the program."
        yield Finding(id="memory", level="warn", what=what, why=why, fix=_memory_fix(device))
    else:
        yield Finding(id="memory", level="ok", what=f"{min(sizes) / _GIB:.1f} GiB")


def disk(_: Device, environment: Environment) -> Iterator[Finding]:
    """Whether results can be written where the doctor was called."""
    free, folder = environment.free_bytes, environment.folder
    if free is None or free >= _TIGHT:
        what = f"{free / _GIB:.1f} GiB free in {folder}" if free is not None else f"not told for {folder}"
        yield Finding(id="disk", level="ok" if free is not None else "note", what=what, **_why_unknown(free, folder))
        return
    yield Finding(
        id="disk",
        level="fail" if free < _FULL else "warn",
        what=f"{free // _MIB} MiB free in {folder}",
        why="The outbox, recordings and segments need room; a full disk loses what they should keep.",
        fix="sudo apt-get clean && sudo journalctl --vacuum-size=50M && du -xh / 2>/dev/null | sort -h | tail -20",
    )


def shared_memory(device: Device, environment: Environment) -> Iterator[Finding]:
    """Whether /dev/shm has room. EdgeCV's own cameras need none of it."""
    free = environment.shm_free_bytes
    if free is not None and free >= _LEAST_SHM:
        yield Finding(id="shm", level="ok", what=f"{free // _MIB} MiB free in /dev/shm")
        return
    yield Finding(
        id="shm",
        level="note",
        what="no /dev/shm" if free is None else f"{free // _MIB} MiB free in /dev/shm",
        why="EdgeCV needs none of it, but pipelines of GStreamer (gst:) and Python's multiprocessing do.",
        fix="docker run --shm-size 256m IMAGE"
        if device.container
        else "sudo mkdir -p /dev/shm && sudo mount -t tmpfs -o size=256m tmpfs /dev/shm",
    )


def clock(device: Device, environment: Environment) -> Iterator[Finding]:
    """Whether times of events will be right, and certificates valid."""
    # A container has the clock of its host: whoever sets it sits there.
    fix = "timedatectl status  # on the host" if device.container else "sudo timedatectl set-ntp true"
    if environment.now_s < _OLDEST_S:
        day = time.strftime("%Y-%m-%d", time.gmtime(max(0.0, environment.now_s)))
        why = "No certificate is valid yet, so TLS fails, and events bear a wrong time."
        yield Finding(id="clock", level="fail", what=f"it says {day}", why=why, fix=fix)
    elif not environment.synced:
        why = "Events of several devices cannot be put in order."
        yield Finding(id="clock", level="warn", what="it follows no time server", why=why, fix=fix)
    else:
        yield Finding(id="clock", level="ok", what="it follows a time server")


def pressure(device: Device, environment: Environment) -> Iterator[Finding]:
    """Whether the kernel tells how long programs waited, which `edgecv bench` uses."""
    if environment.pressure:
        yield Finding(id="pressure", level="ok", what="the kernel tells how long programs wait")
        return
    line = "sudo sed -i '1s/$/ psi=1/' /boot/firmware/cmdline.txt && sudo reboot"
    grub = "sudo sed -i 's/^GRUB_CMDLINE_LINUX=\"/&psi=1 /' /etc/default/grub && sudo update-grub && sudo reboot"
    yield Finding(
        id="pressure",
        level="note",
        what="the kernel does not tell how long programs wait (/proc/pressure)",
        why="`edgecv bench` sees other programs by the load alone.",
        fix=line
        if device.board.is_raspberry_pi
        else "cat /proc/loadavg"
        if device.container or device.jetson
        else grub,
    )


def _why_unknown(free: int | None, folder: str) -> dict[str, str]:
    return (
        {}
        if free is not None
        else {"why": "The system does not tell what is free.", "fix": f"df -h -- {shlex.quote(folder)}"}
    )


def _quota_fix(device: Device, environment: Environment) -> str:
    if "kubepods" in environment.control_group:
        return "kubectl set resources deployment NAME --limits=cpu=2"
    if device.container:
        return "docker update --cpus 2 CONTAINER"
    place = environment.control_group.rpartition(":")[2].split("/")
    unit = next((part for part in reversed(place) if part.endswith((".service", ".slice", ".scope"))), "user.slice")
    return f"sudo systemctl set-property {shlex.quote(unit)} CPUQuota="


def _memory_fix(device: Device) -> str:
    if device.memory.limit_bytes is not None and device.container:
        return "docker update --memory 1g --memory-swap 1g CONTAINER"
    return "sudo systemctl set-default multi-user.target && sudo reboot  # without a desktop"
