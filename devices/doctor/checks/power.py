"""The supply, heat and clocks: what makes a board slower than it is. What cannot be read is said, and is never "fine"."""

from __future__ import annotations

from collections.abc import Iterator

from edgecv.devices.device import Device
from edgecv.devices.doctor.environment import Environment
from edgecv.devices.doctor.finding import Finding

_UNDER_VOLTAGE, _HOT = 1 << 0, 1 << 1 | 1 << 2 | 1 << 3  # bits of a Raspberry Pi's firmware; 16 higher: since the start
_SUPPLIES = {"bcm2712": "5.1 V and 5 A", "bcm2711": "5.1 V and 3 A", "bcm2837": "5.1 V and 2.5 A"}
_OVER_CURRENT = {"over-current": "too much current on average", "over-current-peak": "too much current at once"}
# Their governor "powersave" is the one that adapts the clock.
_ADAPT = ("intel_pstate", "amd-pstate", "amd-pstate-epp", "")


def supply(device: Device, environment: Environment) -> Iterator[Finding]:
    """Whether the supply is strong enough, now and since the start."""
    if device.jetson:
        yield from _jetson_supply(environment)
        return
    if not device.board.is_raspberry_pi:
        return
    bits, throttle = environment.pi_bits, environment.reading.throttle
    if (throttle is not None and "under-voltage" in throttle.now) or (bits or 0) & _UNDER_VOLTAGE:
        yield _weak(device, "fail", "under-voltage at this moment")
    elif (bits or 0) & _UNDER_VOLTAGE << 16:
        yield _weak(device, "warn", "under-voltage since the start")
    elif bits is not None:
        yield Finding(id="supply", level="ok", what="no under-voltage since the start")
    elif throttle is not None and "under-voltage" in throttle.events:  # the kernel's alarm tells of this moment alone
        yield Finding(id="supply", level="ok", what="no under-voltage")


def heat(device: Device, environment: Environment) -> Iterator[Finding]:
    """Whether heat slows the device down."""
    reading, bits = environment.reading, environment.pi_bits
    degrees, limit = reading.temperature_c, reading.limit_c
    slowed = reading.throttle.slowed if reading.throttle is not None else None
    if degrees is not None and limit is not None and degrees >= limit:
        yield _hot(device, "warn", f"{degrees:.0f} °C ({reading.sensor}); it slows down at {limit:.0f} °C")
    elif (bits or 0) & _HOT:
        yield _hot(device, "warn", "the firmware runs the processor slower at this moment")
    elif (bits or 0) & _HOT << 16:
        yield _hot(device, "note", "the firmware has run the processor slower since the start")
    elif degrees is None:
        yield _untold(device, "no sensor tells the temperature", reading.unknown.get("temperature_c", ""))
    elif device.board.is_raspberry_pi and slowed is None:
        yield _untold(device, "nothing tells whether heat slows it down", "The kernel has no get_throttled.")
    else:
        yield Finding(id="heat", level="ok", what=f"{degrees:.0f} °C ({reading.sensor})")


def power_mode(device: Device, environment: Environment) -> Iterator[Finding]:
    """Whether a Jetson's power mode is in force, and is the fastest."""
    mode, modes = device.power_mode, environment.power_modes
    if mode is None:
        return
    if mode.holds is False:
        why = "The mode is written down as set, but could not be applied. Figures are those of another mode."
        what = f"the clocks are not where {mode} puts them"
        yield Finding(id="power-mode", level="warn", what=what, why=why, fix=f"sudo nvpmodel -m {mode.number}")
        return
    fastest = next((number for number, name in modes.items() if name.startswith("MAXN")), None)
    if fastest is None or fastest == mode.number:
        yield Finding(id="power-mode", level="ok", what=str(mode))
        return
    why = f"{modes[fastest]} allows higher clocks; it draws more power than a weak supply may give."
    yield Finding(id="power-mode", level="note", what=str(mode), why=why, fix=f"sudo nvpmodel -m {fastest}")


def governor(_: Device, environment: Environment) -> Iterator[Finding]:
    """Whether the clocks are kept at their lowest."""
    kept = [driver for driver, name in environment.governors if name == "powersave" and driver not in _ADAPT]
    if kept:
        yield Finding(
            id="governor",
            level="warn",
            what=f"powersave: {kept[0]} keeps the clocks at their lowest",
            why="Models run several times slower than they could.",
            fix="echo schedutil | sudo tee /sys/devices/system/cpu/cpufreq/policy*/scaling_governor",
        )
    elif environment.governors:
        names = ", ".join(sorted({name for _, name in environment.governors if name})) or "unknown"
        yield Finding(id="governor", level="ok", what=names)


def _jetson_supply(environment: Environment) -> Iterator[Finding]:
    counts = {name: count for name, count in environment.over_current.items() if count > 0}
    if counts:
        said = ", ".join(f"{_OVER_CURRENT.get(name, name)}: {count}" for name, count in sorted(counts.items()))
        yield Finding(
            id="supply",
            level="warn",
            what=f"slowed down since the start ({said} times)",
            why="The supply is too weak for this power mode, or its cable is. The counters should not move while a model runs.",
            fix="watch -n 1 'grep . /sys/class/hwmon/hwmon*/oc*_event_cnt'",
        )
    elif environment.over_current:
        yield Finding(id="supply", level="ok", what="no over-current since the start")


def _weak(device: Device, level: str, what: str) -> Finding:
    power = _SUPPLIES.get(device.board.soc, "5.1 V")
    return Finding(
        id="supply",
        level="fail" if level == "fail" else "warn",
        what=what,
        why=f"The firmware slows the processor down, and USB devices drop out. This board wants a supply of {power}.",
        fix=f"vcgencmd get_throttled  # says 0x0 with a supply of {power}, after a restart",
    )


def _hot(device: Device, level: str, what: str) -> Finding:
    tool = "vcgencmd measure_temp" if device.board.is_raspberry_pi else "grep . /sys/class/thermal/thermal_zone*/temp"
    return Finding(
        id="heat",
        level="warn" if level == "warn" else "note",
        what=what,
        why="Frame rates fall. It needs a heat sink, a fan, or fewer frames: ?fps=5 behind the source.",
        fix=f"watch -n 1 '{tool}'",
    )


def _untold(device: Device, what: str, why: str) -> Finding:
    if device.board.is_raspberry_pi and device.container:
        fix = "docker run --device /dev/vcio IMAGE"
    elif device.board.is_raspberry_pi:
        fix = "sudo apt-get install raspi-utils && sudo usermod -aG video $USER && exec su - $USER"
    else:
        fix = "grep . /sys/class/thermal/thermal_zone*/type /sys/class/hwmon/hwmon*/name"
    return Finding(
        id="heat",
        level="warn" if device.board.is_raspberry_pi else "note",
        what=what,
        why=f"{why.rstrip('.') or 'Nothing tells it'}. Unknown does not mean that all is well.",
        fix=fix,
    )
