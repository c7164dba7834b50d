"""What two reports must have in common before their times may be compared."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from edgecv.benchmarks.report import Comparability
from edgecv.bundles.bundle import sha256_of
from edgecv.choosing import runtime_of
from edgecv.devices.device import Device
from edgecv.errors import PluginError

_POLICIES = "devices/system/cpu/cpufreq/policy*/scaling_governor"
_SYS = Path("/sys")


def comparability(device: Device, runtime: str, model: str, threads: int, computes_on: str = "cpu") -> Comparability:
    """The key of a report.

    Args:
        device: This device.
        runtime: Registered name of what ran the model.
        model: ``model_hash`` of the bundle or the file.
        threads: Of the session.
        computes_on: The device that the runtime was asked for.
    """
    place = "" if computes_on == "cpu" else f" on {computes_on}"
    return Comparability(
        device=device.fingerprint,
        power_mode="" if device.power_mode is None else str(device.power_mode),
        governor=cpu_governor(),
        runtimes=_versions(device, runtime) + place,
        threads=threads,
        model=model,
    )


def cpu_governor(sys: Path = _SYS) -> str:
    """Who sets the clock, such as ``ondemand``; several names where clusters differ, empty where the kernel does not say."""
    found = set()
    for file in sys.glob(_POLICIES):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            found.add(file.read_text().strip())
    return ",".join(sorted(found - {""}))


def model_hash(path: Path) -> str:
    """The sha256 of a bundle's ``bundle.json``, which has the hash of every file, or of a bare model file and its weights."""
    if path.is_dir():
        return sha256_of(path / "bundle.json")[:16]
    beside = path.with_suffix(".bin")
    digests = [sha256_of(path), *([sha256_of(beside)] if path.suffix == ".xml" and beside.is_file() else [])]
    return digests[0][:16] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


def _versions(device: Device, runtime: str) -> str:
    """The versions of the packages that a runtime may come from."""
    names: tuple[str, ...] = ()
    with contextlib.suppress(PluginError):
        names = tuple(runtime_of(runtime).distributions)
    said = [f"{name} {device.runtimes[name]}" for name in names if name in device.runtimes]
    return ", ".join(said) or runtime
