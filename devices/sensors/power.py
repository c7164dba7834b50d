"""What the device draws, where it has a meter. Without one nothing is told: nothing is estimated."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from edgecv.devices.roots import Roots, below, read_int, read_text, tree_texts
from edgecv.devices.sensors.commands import Command
from edgecv.devices.sensors.kept_files import KeptFile

_TOTALS = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0")  # the rail of everything; where a Jetson has none, the rails together
_UNUSED = ("", "NC", "sum of shunt voltages")
_MOST_W = 2000.0
# " 3V3_SYS_A current(1)=0.04880250A" and " 3V3_SYS_V volt(9)=3.31109700V"
_ADC = re.compile(r"^\s*(\w+)_([AV]) (?:current|volt)\(\d+\)=([0-9.]{1,16})[AV]\s*$", re.MULTILINE)


class Meter(Protocol):
    """One way to learn what the device draws.

    Attributes:
        problem: Why the last reading gave nothing, with what to do; empty when it gave something.
    """

    problem: str

    def watts(self) -> float | None:
        """Watts of this moment, or since the last reading."""
        ...

    def close(self) -> None:
        """Close the files; a later reading opens them again."""
        ...


class Rails:
    """Rails of a Jetson: each is a product of files, in watts after division by ``scale``."""

    def __init__(self, rails: Mapping[str, tuple[Path, ...]], scale: float) -> None:
        self._scale = scale
        self.problem = ""
        named = {name: rails[name] for name in _TOTALS if name in rails}
        chosen = dict([next(iter(named.items()))]) if named else rails
        self._rails = [tuple(KeptFile(path) for path in files) for files in chosen.values()]

    def watts(self) -> float | None:
        """See ``Meter``; a rail that cannot be read leaves the sum unknown."""
        found = [_product(files) for files in self._rails]
        if any(value is None for value in found):
            self.problem = next((file.problem for files in self._rails for file in files if file.problem), "")
            return None
        self.problem = ""
        return sum(value for value in found if value is not None) / self._scale

    def close(self) -> None:
        """Close the files; a later reading opens them again."""
        for files in self._rails:
            for file in files:
                file.close()


class Energy:
    """Counters of energy in millionths of a joule (RAPL): the power is their growth. They begin anew at the end of their range."""

    def __init__(self, packages: Mapping[Path, int], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._files = {KeptFile(path): most for path, most in packages.items()}
        self._last: tuple[float, list[int]] | None = None
        self._watts: float | None = None
        self.problem = ""
        self.watts()

    def watts(self) -> float | None:
        """See ``Meter``; the power since the last reading."""
        values = [file.number() for file in self._files]
        now = self._clock()
        if any(value is None for value in values):
            self.problem = self._why()
            self._last = self._watts = None
            return None
        there = [value for value in values if value is not None]
        self._watts = self._since(now, there)
        self._last = (now, there)
        self.problem = "" if self._watts is not None else "the power is known from the second reading on"
        return self._watts

    def close(self) -> None:
        """Close the files; a later reading opens them again."""
        for file in self._files:
            file.close()

    def _since(self, now: float, there: list[int]) -> float | None:
        if self._last is None or now <= self._last[0]:
            return self._watts
        ranges = zip(there, self._last[1], self._files.values(), strict=True)
        return sum(grown(value, before, most) for value, before, most in ranges) / 1e6 / (now - self._last[0])

    def _why(self) -> str:
        problem = next((file.problem for file in self._files if file.problem), "")
        return f"{problem}; root may allow it: sudo chmod a+r {next(iter(self._files)).path}"


class PiRails:
    """The power chip of a Raspberry Pi 5; what USB and the fan draw is not in it."""

    def __init__(self, vcgencmd: Command) -> None:
        self._vcgencmd = vcgencmd
        self.problem = ""

    def watts(self) -> float | None:
        """See ``Meter``; the tool is asked once in ten seconds."""
        found = pmic_watts(self._vcgencmd.output("pmic_read_adc") or "")
        self.problem = "" if found is not None else "vcgencmd pmic_read_adc says nothing: sudo usermod -aG video $USER"
        return found

    def close(self) -> None:
        """Do nothing: between two questions the tool does not run."""


def grown(value: int, before: int, most: int) -> int:
    """By how much a counter grew that begins anew after ``most``; 0 when that cannot be."""
    return max(0, value - before if value >= before else value - before + most)


def pmic_watts(text: str) -> float | None:
    """The sum over the rails in the text of ``pmic_read_adc``; ``None`` when no rail has both a voltage and a current."""
    read: dict[str, dict[str, float]] = {}
    for rail, unit, number in _ADC.findall(text):
        if number.count(".") <= 1 and number != ".":
            read.setdefault(rail, {})[unit] = float(number)
    pairs = [values["A"] * values["V"] for values in read.values() if len(values) == 2]
    return sum(pairs) if pairs and sum(pairs) < _MOST_W else None


def find_meter(roots: Roots, vcgencmd: Command) -> Meter | None:
    """The meter of this device; ``None`` without one."""
    if rails := _ina3221(roots.sys):
        return Rails(rails, 1e6)  # millivolts times milliamperes
    if rails := _iio(roots.sys):
        return Rails(rails, 1e3)
    if packages := _rapl(roots.sys):
        return Energy(packages)
    is_pi5 = "brcm,bcm2712" in tree_texts(roots, "compatible")
    return PiRails(vcgencmd) if is_pi5 and vcgencmd.is_there else None


def _ina3221(sys_root: Path) -> dict[str, tuple[Path, ...]]:
    """JetPack 5 and later: volts and amperes of each rail. Channel 7 is a sum of something else."""
    rails: dict[str, tuple[Path, ...]] = {}
    for folder in below(sys_root / "bus/i2c/devices", "*/hwmon/hwmon*"):
        if read_text(folder / "name") == "ina3221":
            for channel in (1, 2, 3):
                label = read_text(folder / f"in{channel}_label")
                if label not in _UNUSED:
                    rails[label] = (folder / f"in{channel}_input", folder / f"curr{channel}_input")
    return rails


def _iio(sys_root: Path) -> dict[str, tuple[Path, ...]]:
    """JetPack 4: milliwatts of each rail."""
    folders = below(sys_root / "bus/i2c/devices", "*/iio:device*")
    pairs = (
        (read_text(folder / f"rail_name_{at}"), folder / f"in_power{at}_input") for folder in folders for at in range(3)
    )
    return {name: (path,) for name, path in pairs if name not in _UNUSED}


def _rapl(sys_root: Path) -> dict[Path, int]:
    """The counters of the processors' packages and their ranges; parts of a package are in it already."""
    folders = below(sys_root / "class/powercap", "intel-rapl:*")
    packages = [folder for folder in folders if read_text(folder / "name").startswith("package")]
    return {folder / "energy_uj": read_int(folder / "max_energy_range_uj") or 0 for folder in packages}


def _product(files: Iterable[KeptFile]) -> float | None:
    product = 1.0
    for file in files:
        value = file.number()
        if value is None:
            return None
        product *= value
    return product
