"""What only a Jetson has: the release of its Linux, the JetPack that this is, its module and its power mode.

The JetPack follows from the release by a rule, so that a release which nobody has written down yet has one, too.
"""

from __future__ import annotations

import re

from edgecv.devices.device import Board, Jetson, PowerMode
from edgecv.devices.facts.board import row_of
from edgecv.devices.roots import Roots, below, read_bytes, read_int, read_text, to_int
from edgecv.devices.tables import table

# "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, ..."
_RELEASE = re.compile(r"^#\s*R(\d{1,3})\b[^\n]*?REVISION:\s*(\d{1,3}(?:\.\d{1,3}){0,2})", re.MULTILINE)
_PACKAGE = re.compile(rb"^Package: nvidia-l4t-core\n(?:[^\n]+\n)*?Version: (\d{1,3}(?:\.\d{1,3}){0,3})", re.MULTILINE)
_MODULE = re.compile(r"p\d{4}-\d{4}")
_FAMILY = re.compile(r"p\d{4}")
_MODE = re.compile(r"pmode:\s*(\d{1,4})\b")
_MODE_NAME = re.compile(r"<\s*POWER_MODEL\s+ID=(\d{1,4})\s+NAME=([^\s>]{1,64})\s*>")
_CLOCK_CAP = re.compile(r"^CPU_\w+\s+MAX_FREQ\s+(-?\d{1,10})", re.MULTILINE)
_DPKG_BYTES = 16 << 20


def read_jetson(roots: Roots, board: Board) -> Jetson | None:
    """A Jetson's release and module; ``None`` on other boards."""
    row = row_of(board.compatible, "soc")
    if not board.soc.startswith("tegra"):
        return None
    l4t = _l4t(roots)
    return Jetson(
        l4t=l4t,
        jetpack=jetpack_of(l4t),
        module=_module(board),
        compute_capability=str(row.get("compute_capability", "")),
    )


def release_of(text: str) -> str:
    """The release in the text of ``/etc/nv_tegra_release``, such as ``36.4.3``; empty when it holds none."""
    found = _RELEASE.search(text)
    return ".".join(found.groups()) if found else ""


def jetpack_of(l4t: str) -> str:
    """The JetPack of a release of NVIDIA's Linux: exact where it is known, else by its first number; empty without one."""
    known = table("boards")["jetpack"]
    exact = _longest(l4t, known["exact"])
    return exact or str(known["major"].get(l4t.partition(".")[0], ""))


def power_mode_name(conf: str, number: int) -> str:
    """The name that ``/etc/nvpmodel.conf`` gives a mode; empty when it does not name it."""
    return power_mode_names(conf).get(number, "")


def power_mode_names(conf: str) -> dict[int, str]:
    """The names of all modes in the text of ``/etc/nvpmodel.conf``, by number."""
    return {int(number): name for number, name in _MODE_NAME.findall(conf)}


def power_mode_number(status: str) -> int | None:
    """The mode in the text of nvpmodel's status: ``pmode:0002``, or ``pmode:0000 fmode:quiet``; ``None`` when it says none."""
    found = _MODE.search(status)
    return to_int(found.group(1)) if found else None


def read_power_mode(roots: Roots) -> PowerMode | None:
    """The power mode that is written down as set, and whether the clocks agree."""
    number = power_mode_number(read_text(roots.root / "var/lib/nvpmodel/status"))
    if number is None:
        return None
    conf = read_text(roots.etc / "nvpmodel.conf")
    return PowerMode(number=number, name=power_mode_name(conf, number), holds=_holds(roots, conf, number))


def _l4t(roots: Roots) -> str:
    found = release_of(read_text(roots.etc / "nv_tegra_release"))
    return found or _from_dpkg(roots)


def _from_dpkg(roots: Roots) -> str:
    """The version of the package that brings the release file, which a container may lack."""
    found = _PACKAGE.search(read_bytes(roots.root / "var/lib/dpkg/status", _DPKG_BYTES))
    return found.group(1).decode() if found else ""


def _longest(l4t: str, known: dict[str, str]) -> str:
    """The entry of the most exact release that ``l4t`` is, or belongs to."""
    parts = l4t.split(".")
    candidates = (".".join(parts[:count]) for count in range(len(parts), 1, -1))
    return next((known[release] for release in candidates if release in known), "")


def _module(board: Board) -> str:
    """The number of the module: the last one named, since the carrier's stands before it."""
    said = " ".join(board.compatible)
    found = _MODULE.findall(said) or _FAMILY.findall(said)
    return str(found[-1]) if found else ""


def _holds(roots: Roots, conf: str, number: int) -> bool | None:
    """Whether no core may run faster than the mode says; ``None`` where the mode says no clock or no driver tells it."""
    caps = [int(text) for text in _CLOCK_CAP.findall(_section(conf, number)) if int(text) > 0]
    policies = below(roots.sys / "devices/system/cpu/cpufreq", "policy*/scaling_max_freq")
    clocks = [clock for clock in (read_int(path) for path in policies) if clock is not None]
    if not caps or not clocks:
        return None
    return max(clocks) <= max(caps) * 1.01  # the driver rounds to a step of its own


def _section(conf: str, number: int) -> str:
    """The lines of a mode: from its heading to the next one."""
    for match in _MODE_NAME.finditer(conf):
        if to_int(match.group(1)) == number:
            rest = conf[match.end() :]
            return rest.partition("<")[0]
    return ""
