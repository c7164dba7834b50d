"""Accelerators: seen on a bus, driven by the kernel, usable by this user; and what is missing for the next state."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from edgecv.devices.device import Accelerator
from edgecv.devices.facts.buses import OnBus, on_buses
from edgecv.devices.roots import Roots, below, is_there, read_text
from edgecv.devices.tables import table

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What decides whether an accelerator can be used, beside its driver.

    Attributes:
        may_open: Whether this user may read and write a node.
        version_of: The version of a Python package; empty when it is not installed.
        container: As in ``Device``.
        jetpack: As in ``Jetson``; empty elsewhere.
    """

    may_open: Callable[[Path], bool]
    version_of: Callable[[str], str]
    container: str = ""
    jetpack: str = ""


@dataclass(frozen=True, slots=True)
class _Step:
    """What is missing for the next state; nothing is when ``reason`` is empty."""

    reason: str = ""
    fix: str = ""


def may_open(path: Path) -> bool:
    """Whether this user may read and write a device node; it is not opened."""
    return os.access(path, os.R_OK | os.W_OK)


def read_accelerators(roots: Roots, compatible: tuple[str, ...], around: Around) -> tuple[Accelerator, ...]:
    """Every accelerator that ``accelerators.toml`` knows and this machine has."""
    rows: list[Row] = table("accelerators")["accelerator"]
    there = on_buses(roots, compatible)
    free = _Nodes(roots)
    found = [
        _judge(roots, row, device, around, free.for_device(row, device))
        for row in rows
        for device in _once(device for device in there if _fits(row, device))
    ]
    return (*found, *(_judge(roots, row, device, around, node) for row, device, node in free.rest(rows)))


class _Nodes:
    """The device nodes, each given to one accelerator."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._taken: set[Path] = set()
        self._kinds: set[str] = set()

    def for_device(self, row: Row, device: OnBus) -> Path | None:
        """The node of a device on a bus: the first that nobody has yet. All others of its kind belong to it or its likes."""
        self._kinds.add(row["kind"])
        named = [self._roots.dev / device.node] if device.node else self._of(row)
        found = next((node for node in named if node not in self._taken and is_there(node)), None)
        if found is not None:
            self._taken.add(found)
        return found

    def rest(self, rows: Iterable[Row]) -> Iterator[tuple[Row, OnBus, Path]]:
        """Nodes that belong to nothing on a bus: a container may hide the buses, and some GPUs are on none."""
        for row in rows:
            if row["bus"] == "usb" or (row["kind"] in self._kinds and row["bus"] != "node"):
                continue
            for node in self._of(row):
                if node not in self._taken:
                    self._taken.add(node)
                    yield row, OnBus(bus="node", id="", driver=_node_driver(self._roots, node)), node

    def _of(self, row: Row) -> list[Path]:
        nodes = (node for pattern in row["nodes"] for node in below(self._roots.dev, pattern))
        return [node for node in nodes if _is_served(self._roots, row, node)]


def _fits(row: Row, device: OnBus) -> bool:
    patterns = row.get("tree" if device.bus == "tree" else "ids", ())
    narrowed = device.device_class.startswith(row.get("class", ""))
    return row["bus"] == device.bus and narrowed and any(fnmatchcase(device.id, pattern) for pattern in patterns)


def _once(devices: Iterable[OnBus]) -> list[OnBus]:
    """Of the device tree one item is enough: a board's chip is named once for all its cores."""
    kept: list[OnBus] = []
    for device in devices:
        if device.bus != "tree" or not any(other.bus == "tree" for other in kept):
            kept.append(device)
    return kept


def _judge(roots: Roots, row: Row, device: OnBus, around: Around, node: Path | None) -> Accelerator:
    driver = device.driver or (_node_driver(roots, node) if node else "")
    driven = _missing_for_driven(roots, row, device, driver, node, around)
    usable = _Step() if driven.reason else _missing_for_usable(roots, row, node, around)
    return Accelerator(
        kind=row["kind"],
        name=_nvidia_name(roots, node) or row["name"],
        state="seen" if driven.reason else "driven" if usable.reason else "usable",
        id=device.id,
        node=str(node) if node else "",
        driver=driver,
        reason=driven.reason or usable.reason,
        fix=driven.fix or usable.fix,
        has_runtime="unused" not in row,
    )


