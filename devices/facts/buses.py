"""What is on the buses of the machine: PCI, USB and the device tree. Only numbers of vendors and products are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgecv.devices.roots import Roots, below, is_there, link_name, read_int, read_list, read_text


@dataclass(frozen=True, slots=True, kw_only=True)
class OnBus:
    """One device that a bus lists.

    Attributes:
        bus: ``pci``, ``usb`` or ``tree``.
        id: ``vendor:product`` in hexadecimal; of the tree an item of ``compatible``.
        device_class: Of PCI, such as ``0x030000``.
        driver: The driver that is bound to it.
        node: Of USB, its node below ``/dev``.
    """

    bus: str
    id: str
    device_class: str = ""
    driver: str = ""
    node: str = ""


def on_buses(roots: Roots, compatible: tuple[str, ...]) -> list[OnBus]:
    """Every device on PCI and USB, and what the device tree calls the board and its NPUs."""
    return [*_pci(roots.sys), *_usb(roots.sys), *_tree(roots, compatible)]


def _pci(sys_root: Path) -> Iterator[OnBus]:
    for folder in below(sys_root / "bus/pci/devices", "*"):
        vendor, product = _hex(folder / "vendor"), _hex(folder / "device")
        if vendor and product:
            yield OnBus(
                bus="pci",
                id=f"{vendor}:{product}",
                device_class=read_text(folder / "class"),
                driver=link_name(folder / "driver"),
            )


def _usb(sys_root: Path) -> Iterator[OnBus]:
    for folder in below(sys_root / "bus/usb/devices", "*"):
        vendor, product = _hex(folder / "idVendor"), _hex(folder / "idProduct")
        bus, number = read_int(folder / "busnum"), read_int(folder / "devnum")
        if vendor and product:
            node = f"bus/usb/{bus:03d}/{number:03d}" if bus is not None and number is not None else ""
            yield OnBus(bus="usb", id=f"{vendor}:{product}", node=node)


def _tree(roots: Roots, compatible: tuple[str, ...]) -> Iterator[OnBus]:
    yield from (OnBus(bus="tree", id=item) for item in compatible)
    tree = roots.proc / "device-tree"
    if not is_there(tree):
        tree = roots.sys / "firmware/devicetree/base"
    for pattern in ("*npu*/compatible", "*rknn*/compatible", "soc*/*npu*/compatible"):
        for path in below(tree, pattern):
            yield from (OnBus(bus="tree", id=item) for item in read_list(path))


def _hex(path: Path) -> str:
    """Four hexadecimal digits; empty when the file holds none."""
    text = read_text(path).lower().removeprefix("0x")
    return text if len(text) == 4 and all(digit in "0123456789abcdef" for digit in text) else ""
