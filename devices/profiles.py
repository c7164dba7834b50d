"""Profiles: what suits a kind of board, as long as ``edgecv tune`` has not measured it there.

A profile is a file in ``devices/data/profiles``; its name is the file's. ``--for NAME`` takes its formats and its CPU class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from edgecv._internal.printable import nearest
from edgecv.devices.cpu import Cpu
from edgecv.devices.device import Device
from edgecv.devices.tables import DATA, table
from edgecv.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which devices a profile is for: those that fit everything it says.

    Attributes:
        compatible: One of these items stands in the device tree. They come before all that follows.
        cpu_class: The class of the processor.
        features: The usable cores have all of these.
        models: One of these words stands in the processor's name.
    """

    compatible: tuple[str, ...] = ()
    cpu_class: str = ""
    features: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One fact, and where it is from."""

    text: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What suits a kind of board.

    Attributes:
        name: Of the profile, such as ``raspberry-pi-5``.
        title: Which boards it is for.
        match: The same, for programs.
        cpu_class: What to build INT8 variants for; empty where no class fits.
        formats: The formats that are worth building, the best first.
        runtimes: By precision the runtimes in the order in which they are taken.
        accelerators: What INT8 is built for besides the processor: ``tensorrt``, ``edgetpu``.
        limit_c: The temperature at which the board slows down, where it does not say so itself; ``None`` when nobody knows.
        threads: A number of threads worth a try beside that of the effective CPUs; 0: none.
        notes: The facts behind it, each with its source.
    """

    name: str
    title: str
    match: Match
    cpu_class: str
    formats: tuple[str, ...]
    runtimes: Mapping[str, tuple[str, ...]]
    accelerators: tuple[str, ...] = ()
    limit_c: float | None = None
    threads: int = 0
    notes: tuple[Note, ...] = ()


@cache
def profiles() -> tuple[Profile, ...]:
    """Every profile that EdgeCV knows, in the order of their names."""
    names = sorted(path.stem for path in (DATA / "profiles").glob("*.toml"))
    return tuple(_read(name, table(f"profiles/{name}")) for name in names)


def find_profile(name: str) -> Profile:
    """The profile of that name.

    Raises:
        ConfigError: there is none; the hint says the nearest name and lists all.
    """
    known = {profile.name: profile for profile in profiles()}
    if name not in known:
        raise ConfigError(f"There is no profile named '{name}'.", f"{nearest(name, known)}Known: {', '.join(known)}.")
    return known[name]


def profile_of(device: Device) -> Profile:
    """The profile that fits a device best: by its device tree, else by its processor; ``generic`` fits all."""
    by_item = {item: profile for profile in profiles() for item in profile.match.compatible}
    for item in device.board.compatible:  # the most specific first
        if item in by_item and _builds_for(by_item[item], device.cpu):
            return by_item[item]
    fitting = [one for one in profiles() if not one.match.compatible and _fits(one.match, device.cpu)]
    return max(fitting, key=lambda one: _exactness(one.match))


def summary_of(profile: Profile) -> str:
    """What a profile says, in one line."""
    limit = f", slows down at {profile.limit_c:g} °C" if profile.limit_c is not None else ""
    built = f"{', '.join(profile.formats)} for {' and '.join((profile.cpu_class or 'any processor', *profile.accelerators))}"
    return f"{built}; INT8 on {', '.join(profile.runtimes['int8'])}{limit}"


def _builds_for(profile: Profile, cpu: Cpu) -> bool:
    """A 32-bit system on a 64-bit board runs nothing that its profile builds."""
    return cpu.cpu_class == profile.cpu_class


def _fits(match: Match, cpu: Cpu) -> bool:
    words = set(cpu.model.replace("(R)", " ").replace("(TM)", " ").replace("-", " ").split())
    return (
        match.cpu_class in ("", cpu.cpu_class)
        and set(match.features) <= set(cpu.features)
        and (not match.models or not words.isdisjoint(match.models))
    )


def _exactness(match: Match) -> tuple[bool, bool, bool]:
    return bool(match.models), bool(match.features), bool(match.cpu_class)


def _read(name: str, table: Mapping[str, Any]) -> Profile:
    rest = {key: value for key, value in table.items() if key not in ("match", "runtimes", "notes")}
    return Profile(
        name=name,
        match=Match(**_tuples(table["match"])),
        runtimes=_tuples(table["runtimes"]),
        notes=tuple(Note(**note) for note in table["notes"]),
        **_tuples(rest),
    )


def _tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