def _is_served(roots: Roots, row: Row, node: Path) -> bool:
    """Whether a node belongs to a row: those of one subsystem all have the same name, but say their driver."""
    if node.parent.name not in ("dri", "accel") or "drivers" not in row:
        return True
    return _node_driver(roots, node) in row["drivers"]


def _node_driver(roots: Roots, node: Path) -> str:
    """Driver of a render or accel node, as its ``uevent`` says."""
    subsystem = {"dri": "drm", "accel": "accel"}.get(node.parent.name, "")
    lines = read_text(roots.sys / "class" / subsystem / node.name / "device/uevent").splitlines() if subsystem else []
    return next((line.removeprefix("DRIVER=") for line in lines if line.startswith("DRIVER=")), "")


def _missing_for_driven(roots: Roots, row: Row, device: OnBus, driver: str, node: Path | None, around: Around) -> _Step:
    wanted = row.get("drivers", ())
    if device.bus == "pci" and driver and driver not in wanted:
        return _Step(f"it is served by {driver}, not by {wanted[0]}", row.get("driver_fix", ""))
    if device.bus == "pci" and not driver:
        wrong = row.get("wrong", {})
        loaded = bool(wrong) and is_there(roots.sys / "module" / wrong["module"])
        return _Step(wrong["say"] if loaded else f"no driver serves it ({wanted[0]})", row.get("driver_fix", ""))
    if node is None and around.container:
        fix = row.get("container_fix", f"docker run --device /dev/{_example(row, device)} IMAGE")
        return _Step("its node is not handed into the container", fix)
    if node is None:
        return _Step(f"its node /dev/{_example(row, device)} is missing", row.get("driver_fix", ""))
    return _Step()


def _example(row: Row, device: OnBus) -> str:
    """The name of a node that would fit, for messages."""
    if device.node:
        return device.node
    name: str = row["nodes"][0]
    return name.replace("renderD[0-9]*", "renderD128").replace("[0-9]*", "0").replace("-*", "-0")


def _missing_for_usable(roots: Roots, row: Row, node: Path | None, around: Around) -> _Step:
    if "unused" in row:
        return _Step(row["unused"])
    if node is not None and not around.may_open(node):
        return _Step(f"this user may not open {node}", _access_fix(row, node, around))
    if not _has_one(roots, row.get("files", ())):
        return _Step(f"{Path(row['files'][0]).name} is not installed", row.get("files_fix", ""))
    packages = row.get("packages", ())
    if not any(around.version_of(package) for package in packages):
        return _Step(_missing_package(packages), _packages_fix(row, around))
    return _Step()


def _missing_package(packages: Iterable[str]) -> str:
    named = " or ".join(packages)
    return f"{named} is not installed" if named else "EdgeCV knows no package that uses it"


def _packages_fix(row: Row, around: Around) -> str:
    by_jetpack = row.get("packages_fix_of_jetpack", {})
    fix: str = by_jetpack.get(around.jetpack.partition(".")[0], row.get("packages_fix", ""))
    return fix


def _access_fix(row: Row, node: Path, around: Around) -> str:
    path = shlex.quote(str(node))
    if around.container:
        group = row.get("group", "")
        member = f" --group-add $(getent group {group} | cut -d: -f3)" if group else ""
        return f"docker run --device {path}{member} IMAGE"
    return f"sudo usermod -aG {row['group']} $USER && exec su - $USER" if "group" in row else f"sudo chmod a+rw {path}"


def _has_one(roots: Roots, patterns: Iterable[str]) -> bool:
    patterns = tuple(patterns)
    return not patterns or any(below(roots.root, pattern) for pattern in patterns)


def _nvidia_name(roots: Roots, node: Path | None) -> str:
    """The model of a graphics card; its file also holds its unique number, which is left alone."""
    if node is None or not node.name.startswith("nvidia"):
        return ""
    cards = [_nvidia_fields(path) for path in below(roots.proc / "driver/nvidia/gpus", "*/information")]
    own = [card for card in cards if f"nvidia{card.get('Device Minor', '')}" == node.name]
    return next((card.get("Model", "") for card in own or cards), "")


def _nvidia_fields(path: Path) -> dict[str, str]:
    pairs = (line.partition(":") for line in read_text(path).splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs if name.strip() in ("Model", "Device Minor")}
