"""What a device feels, as gauges for the page and the metrics: all of them come from one reading a second at most."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from edgecv.devices.detect import detect
from edgecv.devices.sensors.sensors import Reading, Sensors
from edgecv.status import Gauge

_KEEP_S = 0.5  # gauges that are asked together share a reading


def device_gauges(sensors: Sensors | None = None) -> list[Gauge]:
    """What preview pages and metrics show of the device. A number that is not known is left out: it is never 0.

    Args:
        sensors: Where the numbers come from; this device's by default.
    """
    latest = _Latest(sensors or Sensors.of(detect()))
    return [
        _gauge(latest, "device_temperature_c", "Temperature of the processor.", lambda now: now.temperature_c),
        _gauge(
            latest, "device_temperature_limit_c", "Where the processor begins to slow down.", lambda now: now.limit_c
        ),
        _gauge(latest, "device_throttled", "1 while something slows the device down, 0 while nothing does.", _slowed),
        _gauge(latest, "device_throttle_events", "How often that has begun since the program started.", _events),
        _gauge(
            latest,
            "device_clock_mhz",
            "Clock of the fastest cores.",
            lambda now: max(now.clocks_mhz.values(), default=None),
        ),
        _gauge(latest, "device_power_w", "What the device draws.", lambda now: now.watts),
    ]


class _Latest:
    """The newest reading, made anew when it is too old."""

    def __init__(self, sensors: Sensors) -> None:
        self._sensors = sensors
        self._lock = threading.Lock()
        self._reading: Reading | None = None

    def __call__(self) -> Reading:
        with self._lock:
            if self._reading is None or time.monotonic() - self._reading.at_s > _KEEP_S:
                self._reading = self._sensors.read()
            return self._reading


def _gauge(latest: Callable[[], Reading], name: str, text: str, value: Callable[[Reading], float | None]) -> Gauge:
    return Gauge(name=name, help=text, read=lambda: value(latest()))


def _slowed(reading: Reading) -> float | None:
    slowed = reading.throttle.slowed if reading.throttle is not None else None
    return None if slowed is None else float(slowed)


def _events(reading: Reading) -> float | None:
    return float(reading.throttle.count) if reading.throttle is not None else None
