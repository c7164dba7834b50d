"""The device in words, for ``edgecv devices``."""

from __future__ import annotations

from edgecv.devices.cpu import Cluster
from edgecv.devices.device import Accelerator, Device, Memory, PowerMode


def describe(device: Device) -> list[tuple[str, str]]:
    """What to show, line by line: a name and a text. The name of a line that goes on is empty."""
    cpu = device.cpu
    system = (
        device.os,
        f"Linux {device.kernel}",
        device.arch,
        device.libc,
        device.container and f"in {device.container}",
    )
    return [
        ("board", _board(device)),
        *_jetson(device),
        ("system", ", ".join(part for part in system if part)),
        ("processor", f"{cpu.model or 'unknown'}, {cpu.cores} cores"),
        *(("", _cluster(one)) for one in cpu.clusters if len(cpu.clusters) > 1),
        ("threads", _threads(device)),
        ("class", cpu.cpu_class),
        ("features", " ".join(cpu.features) or "none known"),
        ("memory", _memory(device.memory)),
        *_lines("accelerators", [_accelerator(one) for one in device.accelerators] or ["none found"]),
        ("runtimes", ", ".join(f"{name} {version}" for name, version in device.runtimes.items()) or "none installed"),
        ("python", device.python),
        ("fingerprint", device.fingerprint),
    ]


def _lines(name: str, texts: list[str]) -> list[tuple[str, str]]:
    return [(name if number == 0 else "", text) for number, text in enumerate(texts)]


def _board(device: Device) -> str:
    board = device.board
    return ", ".join(part for part in (board.name or "unknown", board.soc) if part)


def _jetson(device: Device) -> list[tuple[str, str]]:
    jetson, lines = device.jetson, []
    if jetson is not None:
        release = f"JetPack {jetson.jetpack or 'unknown'}, Jetson Linux {jetson.l4t or 'unknown'}"
        lines.append(("jetson", ", ".join(part for part in (release, jetson.module) if part)))
    if device.power_mode is not None:
        lines.append(("power mode", _power_mode(device.power_mode)))
    return lines


def _power_mode(mode: PowerMode) -> str:
    holds = {True: "the clocks agree", False: "the clocks are NOT where it puts them", None: "not checked"}[mode.holds]
    return f"{mode.name or 'unnamed'} (number {mode.number}), {holds}"


def _cluster(cluster: Cluster) -> str:
    clock = f" at {cluster.max_mhz} MHz" if cluster.max_mhz is not None else ""
    features = " ".join(cluster.features) or "no known features"
    return f"{cluster.cores} x {cluster.name or 'unknown'}{clock}, {cluster.usable_cores} usable: {features}"


def _threads(device: Device) -> str:
    cores = f"{device.usable_cores} usable core{'s' * (device.usable_cores != 1)}"
    quota = f", a quota of {device.quota_cpus:g} CPUs" if device.quota_cpus is not None else ""
    return f"{device.effective_cpus} ({cores}{quota})"


def _memory(memory: Memory) -> str:
    parts = [f"{_gibibytes(memory.total_bytes)} in all", f"{_gibibytes(memory.available_bytes)} available"]
    if memory.fitted_bytes is not None:
        parts.insert(0, f"{_gibibytes(memory.fitted_bytes)} fitted")
    if memory.limit_bytes is not None:
        parts.append(f"limited to {_gibibytes(memory.limit_bytes)}")
    return ", ".join(parts)


def _gibibytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**30:.1f} GiB"


def _accelerator(one: Accelerator) -> str:
    where = ", ".join(part for part in (one.id, one.node, one.driver) if part)
    reason = f": {one.reason}" if one.reason else ""
    return f"{one.name} ({where}) {one.state}{reason}" + (f" -> {one.fix}" if one.fix else "")
