"""Releases of packages that are known to be bad on some devices: the rows of ``devices/data/doctor.toml``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edgecv.devices.device import Device
from edgecv.devices.doctor.finding import Finding
from edgecv.devices.tables import table

Row = Mapping[str, Any]
_BOUND = re.compile(r"\s*(==|!=|>=|<=|>|<)\s*(\d+(?:\.\d+)*)\s*")
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


def packages_asked_for() -> tuple[str, ...]:
    """Every package that a row names."""
    rows: list[Row] = table("doctor")["pair"]
    named = [name for row in rows for name in (row["package"], *row.get("when", {}).get("packages", {}))]
    return tuple(dict.fromkeys((*named, "hailort", "memryx", "onnxruntime-gpu", "rknn-toolkit-lite2")))


def bad_pairs(device: Device, packages: Mapping[str, str]) -> Iterator[Finding]:
    """A finding for each row that fits this device and what is installed on it."""
    rows: list[Row] = table("doctor")["pair"]
    for row in rows:
        version = packages.get(row["package"], "")
        if fits(version, row["spec"]) and _is_here(row.get("when", {}), device, packages):
            yield _finding(row, version, device)


def fits(version: str, spec: str) -> bool:
    """Whether a version lies within ``spec``: bounds with commas, ``any`` or ``absent``. One that is unknown lies in no bounds."""
    if spec in ("any", "absent"):
        return bool(version) == (spec == "any")
    numbers = _numbers(version)
    return bool(numbers) and all(_within(numbers, bound) for bound in spec.split(","))


def _within(numbers: tuple[int, ...], bound: str) -> bool:
    found = _BOUND.fullmatch(bound)
    if found is None:
        raise ValueError(f"'{bound}' is no bound of a version")
    limit = _numbers(found.group(2))
    length = max(len(numbers), len(limit))
    return _COMPARE[found.group(1)](_padded(numbers, length), _padded(limit, length))


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers at the beginning of a version: (1, 21, 0) of ``1.21.0+cu126``."""
    found = re.match(r"\d{1,9}(?:\.\d{1,9})*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def _padded(numbers: tuple[int, ...], length: int) -> tuple[int, ...]:
    return numbers + (0,) * (length - len(numbers))


def _is_here(when: Row, device: Device, packages: Mapping[str, str]) -> bool:
    return all(_CONDITIONS[name](device, packages, wanted) for name, wanted in when.items())


def _has_part(device: Device, wanted: list[str]) -> bool:
    return any(f"{one.implementer} {one.part}" in wanted for one in device.cpu.clusters)


_CONDITIONS: Mapping[str, Callable[[Device, Mapping[str, str], Any], bool]] = {
    "arch": lambda device, _, wanted: device.arch in wanted,
    "parts": lambda device, _, wanted: _has_part(device, wanted),
    "soc": lambda device, _, wanted: device.board.soc.startswith(tuple(wanted)),
    "python": lambda device, _, wanted: fits(device.python, wanted),
    "glibc": lambda device, _, wanted: device.libc.startswith("glibc ") and fits(device.libc[6:], wanted),
    "packages": lambda _, packages, wanted: all(fits(packages.get(name, ""), spec) for name, spec in wanted.items()),
}


def _finding(row: Row, version: str, device: Device) -> Finding:
    major = device.jetson.jetpack.partition(".")[0] if device.jetson else ""
    fix = row.get("fix_of_jetpack", {}).get(major, row["fix"])
    what = f"{row['package']} {version}" if version else f"{row['package']} is not installed"
    return Finding(id=row["id"], level=row["level"], what=f"{what}: {row['what']}", why=row["why"], fix=fix)
