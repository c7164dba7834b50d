"""Accelerators and cameras: what is there, and what is missing until it is used."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from edgecv.devices.device import Accelerator, Device
from edgecv.devices.doctor.environment import Environment
from edgecv.devices.doctor.finding import Finding
from edgecv.devices.tables import table

_MEMRYX = ("memx-drivers", "memx-accl", "memryx")
_NO_FIX = "edgecv devices  # models run on the processor; EdgeCV knows no package for this accelerator on this system"


def accelerators(device: Device, _: Environment) -> Iterator[Finding]:
    """Each accelerator: how far it is from being used."""
    for one in device.accelerators:
        yield _accelerator(one)


def jetson(device: Device, _: Environment) -> Iterator[Finding]:
    """Whether the release of a Jetson is known: packages for its GPU depend on it."""
    found = device.jetson
    if found is None:
        return
    if found.l4t:
        what = f"JetPack {found.jetpack or 'unknown'}, Jetson Linux {found.l4t}"
        yield Finding(id="jetson", level="ok", what=what)
        return
    place = "/etc/nv_tegra_release"
    why = "Which packages fit the GPU depends on it; a container does not see it by itself."
    fix = f"docker run -v {place}:{place}:ro IMAGE" if device.container else "sudo apt-get install nvidia-l4t-core"
    yield Finding(id="jetson", level="note", what="the release of Jetson Linux is unknown", why=why, fix=fix)


def hailo(device: Device, environment: Environment) -> Iterator[Finding]:
    """Whether driver and library of a Hailo are of one release: they must be exactly."""
    library = environment.packages.get("hailort", "")
    cards = [one for one in device.accelerators if one.kind == "hailo" and one.state != "seen"]
    for card in cards[:1]:
        module = "hailo1x_pci" if "10H" in card.name else "hailo_pci"
        driver = environment.modules.get(module, "")
        if not driver or not library or driver == library:
            continue
        apt = "hailo-h10-all" if "10H" in card.name else "hailo-all"
        yield Finding(
            id="hailo-versions",
            level="fail",
            what=f"the driver is {driver}, the library {library}",
            why="Driver, library and firmware must be of the same release; the card is not opened otherwise.",
            fix=f"sudo apt-get install --reinstall {apt} && sudo reboot",
        )


def rockchip(_: Device, environment: Environment) -> Iterator[Finding]:
    """Whether the library of a Rockchip NPU is as new as the package that loads models with it."""
    library, package = environment.rknn_library, environment.packages.get("rknn-toolkit-lite2", "")
    if not library or not package or library.split(".")[:2] == package.split(".")[:2]:
        return
    yield Finding(
        id="rknn-versions",
        level="warn",
        what=f"librknnrt.so is {library}, rknn-toolkit-lite2 {package}",
        why="A model of a newer toolkit is refused by an older library (invalid RKNN model version).",
        fix=next(row["files_fix"] for row in table("accelerators")["accelerator"] if row["name"] == "Rockchip NPU"),
    )


def memryx(device: Device, environment: Environment) -> Iterator[Finding]:
    """Whether driver, runtime and Python package of a MemryX are of one release of its SDK."""
    if not any(one.kind == "memryx" for one in device.accelerators):
        return
    versions = {**environment.debian, "memryx": environment.packages.get("memryx", "")}
    parts = {name: version for name, version in versions.items() if name in _MEMRYX and version}
    releases = {tuple(version.split("-")[0].split(".")[:2]) for version in parts.values()}
    if len(releases) < 2:
        return
    yield Finding(
        id="memryx-versions",
        level="warn",
        what=", ".join(f"{name} is {version}" for name, version in sorted(parts.items())),
        why="Driver, runtime and package come with one release of the SDK, and models are compiled for it.",
        fix=f"sudo apt-get install --only-upgrade memx-drivers memx-accl && {_memryx_fix()} && sudo reboot",
    )


def cameras(device: Device, environment: Environment) -> Iterator[Finding]:
    """Whether this user may open the cameras that are plugged in."""
    closed = environment.closed_cameras
    if not closed:
        return
    fix = "sudo usermod -aG video $USER && exec su - $USER"
    yield Finding(
        id="cameras",
        level="warn",
        what=f"this user may not open {', '.join(closed[:4])}",
        why="Cameras belong to the group video.",
        fix=f"docker run --device {shlex.quote(closed[0])} --group-add video IMAGE" if device.container else fix,
    )


def _memryx_fix() -> str:
    fix: str = next(row["packages_fix"] for row in table("accelerators")["accelerator"] if row["kind"] == "memryx")
    return fix.replace("pip install", "pip install --upgrade")


def _accelerator(one: Accelerator) -> Finding:
    kind = f"accelerator-{one.kind}"
    if one.state == "usable":
        return Finding(id=kind, level="ok", what=f"{one.name}: usable")
    if one.state == "driven" and not one.has_runtime:  # nothing that anyone could mend
        return Finding(id=kind, level="ok", what=f"{one.name}: {one.reason}")
    return Finding(
        id=kind,
        level="warn" if one.fix else "note",
        what=f"{one.name} is {one.state}, not usable: {one.reason}",
        why="Models run on the processor meanwhile.",
        fix=one.fix or _NO_FIX,
    )
