"""The temperature: which sensor is the processor's, and where it begins to slow down.

Zones are known by their type: their numbers move from kernel to kernel. Some are no temperature at all: the zone PMIC-Die of
a Jetson Nano always says 100 degrees. Source: Linux, Documentation/driver-api/thermal/sysfs-api.rst.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from edgecv.devices.roots import Roots, below, hwmons, read_int, read_text
from edgecv.devices.sensors.kept_files import KeptFile

# Types of the processor's zone in lower case, the best first. What is not among them is shown, and decides nothing.
_OF_PROCESSOR = (
    "tj-thermal",
    "cpu*-thermal",
    "cpu-therm",
    "cpu_thermal",
    "soc-thermal",
    "soc_thermal",
    "soc[0-9]*-thermal",
    "bigcore*",
    "x86_pkg_temp",
    "coretemp package id *",
    "k10temp tdie",
    "k10temp tctl",
    "*cpu*",
    "*cluster*",
    "*core*",
)
# Never shown: a constant, an estimate, or something else's temperature.
_NONE = ("pmic*", "iwlwifi*", "acpitz", "bat*", "nvme*", "thermal-fan-est", "ao-therm", "int34*")
_HWMONS = ("coretemp", "k10temp")  # sensors of processors that have no zone
_LEAST_C, _MOST_C = -40.0, 150.0  # sensors that are switched off tell nonsense, such as -256


@dataclass(frozen=True, slots=True)
class Sensor:
    """One sensor, and what its temperature means.

    Attributes:
        name: Its type; of several with the same one, each with its number.
        rank: Its place among those of the processor, 0 the best; ``None`` when it is not the processor's.
        file: Where its value is read, in thousandths of a degree.
        limit_c: The lowest temperature at which the kernel slows the processor down for it; ``None`` when it says none.
    """

    name: str
    rank: int | None
    file: KeptFile
    limit_c: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Temperatures:
    """The temperatures of one moment.

    Attributes:
        by_sensor: Degrees Celsius by the sensor's name.
        sensor: The one that counts: the processor's; empty when none of its sensors can be read.
        limit_c: As in ``Sensor``, of the one that counts.
        problem: Why there is no temperature that counts; empty when there is one.
    """

    by_sensor: dict[str, float]
    sensor: str
    limit_c: float | None
    problem: str


class Thermometer:
    """Reads all sensors of a device."""

    def __init__(self, roots: Roots) -> None:
        self._sensors = tuple(find_sensors(roots))

    def read(self) -> Temperatures:
        """The temperatures of this moment."""
        found = {sensor: _celsius(sensor.file) for sensor in self._sensors}
        there = {sensor: value for sensor, value in found.items() if value is not None}
        chosen = _chosen(there)
        return Temperatures(
            by_sensor={sensor.name: value for sensor, value in there.items()},
            sensor=chosen.name if chosen else "",
            limit_c=chosen.limit_c if chosen else None,
            problem="" if chosen else self._problem(),
        )

    def close(self) -> None:
        """Close the files; a later reading opens them again."""
        for sensor in self._sensors:
            sensor.file.close()

    def _problem(self) -> str:
        mine = [sensor for sensor in self._sensors if sensor.rank is not None]
        if not mine:
            return "the kernel has no sensor of the processor, as in virtual machines"
        return next((sensor.file.problem for sensor in mine if sensor.file.problem), "its sensor tells nonsense")


def find_sensors(roots: Roots) -> Iterator[Sensor]:
    """Every sensor that tells a temperature worth showing."""
    names: list[str] = []
    for kind, value, limit_c in (*_zones(roots.sys), *_hwmons(roots)):
        if kind and not _is_like(kind, _NONE):
            names.append(kind)
            count = names.count(kind)
            name = kind if count == 1 else f"{kind} {count}"
            yield Sensor(name, _rank(kind), KeptFile(value), limit_c)


def lowest_passive_c(trips: Sequence[tuple[str, int | None]]) -> float | None:
    """The lowest trip at which the kernel slows down, of pairs of type and thousandths of a degree; ``None`` without one.

    ``active`` trips start a fan, ``hot`` and ``critical`` ones come too late.
    """
    passive = [value / 1e3 for kind, value in trips if kind == "passive" and value is not None]
    return min((value for value in passive if 0 < value <= _MOST_C), default=None)


def _zones(sys_root: Path) -> Iterator[tuple[str, Path, float | None]]:
    for zone in below(sys_root / "class/thermal", "thermal_zone*"):
        kinds = below(zone, "trip_point_*_type")
        trips = [(read_text(kind), read_int(kind.with_name(kind.name[:-4] + "temp"))) for kind in kinds]
        yield read_text(zone / "type"), zone / "temp", lowest_passive_c(trips)


def _hwmons(roots: Roots) -> Iterator[tuple[str, Path, float | None]]:
    for folder in hwmons(roots, *_HWMONS):
        driver = read_text(folder / "name")
        for label in below(folder, "temp*_label"):
            yield f"{driver} {read_text(label)}", label.with_name(label.name[:-5] + "input"), None


def _rank(kind: str) -> int | None:
    return next((at for at, pattern in enumerate(_OF_PROCESSOR) if fnmatchcase(kind.lower(), pattern)), None)


def _is_like(kind: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(kind.lower(), pattern) for pattern in patterns)


def _celsius(file: KeptFile) -> float | None:
    value = file.number()
    if value is None:
        return None
    degrees = value / 1e3
    return degrees if degrees and _LEAST_C <= degrees <= _MOST_C else None


def _chosen(there: dict[Sensor, float]) -> Sensor | None:
    """The hottest of the best rank: a machine may have two processors."""
    ranks = [sensor.rank for sensor in there if sensor.rank is not None]
    mine = [sensor for sensor in there if ranks and sensor.rank == min(ranks)]
    return max(mine, key=lambda sensor: there[sensor], default=None)
