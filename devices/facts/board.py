"""The board: its name for people, and what its firmware calls it in the device tree, by which decisions are made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgecv.devices.cpu import Cpu
from edgecv.devices.device import Board
from edgecv.devices.roots import Roots, is_there, read_bytes, read_text, to_int, tree_texts
from edgecv.devices.tables import table

# What makers leave in the firmware when they did not fill it in.
_PLACEHOLDERS = frozenset(
    {"", "to be filled by o.e.m.", "system product name", "default string", "not specified", "none", "unknown"}
)
# Bits of a Raspberry Pi's revision (raspberrypi/documentation, revision-codes): bit 23 says that the code has these fields.
_NEW_STYLE = 1 << 23
_CONTAINER_MARKS = (("/docker", "docker"), ("/kubepods", "container"), ("/lxc", "lxc"), ("/libpod", "podman"))
_REVISION = re.compile(r"^Revision\s*:\s*([0-9a-fA-F]{1,8})\s*$", re.MULTILINE)


def read_board(roots: Roots, cpu: Cpu) -> Board:
    """The machine; its name is empty when nothing says it."""
    compatible = tree_texts(roots, "compatible")
    if model := " ".join(tree_texts(roots, "model")):
        return Board(name=model, source="device-tree", compatible=compatible, soc=_soc(compatible))
    if product := _dmi_name(roots):
        return Board(name=product, source="dmi")
    hypervisor = read_text(roots.sys / "hypervisor/type")
    if hypervisor or cpu.virtual:
        return Board(name=f"virtual machine ({hypervisor})" if hypervisor else "virtual machine", source="hypervisor")
    return Board(name="", source="unknown", compatible=compatible, soc=_soc(compatible))


def row_of(compatible: tuple[str, ...], kind: str) -> Mapping[str, Any]:
    """The first row of a kind in ``boards.toml`` that one of the items names; empty without one."""
    rows: list[Mapping[str, Any]] = table("boards")[kind]
    found = (row for item in compatible for row in rows if item in row["compatible"])
    return next(found, {})


def fitted_bytes(cpuinfo: str) -> int | None:
    """The memory of a Raspberry Pi, decoded from the bits of its revision; ``None`` elsewhere."""
    found = _REVISION.search(cpuinfo)
    code = to_int(found.group(1), 16) if found else None
    if code is None or not code & _NEW_STYLE:
        return None
    return 256 * 2**20 << (code >> 20 & 0b111)


def _soc(compatible: tuple[str, ...]) -> str:
    row = row_of(compatible, "soc")
    return str(row.get("name", "")) or (compatible[-1].rpartition(",")[2] if compatible else "")


def _dmi_name(roots: Roots) -> str:
    folder = roots.sys / "class/dmi/id"
    for vendor, product in (("sys_vendor", "product_name"), ("board_vendor", "board_name")):
        parts = [text for text in (read_text(folder / vendor), read_text(folder / product)) if not _is_empty(text)]
        if not _is_empty(read_text(folder / product)):
            return " ".join(parts)
    return ""


def _is_empty(text: str) -> bool:
    return text.lower() in _PLACEHOLDERS


def container_of(roots: Roots) -> str:
    """In what kind of container this process runs; empty on the bare machine."""
    if is_there(roots.root / ".dockerenv"):
        return "docker"
    if is_there(roots.root / "run/.containerenv"):
        return "podman"
    said = read_bytes(roots.root / "run/systemd/container", 64).decode(errors="replace").strip()
    if said:
        return said if re.fullmatch(r"[a-z0-9-]{1,32}", said) else "container"
    groups = read_text(roots.proc / "self/cgroup")
    return next((name for mark, name in _CONTAINER_MARKS if mark in groups), "")
