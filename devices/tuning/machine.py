"""What tuning and choosing need to know of the machine at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from edgecv.devices.detect import detect
from edgecv.devices.device import Accelerator, Device, PowerMode
from edgecv.devices.profiles import profile_of

_OF_OPENVINO = frozenset({"i915", "xe", "intel_vpu"})  # drivers of what OpenVINO computes on
# INT8 before float, since a bundle holds INT8 only where it kept the accuracy. On a CPU a runtime computes fp16 files in float32
# at best: they are smaller, not faster.
_PRECISIONS = ("int8", "fp32", "fp16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine, as far as tuning asks."""

    fingerprint: str
    profile: str  # whose order is used where nothing was measured
    order: tuple[tuple[str, str], ...]  # (precision, runtime), the first choice first
    usable_cpus: int  # threads that can compute at once
    more_threads: int  # another number of threads worth a try; 0 for none
    big_cores: tuple[int, ...] = ()  # the numbers of those of the fastest kind; empty where all are of one kind
    power_mode: str  # empty where there are none
    runtimes: dict[str, str]  # installed, with their versions
    devices: tuple[str, ...] = ("cpu",)  # what runtimes can compute on here: that, and each usable accelerator


def order_of(runtimes: Mapping[str, Sequence[str]]) -> tuple[tuple[str, str], ...]:
    """Which runtime and precision is tried first, from the runtimes of each precision, the best first."""
    return tuple((precision, runtime) for precision in _PRECISIONS for runtime in runtimes.get(precision, ()))


@cache
def this_machine() -> Machine:
    """The machine at hand; it is looked at once."""
    return machine_of(detect())


def machine_of(device: Device) -> Machine:
    """What tuning needs of a device."""
    profile, big_cores = profile_of(device), _big_cores(device)
    return Machine(
        fingerprint=device.fingerprint,
        profile=profile.name,
        order=order_of(profile.runtimes),
        usable_cpus=device.effective_cpus,
        more_threads=0 if big_cores else profile.threads,
        big_cores=big_cores,
        power_mode=_power_mode(device.power_mode),
        runtimes=device.runtimes,
        devices=usable_devices(device.accelerators),
    )


def usable_devices(accelerators: Sequence[Accelerator]) -> tuple[str, ...]:
    """The CPU, and what is usable beside it, by the names that ``RuntimeOptions.device`` takes.

    A Coral is left out: no bundle holds the file that its compiler makes.
    """
    usable = [one for one in accelerators if one.state == "usable"]
    return tuple(dict.fromkeys(["cpu", *(name for one in usable for name in _names_of(one))]))


def _names_of(one: Accelerator) -> tuple[str, ...]:
    if one.kind == "nvidia":
        return ("cuda", "tensorrt")
    return (one.kind,) if one.kind in ("gpu", "npu") and one.driver in _OF_OPENVINO else ()


def _big_cores(device: Device) -> tuple[int, ...]:
    """Usable cores of the fastest kind; none where all are of one kind, or nothing says how fast they are."""
    clusters = [cluster for cluster in device.cpu.clusters if cluster.usable_cores]
    if len(clusters) < 2 or any(cluster.max_mhz is None for cluster in clusters):
        return ()
    return max(clusters, key=lambda cluster: cluster.max_mhz or 0).usable


def _power_mode(mode: PowerMode | None) -> str:
    return "" if mode is None else f"{mode.number} {mode.name}".strip()
