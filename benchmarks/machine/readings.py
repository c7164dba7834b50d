"""What the device feels while it is measured. This is the one place where the benchmarks ask ``devices`` for its sensors."""

from __future__ import annotations

from functools import cache

from edgecv.benchmarks.report import Reading
from edgecv.devices.detect import detect
from edgecv.devices.sensors.sensors import Sensors


@cache
def _sensors() -> Sensors:
    # One for the whole process: what slowed the device down is counted from the first reading on.
    return Sensors.of(detect())


def read_device(at_s: float) -> Reading:
    """Read the sensors that this device has, ``at_s`` seconds after the measurement began."""
    now = _sensors().read()
    return Reading(
        at_s=round(at_s, 2),
        temperature_c=now.temperature_c,
        clock_mhz=max(now.clocks_mhz.values(), default=None),
        watts=now.watts,
        throttle_events=None if now.throttle is None else now.throttle.count,
    )
