"""What makes a measurement worthless while it runs: the device slowed down by itself."""

from __future__ import annotations

from edgecv.devices.sensors.sensors import Sensors


class Disturbance:
    """Asked after each block; tells what happened since it was last asked."""

    def __init__(self, sensors: Sensors) -> None:
        self._sensors = sensors
        self._count = self._counted()

    def __call__(self) -> str:
        """What happened; empty for nothing, and where the device has no counter to tell it."""
        count, before = self._counted(), self._count
        self._count = count
        return "the device throttled" if count > before else ""

    def _counted(self) -> int:
        throttle = self._sensors.read().throttle
        return 0 if throttle is None else throttle.count
