"""``Sensors``: what a device feels at this moment. What cannot be read is ``None`` with a reason, and never "fine"."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from edgecv.devices.device import Device
from edgecv.devices.profiles import profile_of
from edgecv.devices.roots import Roots, below, read_text
from edgecv.devices.sensors.commands import Command, Run
from edgecv.devices.sensors.kept_files import KeptFile
from edgecv.devices.sensors.power import find_meter
from edgecv.devices.sensors.thermal import Thermometer
from edgecv.devices.sensors.throttle import Throttle, ThrottleSensor

# Of the GPU of a Jetson, in thousandths; the place moved from release to release.
_GPU_LOADS = ("gpu.0/load", "platform/gpu.0/load", "platform/*.gpu/load", "platform/*/*.gpu/load")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the sensors told at one moment.

    Attributes:
        at_s: Monotonic seconds.
        temperatures_c: By the sensor's name.
        temperature_c: The processor's; ``None`` when it is not known.
        sensor: Whose temperature that is.
        limit_c: Where the processor begins to slow down: as the kernel says, else as the board's profile says.
        throttle: What slows the device down; ``None`` when nobody can tell.
        clocks_mhz: By the CPUs that share a clock, such as ``0-3``. A Raspberry Pi's firmware may run them slower than this.
        watts: What the device draws, where it has a meter.
        gpu_load: 0 to 1, of a Jetson.
        unknown: Why something is ``None``, by the name of its attribute.
    """

    at_s: float
    temperatures_c: Mapping[str, float]
    temperature_c: float | None
    sensor: str
    limit_c: float | None
    throttle: Throttle | None
    clocks_mhz: Mapping[str, float]
    watts: float | None
    gpu_load: float | None
    unknown: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return the reading as a dict that JSON can hold."""
        return asdict(self)


class Sensors:
    """The sensors of a device, found once and read as often as one likes; files stay open. From any thread.

    A reading takes well under a millisecond, except that a Raspberry Pi's tool is started at most every ten seconds.

    Args:
        roots: Where to read; this machine by default.
        limit_c: Where the processor begins to slow down if the kernel does not say it.
        run: Starts the firmware's tool and returns what it prints; ``None`` when it fails.
    """

    def __init__(self, roots: Roots | None = None, limit_c: float | None = None, run: Run | None = None) -> None:
        roots = roots or Roots()
        self._limit_c = limit_c
        self._lock = threading.Lock()
        vcgencmd = Command(roots, run)
        self._thermometer = Thermometer(roots)
        self._throttle = ThrottleSensor(roots, vcgencmd)
        self._meter = find_meter(roots, vcgencmd)
        self._clocks = _clocks(roots)
        loads = [path for pattern in _GPU_LOADS for path in below(roots.sys / "devices", pattern)]
        self._gpu_load = KeptFile(loads[0]) if loads else None

    @classmethod
    def of(cls, device: Device, roots: Roots | None = None) -> Sensors:
        """The sensors of a device, with the limit of its profile."""
        return cls(roots, profile_of(device).limit_c)

    def read(self) -> Reading:
        """This moment; it never raises."""
        with self._lock:
            return self._read()

    def close(self) -> None:
        """Close the files; a later reading opens them again."""
        with self._lock:
            self._thermometer.close()
            self._throttle.close()
            kept = [*self._clocks.values(), *([self._gpu_load] if self._gpu_load else [])]
            for file in kept:
                file.close()
            if self._meter is not None:
                self._meter.close()

    def __enter__(self) -> Sensors:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> Reading:
        heat, throttle = self._thermometer.read(), self._throttle.read()
        watts = self._meter.watts() if self._meter is not None else None
        load = self._gpu_load.number() if self._gpu_load is not None else None
        clocks = {name: value / 1e3 for name, file in self._clocks.items() if (value := file.number()) is not None}
        missing = {
            "temperature_c": heat.problem,
            "throttle": "" if throttle is not None else "nothing on this device tells what slows it down",
            "clocks_mhz": "" if clocks else "no driver tells the clocks, as in virtual machines",
            "watts": "" if watts is not None else self._why_no_watts(),
        }
        return Reading(
            at_s=time.monotonic(),
            temperatures_c=heat.by_sensor,
            temperature_c=heat.by_sensor.get(heat.sensor),
            sensor=heat.sensor,
            limit_c=heat.limit_c if heat.limit_c is not None else self._limit_c,
            throttle=throttle,
            clocks_mhz=clocks,
            watts=watts,
            gpu_load=min(1.0, max(0, load) / 1e3) if load is not None else None,
            unknown={name: reason for name, reason in missing.items() if reason},
        )

    def _why_no_watts(self) -> str:
        return self._meter.problem if self._meter is not None else "this device has no meter that can be read"


def _clocks(roots: Roots) -> dict[str, KeptFile]:
    policies = below(roots.sys / "devices/system/cpu/cpufreq", "policy*")
    return {_name(policy): KeptFile(policy / "scaling_cur_freq") for policy in policies}


def _name(policy: Path) -> str:
    """The CPUs that share the clock: ``0-3``."""
    cpus = read_text(policy / "related_cpus").split()
    return f"{cpus[0]}-{cpus[-1]}" if len(cpus) > 1 else next(iter(cpus), policy.name)
