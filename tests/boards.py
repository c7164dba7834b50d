"""Boards as trees of small files: ``tests/fixtures/devices/NAME/tree.toml``, written below a folder for a test.

``origin`` says what was recorded on a board and what is put together from documents. ``cores`` are repeated in
``proc/cpuinfo`` with their numbers. A link to ``/proc/self/mem`` is a file that cannot be read: the kernel answers EIO.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgecv.devices.detect import detect
from edgecv.devices.device import Device
from edgecv.devices.doctor.environment import Environment, read_environment
from edgecv.devices.doctor.native import Native
from edgecv.devices.roots import Roots
from edgecv.devices.tables import tomllib

TREES = Path(__file__).parent / "fixtures/devices"
NAMES = sorted(path.parent.name for path in TREES.glob("*/tree.toml"))


@dataclass(frozen=True)
class Laid:
    """A board that lies in a folder.

    Attributes:
        name: Of the tree.
        origin: What of it was recorded.
        roots: Where it lies.
        arch: As ``uname -m`` would say.
        closed: Nodes that the user may not open.
        packages: Python packages that are installed there.
    """

    name: str
    origin: str
    roots: Roots
    arch: str
    closed: frozenset[Path]
    packages: Mapping[str, str]

    def detect(self) -> Device:
        """What ``detect`` finds, with the user and the packages of the tree."""
        return detect(self.roots, self.arch, may_open=self.may_open, version_of=self.version_of)

    def may_open(self, node: Path) -> bool:
        """Whether the user of the tree may open a node."""
        return node not in self.closed

    def version_of(self, package: str) -> str:
        """The version of a package in the tree; empty when it is not installed."""
        return self.packages.get(package, "")


def lay_out(name: str, folder: Path) -> Laid:
    """Write a board's tree below a folder."""
    tree = tomllib.loads((TREES / name / "tree.toml").read_text(encoding="utf-8"))
    write_tree({"proc/cpuinfo": cpuinfo_of(tree), **tree["files"]}, folder, tree.get("links", {}))
    closed = frozenset(folder / node for node in tree.get("closed", ()))
    return Laid(name, tree["origin"], roots_of(folder), tree["arch"], closed, tree.get("packages", {}))


def around(laid: Laid, device: Device) -> Environment:
    """What the doctor sees around a board where a runtime works, the disk is empty and the clock is right."""
    works = Native(runtime="litert", package="ai-edge-litert", version="2.3.0", outcome="ok", ran_model=True)
    found = read_environment(
        device,
        laid.roots,
        may_open=laid.may_open,
        version_of=laid.version_of,
        try_runtimes=lambda _: [works],
        free_bytes=lambda _: 10**11,
        is_synced=lambda: True,
        now_s=lambda: 1.8e9,
    )
    return replace(found, python="", needs_root=False)


def cpuinfo(name: str) -> str:
    """The text of ``/proc/cpuinfo`` of a board."""
    return cpuinfo_of(tomllib.loads((TREES / name / "tree.toml").read_text(encoding="utf-8")))


def cpuinfo_of(tree: Mapping[str, Any]) -> str:
    """The text of ``/proc/cpuinfo`` that a tree stands for."""
    texts = [kind["text"] for kind in tree["cores"] for _ in range(kind["count"])]
    cores = [text.replace("{core}", str(number)) for number, text in enumerate(texts)]
    return "\n".join([*cores, *([tree["cpuinfo_tail"]] if "cpuinfo_tail" in tree else [])])


def write_tree(files: Mapping[str, str | bytes], folder: Path, links: Mapping[str, str] | None = None) -> None:
    """Write files, by their paths below ``folder``, and links."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for name, target in (links or {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)


def roots_of(folder: Path) -> Roots:
    """All roots below a folder: nothing of this machine is read."""
    return Roots(proc=folder / "proc", sys=folder / "sys", dev=folder / "dev", etc=folder / "etc", root=folder)
