"""What a device is: the answer of ``detect()``. Serial numbers and hardware addresses are no part of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from edgecv.devices.cpu import Cpu

BoardSource = Literal["device-tree", "dmi", "hypervisor", "unknown"]
State = Literal["seen", "driven", "usable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """The machine, as its firmware names it.

    Attributes:
        name: For people, as the firmware says it.
        source: Where the name was read.
        compatible: The items of the device tree, the most specific first; empty on a PC. Decisions look at these.
        soc: The system on a chip, such as ``bcm2712`` or ``tegra234``; empty where nothing says it.
    """

    name: str
    source: BoardSource
    compatible: tuple[str, ...] = ()
    soc: str = ""

    @property
    def is_raspberry_pi(self) -> bool:
        """Whether a Raspberry Pi's firmware looks after supply and heat."""
        return any(item.startswith("raspberrypi,") for item in self.compatible)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes; ``None`` where the machine does not say.

    Attributes:
        total_bytes: What the kernel has: less than what is fitted, since graphics take a share.
        available_bytes: What programs can still get.
        limit_bytes: What the tightest control group above this process allows.
        fitted_bytes: What is soldered to the board, as a Raspberry Pi's revision says.
    """

    total_bytes: int | None
    available_bytes: int | None
    limit_bytes: int | None
    fitted_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Jetson:
    """What only a Jetson has.

    Attributes:
        l4t: Release of NVIDIA's Linux, such as ``36.4.3``; empty when nothing says it, as in most containers.
        jetpack: The JetPack it belongs to: ``6.2``, or ``6`` of a release that this table does not know; empty without ``l4t``.
        module: Number of the module, such as ``p3767-0003``.
        compute_capability: Of the GPU, such as ``8.7``.
    """

    l4t: str
    jetpack: str
    module: str
    compute_capability: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerMode:
    """The power mode that is set; its number means another thing on each board.

    Attributes:
        number: As ``nvpmodel`` numbers it.
        name: As ``/etc/nvpmodel.conf`` calls it; empty when that does not say.
        holds: Whether the clocks are where the mode puts them; ``None`` when that cannot be told. A mode that could not be
            applied is still written down as set.
    """

    number: int
    name: str
    holds: bool | None

    def __str__(self) -> str:
        return self.name or str(self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """An accelerator, and how far it is from being used.

    Attributes:
        kind: ``nvidia``, ``hailo``, ``edgetpu``, ``npu``, ``gpu`` ...
        name: For people.
        state: ``seen``: its number is on a bus. ``driven``: a driver serves it, and its node is there. ``usable``: this user
            may open the node, and a package that uses it is installed.
        id: Vendor and product on the bus, such as ``1e60:2864``; empty for what is part of the chip.
        node: Path of its device node; empty without one.
        driver: The kernel's driver, where it says so.
        reason: What is missing for the next state; empty when it is usable.
        fix: One line to paste that mends it; empty when nothing is known to.
        has_runtime: Whether EdgeCV has a runtime that computes on it.
    """

    kind: str
    name: str
    state: State
    id: str
    node: str
    driver: str
    reason: str
    fix: str
    has_runtime: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """This device, as far as it tells about itself.

    Attributes:
        board: The machine.
        arch: As ``uname -m`` says.
        cpu: The processor, and its clusters.
        usable_cores: Logical cores this process may run on.
        quota_cpus: CPUs' worth of time that the tightest control group allows, such as 0.5; ``None`` without a quota.
        effective_cpus: How many threads can compute at once: the usable cores, or the quota rounded up if that is less.
        memory: Main memory.
        os: Name of the distribution; empty when it does not say.
        kernel: Release of the kernel.
        page_bytes: Size of a page of memory; the kernel of a Raspberry Pi 5 takes 16 KiB.
        libc: The C library, such as ``glibc 2.36``; empty when it does not say.
        python: Version of this Python.
        container: ``docker``, ``podman``, ``lxc`` or ``container``; empty on the bare machine.
        jetson: Release and module of a Jetson; ``None`` elsewhere.
        power_mode: The mode that is set; ``None`` where there are none, or nothing says it.
        accelerators: Each with its state.
        runtimes: Installed runtimes and their versions; none was imported.
        fingerprint: The same for the same board, clusters, class of memory and accelerators, and for nothing else.
    """

    board: Board
    arch: str
    cpu: Cpu
    usable_cores: int
    quota_cpus: float | None
    effective_cpus: int
    memory: Memory
    os: str
    kernel: str
    page_bytes: int
    libc: str
    python: str
    container: str
    jetson: Jetson | None
    power_mode: PowerMode | None
    accelerators: tuple[Accelerator, ...]
    runtimes: dict[str, str]
    fingerprint: str

    def as_dict(self) -> dict[str, Any]:
        """Return the description as a dict that JSON can hold."""
        return asdict(self)
