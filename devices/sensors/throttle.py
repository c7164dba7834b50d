"""What slows a device down: heat, a weak supply, too much current. Counters are told as their change since the start."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgecv.devices.roots import Roots, below, hwmons, is_raspberry_pi, is_there, read_text, to_int
from edgecv.devices.sensors.commands import Command
from edgecv.devices.sensors.kept_files import KeptFile

# Bits of a Raspberry Pi's firmware (raspberrypi/documentation, vcgencmd get_throttled); 16 higher: it has happened since boot.
_BITS = (("under-voltage", 0), ("frequency-cap", 1), ("throttled", 2), ("soft-limit", 3))
_HEX = re.compile(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})")
_HEAT = "heat"  # what a source must be able to tell before it may say that nothing slows the device down


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """What the sources say together.

    Attributes:
        now: What slows the device down at this moment.
        events: How often each has begun since the start; only what can be told is in it.
        tells_heat: Whether a source would say it if heat slowed the device down. If not, an empty ``now`` means nothing.
        source: Where it was read.
    """

    now: tuple[str, ...]
    events: Mapping[str, int]
    tells_heat: bool
    source: str

    @property
    def slowed(self) -> bool | None:
        """Whether something slows the device down; ``None`` when nobody can tell."""
        return True if self.now else False if self.tells_heat else None

    @property
    def count(self) -> int:
        """How many events there were, of all kinds together."""
        return sum(self.events.values())


class Source(Protocol):
    """One place that tells what slows the device down."""

    name: str
    tells_heat: bool

    def read(self) -> tuple[tuple[str, ...], Mapping[str, int]] | None:
        """What slows it down now, and the events since the start; ``None`` when it cannot be read."""
        ...

    def close(self) -> None:
        """Close the files; a later reading opens them again."""
        ...


class PiFirmware:
    """The bits of a Raspberry Pi's firmware, from a file or from ``vcgencmd``."""

    tells_heat = True

    def __init__(self, name: str, read: Callable[[], str | None], close: Callable[[], None]) -> None:
        self.name, self._read, self.close = name, read, close
        self._before: int | None = None
        self._events = dict.fromkeys((name for name, _ in _BITS), 0)

    def read(self) -> tuple[tuple[str, ...], Mapping[str, int]] | None:
        """See ``Source``. A bit that says "has happened" counts once, since it stays."""
        bits = parse_throttled(self._read() or "")
        if bits is None:
            return None
        before, self._before = self._before, bits
        for name, bit in _BITS if before is not None else ():
            began = bits & ~(before or 0)
            self._events[name] += bool(began >> bit & 1 or began >> (bit + 16) & 1)
        return tuple(name for name, bit in _BITS if bits >> bit & 1), dict(self._events)


class Alarm:
    """The supply's alarm of a Raspberry Pi (hwmon ``rpi_volt``): it tells nothing of heat."""

    tells_heat = False

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._file = KeptFile(path)
        self._was: bool | None = None
        self._count = 0

    def read(self) -> tuple[tuple[str, ...], Mapping[str, int]] | None:
        """See ``Source``; the alarm counts when it begins, not while it lasts."""
        value = self._file.number()
        if value is None:
            return None
        is_low = value != 0
        self._count += is_low and self._was is False
        self._was = is_low
        return ("under-voltage",) if is_low else (), {"under-voltage": self._count}

    def close(self) -> None:
        """Close the file; a later reading opens it again."""
        self._file.close()


class Counters:
    """Counters that only grow, several of one name: what has moved since the last reading slows the device down now."""

    def __init__(self, name: str, files: Mapping[Path, str], *, tells_heat: bool) -> None:
        self.name, self.tells_heat = name, tells_heat
        self._files = [(KeptFile(path), what) for path, what in files.items()]
        self._last: dict[KeptFile, int] = {}
        self._events = dict.fromkeys(files.values(), 0)

    def read(self) -> tuple[tuple[str, ...], Mapping[str, int]] | None:
        """See ``Source``. Of counters with one name the one that moved most counts: cores share what they report."""
        moved: dict[str, int] = {}
        readable = False
        for file, what in self._files:
            value = file.number()
            if value is not None:
                readable = True
                moved[what] = max(moved.get(what, 0), self._growth(file, value))
        for what, count in moved.items():
            self._events[what] += count
        return (tuple(what for what, count in moved.items() if count), dict(self._events)) if readable else None

    def close(self) -> None:
        """Close the files; a later reading opens them again."""
        for file, _ in self._files:
            file.close()

    def _growth(self, file: KeptFile, value: int) -> int:
        """By how much a counter grew; one that is smaller than before began anew, as when a core was switched off and on."""
        last, self._last[file] = self._last.get(file, value), value
        return value - last if value >= last else value


