"""Where an event belongs in the store: ``parquet/events/tenant=T/date=D/hour=H/``, and beside it its detections.

The hour is that of the device's own clock, as long as it is near the time at which the event came in. A device that believes
in 1970, or in next year, is filed by the time at which its events came in: else each wrong clock would make files of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

EVENTS, DETECTIONS = "events", "detections"
DATA_SETS = (EVENTS, DETECTIONS)
PARQUET = "parquet"  # the folder of all files below a store

# In a path they mean that there is no value; the second one only to DuckDB before 2.
_NO_NAMES = ("__HIVE_DEFAULT_PARTITION__", "NULL")
_SECOND_US = 1_000_000
_HOUR_US = 3600 * _SECOND_US
EARLY_US = 31 * 24 * _HOUR_US  # how old an event may be when it comes in, to be filed by its own clock
AHEAD_US = _HOUR_US  # how far its clock may be ahead
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """The events of one tenant and one hour."""

    tenant: str
    hour: str  # such as `2026-11-28T01`, in UTC

    def folder(self, data_set: str) -> str:
        """Its folder below the store, for ``events`` or ``detections``."""
        date, _, hour = self.hour.partition("T")
        tenant = f"%{ord(self.tenant[0]):02X}{self.tenant[1:]}" if self.tenant.upper() in _NO_NAMES else self.tenant
        return f"{PARQUET}/{data_set}/tenant={tenant}/date={date}/hour={hour}"

    @property
    def from_us(self) -> int:
        """When it begins, in microseconds since the epoch."""
        return microseconds(f"{self.hour}:00:00")

    @property
    def to_us(self) -> int:
        """When it is over: the first microsecond after it."""
        return self.from_us + _HOUR_US


def microseconds(time: str) -> int:
    """Microseconds since the epoch of a time as events carry it (RFC 3339 in UTC)."""
    moment = datetime.fromisoformat(time[:19]).replace(tzinfo=timezone.utc) - _EPOCH
    fraction = time[20:-1] if time[19:20] == "." else ""
    return (moment.days * 86400 + moment.seconds) * _SECOND_US + int(fraction[:6].ljust(6, "0"))


def filed_us(time_us: int, received_us: int) -> int:
    """The moment by which an event is filed, kept and forgotten: its own, or that at which it came in."""
    return time_us if received_us - EARLY_US <= time_us <= received_us + AHEAD_US else received_us


def hour_of(moment_us: int) -> str:
    """The hour of a moment, such as ``2026-11-28T01``."""
    return datetime.fromtimestamp(moment_us // _SECOND_US, tz=timezone.utc).isoformat()[
        :13
    ]  # strftime gives year 931 three digits


def hour_of_event(time: str, received_ns: int) -> str:
    """The hour under which an event is filed."""
    return hour_of(filed_us(microseconds(time), received_ns // 1000))


def manifest_path(folder: Path) -> Path:
    """The list of all files that count."""
    return folder / "manifest.json"
