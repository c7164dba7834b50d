"""What the device feels while it is measured. This is the one place where the benchmarks ask ``devices`` for its sensors."""

from __future__ import annotations

from edgecv.benchmarks.report import Reading
from edgecv.devices.probes import temperature_c


def read_device(at_s: float) -> Reading:
    """Read the sensors that this device has, ``at_s`` seconds after the measurement began."""
    return Reading(at_s=round(at_s, 2), temperature_c=temperature_c())
