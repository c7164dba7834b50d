"""What a device feels at this moment; a few small reads, cheap enough for every second."""

from __future__ import annotations

from edgecv.devices.roots import Roots
from edgecv.status import Gauge

_HOTTEST_C = 200.0  # zones that are switched off tell nonsense


def temperature_c(roots: Roots | None = None) -> float | None:
    """The hottest thermal zone in degrees Celsius; ``None`` where the kernel tells none (virtual machines, containers).

    Source: Linux, Documentation/ABI/testing/sysfs-class-thermal: ``temp`` is in thousandths of a degree.
    """
    roots = roots or Roots()
    found = []
    for file in sorted(roots.sys.glob("class/thermal/thermal_zone*/temp")):
        try:
            degrees = int(file.read_text()) / 1e3
        except (OSError, ValueError):  # a zone whose sensor sleeps answers with an error
            continue
        if 0 < degrees < _HOTTEST_C:
            found.append(degrees)
    return max(found, default=None)


def device_gauges(roots: Roots | None = None) -> list[Gauge]:
    """What preview pages and metrics show of the device."""
    return [
        Gauge(
            name="device_temperature_c",
            help="Hottest thermal zone of the device, degrees Celsius.",
            read=lambda: temperature_c(roots),
        )
    ]