class Cooling:
    """Cooling devices of the kernel that slow down a processor; fans are none of them."""

    name = "cooling devices"

    def __init__(self, states: Iterable[Path], *, tells_heat: bool) -> None:
        self.tells_heat = tells_heat
        self._files = [KeptFile(path) for path in states]
        self._was: bool | None = None
        self._count = 0

    def read(self) -> tuple[tuple[str, ...], Mapping[str, int]] | None:
        """See ``Source``; a state above 0 means that the kernel slows something down."""
        values = [value for value in (file.number() for file in self._files) if value is not None]
        if not values:
            return None
        slows = any(value > 0 for value in values)
        self._count += slows and self._was is False
        self._was = slows
        return (_HEAT,) if slows else (), {_HEAT: self._count}

    def close(self) -> None:
        """Close the files; a later reading opens them again."""
        for file in self._files:
            file.close()


class ThrottleSensor:
    """All sources of a device."""

    def __init__(self, roots: Roots, vcgencmd: Command) -> None:
        self._sources = find_sources(roots, vcgencmd)
        self.read()  # from here on changes are counted

    def read(self) -> Throttle | None:
        """What the sources say together; ``None`` when there is none, or none can be read."""
        found = [(source, said) for source in self._sources if (said := source.read()) is not None]
        if not found:
            return None
        events: dict[str, int] = {}
        for _, (_, counts) in found:
            events |= {name: max(count, events.get(name, 0)) for name, count in counts.items()}
        return Throttle(
            now=tuple(dict.fromkeys(name for _, (now, _) in found for name in now)),
            events=events,
            tells_heat=any(source.tells_heat for source, _ in found),
            source=", ".join(source.name for source, _ in found),
        )

    def close(self) -> None:
        """Close the files; a later reading opens them again."""
        for source in self._sources:
            source.close()


def parse_throttled(text: str) -> int | None:
    """The bits in the text of ``get_throttled``, with or without ``0x``, or of ``vcgencmd``; ``None`` when it holds none."""
    found = _HEX.fullmatch(text.strip())
    return to_int(found.group(1), 16) if found else None


def throttled_file(roots: Roots) -> Path | None:
    """The file in which a Raspberry Pi's firmware says what slows it down; ``None`` where the kernel has none."""
    return next(iter(below(roots.sys / "devices/platform", "soc*/*firmware/get_throttled")), None)


def find_sources(roots: Roots, vcgencmd: Command) -> Sequence[Source]:
    """Every source that this device has."""
    found: list[Source] = [*_pi_sources(roots, vcgencmd)]
    if over_current := over_current_counters(roots):
        found.append(Counters("soctherm_oc", over_current, tells_heat=False))
    if of_cores := _of_cores(roots.sys):
        found.append(Counters("thermal_throttle", of_cores, tells_heat=True))
    if states := _cooling_states(roots.sys):
        # A Raspberry Pi's firmware slows the processor down by itself, and the kernel does not see it.
        found.append(Cooling(states, tells_heat=not is_raspberry_pi(roots)))
    return found


def _pi_sources(roots: Roots, vcgencmd: Command) -> list[Source]:
    """The file of the firmware; where a kernel has none, its tool, and beside that the alarm of the supply."""
    path = throttled_file(roots)
    if path is not None:
        file = KeptFile(path)
        return [PiFirmware(path.name, file.text, file.close)]
    found: list[Source] = []
    if vcgencmd.is_there:
        found.append(PiFirmware("vcgencmd", lambda: vcgencmd.output("get_throttled"), lambda: None))
    return [*found, *(Alarm(folder / "in0_lcrit_alarm") for folder in hwmons(roots, "rpi_volt"))]


def over_current_counters(roots: Roots) -> dict[Path, str]:
    """A Jetson's counters: 1 a supply that is too low, 2 and 3 too much current on average or at once."""
    names = {"oc1_event_cnt": "under-voltage", "oc2_event_cnt": "over-current", "oc3_event_cnt": "over-current-peak"}
    places = {folder / file: name for folder in hwmons(roots, "soctherm_oc") for file, name in names.items()}
    return {path: name for path, name in places.items() if is_there(path)}


def _of_cores(sys_root: Path) -> dict[Path, str]:
    """Intel's counters, of each core and of each package."""
    folder = sys_root / "devices/system/cpu"
    kinds = {"core_throttle_count": "core-heat", "package_throttle_count": "package-heat"}
    return {path: name for file, name in kinds.items() for path in below(folder, f"cpu[0-9]*/thermal_throttle/{file}")}


def _cooling_states(sys_root: Path) -> list[Path]:
    folders = below(sys_root / "class/thermal", "cooling_device*")
    slows = [folder for folder in folders if _slows(read_text(folder / "type"))]
    return [folder / "cur_state" for folder in slows]


def _slows(kind: str) -> bool:
    return kind.startswith(("cpufreq", "thermal-cpufreq", "thermal-devfreq", "devfreq")) or kind == "Processor"
