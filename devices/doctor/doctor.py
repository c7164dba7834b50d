"""``diagnose``: asks every question of the registry. A check looks at (device, environment), and at nothing else.

To add a question, write a function in ``checks`` and name it here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import replace

from edgecv.devices.device import Device
from edgecv.devices.doctor.checks import machine, parts, power, runtimes
from edgecv.devices.doctor.environment import Environment
from edgecv.devices.doctor.finding import Finding, Probe, by_weight

Check = Callable[[Device, Environment], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (
    machine.system,
    machine.cpus,
    machine.memory,
    machine.disk,
    machine.shared_memory,
    machine.clock,
    machine.pressure,
    power.supply,
    power.heat,
    power.power_mode,
    power.governor,
    parts.accelerators,
    parts.jetson,
    parts.hailo,
    parts.rockchip,
    parts.memryx,
    parts.cameras,
    runtimes.pairs,
    runtimes.tensorrt,
    runtimes.runtimes,
)


def diagnose(device: Device, environment: Environment, probes: Iterable[Probe] = ()) -> tuple[Finding, ...]:
    """Every finding, the worst first; ``probes`` are asked last."""
    found = [finding for check in CHECKS for finding in check(device, environment)]
    return by_weight(_to_paste(one, environment) for one in [*found, *(probe() for probe in probes)])


def _to_paste(finding: Finding, environment: Environment) -> Finding:
    """With the Python that runs EdgeCV: a virtual environment need not be active, and the system's pip installs elsewhere."""
    if not environment.python:
        return finding
    python = shlex.quote(environment.python)
    pip = f"{'sudo ' * environment.needs_root}{python} -m pip"
    fix = re.sub(r"\bpip (?=install|uninstall)", lambda _: f"{pip} ", finding.fix)
    return replace(finding, fix=fix.replace("python3 -c", f"{python} -c"))
