"""What a device feels: on the trees of boards, while files change, vanish and lie."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from edgecv.devices.probes import device_gauges
from edgecv.devices.sensors.sensors import Sensors
from tests.boards import NAMES, lay_out, roots_of, write_tree

# Board -> sensor, degrees, limit, what slows it down, whether that can be told, watts.
EXPECTED = {
    "core-ultra-npu": ("x86_pkg_temp", 52.0, None, (), False, None),
    "intel-n100": ("x86_pkg_temp", 46.0, 95.0, (), False, None),
    "jetson-nano": ("CPU-therm", 36.5, 97.0, None, None, 2.136),
    "jetson-orin-container": ("tj-thermal", 48.9, 99.0, None, None, None),
    "jetson-orin-nano": ("tj-thermal", 48.9, 99.0, (), None, 6.1254),
    "jetson-xavier-nx": ("CPU-therm", 45.5, 90.5, None, None, 4.536),
    "pi-3b": ("cpu-thermal", 62.3, 80.0, ("under-voltage", "throttled"), True, None),
    "pi-4b": ("cpu-thermal", 48.2, 80.0, (), False, None),
    "pi-4b-coral-new": ("cpu-thermal", 48.2, 80.0, (), False, None),
    "pi-4b-coral-used": ("cpu-thermal", 48.2, 80.0, (), False, None),
    "pi-5": ("cpu-thermal", 55.1, 80.0, (), False, None),
    "pi-5-hailo-10h": ("cpu-thermal", 55.1, 80.0, (), False, None),
    "pi-cm5": ("cpu-thermal", 55.1, 80.0, (), None, None),
    "rk3588": ("soc-thermal", 41.615, 75.0, (), False, None),
    "xeon-vm-quota": ("", None, None, None, None, None),
    "zero-2-w-32bit": ("cpu-thermal", 51.54, None, (), False, None),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_board_feels_what_its_files_say(name: str, tmp_path: Path) -> None:
    laid = lay_out(name, tmp_path)
    with Sensors.of(laid.detect(), laid.roots) as sensors:
        reading = sensors.read()
    sensor, degrees, limit, now, slowed, watts = EXPECTED[name]
    assert (reading.sensor, reading.temperature_c, reading.limit_c) == (sensor, degrees, limit)
    assert (reading.throttle and reading.throttle.now) == now
    assert (reading.throttle and reading.throttle.slowed) == slowed
    if not name.startswith(("intel", "core")):  # their power is known from the second reading on
        assert reading.watts == (pytest.approx(watts) if watts is not None else None)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_known_has_a_reason(name: str, tmp_path: Path) -> None:
    with Sensors(lay_out(name, tmp_path).roots) as sensors:
        reading = sensors.read()
    missing = {key for key in ("temperature_c", "throttle", "watts") if getattr(reading, key) is None}
    assert missing <= reading.unknown.keys()
    assert ("clocks_mhz" in reading.unknown) == (not reading.clocks_mhz)
    assert json.loads(json.dumps(reading.as_dict()))["sensor"] == reading.sensor


def test_the_constant_of_a_power_chip_is_no_temperature(tmp_path: Path) -> None:
    with Sensors(lay_out("jetson-nano", tmp_path).roots) as sensors:
        reading = sensors.read()
    assert max(reading.temperatures_c.values()) < 50
    assert set(reading.temperatures_c) == {"CPU-therm", "GPU-therm", "PLL-therm"}


def test_a_sensor_that_is_switched_off_is_left_out(tmp_path: Path) -> None:
    """The kernel answers EIO for the zones 2 to 4."""
    with Sensors(lay_out("jetson-orin-nano", tmp_path).roots) as sensors:
        reading = sensors.read()
    assert "cv0-thermal" not in reading.temperatures_c
    assert reading.temperatures_c["soc1-thermal"] == 47.1


def _zones(folder: Path, *zones: tuple[str, str]) -> None:
    base = "sys/class/thermal/thermal_zone"
    for number, (kind, temperature) in enumerate(zones):
        write_tree({f"{base}{number}/type": kind, f"{base}{number}/temp": temperature}, folder)


@pytest.mark.parametrize(
    ("zones", "degrees"),
    [
        ((), None),
        ((("cpu-thermal", "48312\n"),), 48.312),
        ((("gpu-thermal", "70000\n"), ("cpu-thermal", "41000\n")), 41.0),
        ((("cpu-thermal", "41000\n"), ("tj-thermal", "")), 41.0),
        ((("cpu-thermal", "-256000\n"),), None),
        ((("cpu-thermal", "4294967295\n"), ("soc-thermal", "37000\n")), 37.0),
        ((("cpu-thermal", "0\n"),), None),
        ((("cpu-thermal", "asleep\n"),), None),
        ((("iwlwifi_1", "51000\n"), ("acpitz", "27800\n"), ("BAT0", "30000\n")), None),
        ((("x86_pkg_temp", "51000\n"), ("x86_pkg_temp", "62000\n")), 62.0),
        ((("CPU0-Thermal", "-12500\n"),), -12.5),
        ((("TCPU", "51000\n"),), 51.0),
    ],
)
def test_the_processor_is_known_by_the_type_of_its_zone(
    tmp_path: Path, zones: tuple[tuple[str, str], ...], degrees: float | None
) -> None:
    _zones(tmp_path, *zones)
    with Sensors(roots_of(tmp_path)) as sensors:
        assert sensors.read().temperature_c == degrees


@pytest.mark.parametrize(
    ("driver", "labels", "degrees"),
    [
        ("coretemp", {"temp1": ("Package id 0", 46000), "temp2": ("Core 0", 60000)}, 46.0),
        ("k10temp", {"temp1": ("Tctl", 70000), "temp3": ("Tccd1", 55000)}, 70.0),
        ("nvme", {"temp1": ("Composite", 40000)}, None),
    ],
)
def test_a_processor_without_a_zone_has_its_own_sensor(
    tmp_path: Path, driver: str, labels: dict[str, tuple[str, int]], degrees: float | None
) -> None:
    base = "sys/class/hwmon/hwmon0"
    files = {f"{base}/name": driver}
    for name, (label, value) in labels.items():
        files |= {f"{base}/{name}_label": label, f"{base}/{name}_input": str(value)}
    write_tree(files, tmp_path)
    with Sensors(roots_of(tmp_path)) as sensors:
        assert sensors.read().temperature_c == degrees


def test_a_zone_that_vanishes_is_unknown_until_it_comes_back(tmp_path: Path) -> None:
    _zones(tmp_path, ("cpu-thermal", "40000"))
    zone = tmp_path / "sys/class/thermal/thermal_zone0/temp"
    with Sensors(roots_of(tmp_path)) as sensors:
        assert sensors.read().temperature_c == 40.0
        zone.unlink()
        sensors.close()  # an open file of a test stays readable, which one of the kernel does not
        gone = sensors.read()
        assert gone.temperature_c is None
        assert "No such file" in gone.unknown["temperature_c"]
        zone.write_text("41000")
        assert sensors.read().temperature_c == 41.0


def test_a_pipe_in_the_place_of_a_file_holds_up_nothing(tmp_path: Path) -> None:
    _zones(tmp_path, ("cpu-thermal", "40000"))
    zone = tmp_path / "sys/class/thermal/thermal_zone0/temp"
    zone.unlink()
    os.mkfifo(zone)
    with Sensors(roots_of(tmp_path)) as sensors:
        assert sensors.read().temperature_c is None


def test_what_has_happened_before_is_no_event_and_what_happens_is_counted(tmp_path: Path) -> None:
    laid = lay_out("pi-3b", tmp_path)
    file = laid.roots.sys / "devices/platform/soc/soc:firmware/get_throttled"
    with Sensors(laid.roots) as sensors:
        counts = []
        for bits in ("50005", "50000", "50004", "0x50004", "50000", "50001", "d0000", "d0008"):
            file.write_text(bits + "\n")
            throttle = sensors.read().throttle
            assert throttle is not None
            counts.append(throttle.count)
    # 50004: it throttles again; 50001: too little voltage again; d0000: the soft limit was passed between two readings.
    assert counts == [0, 0, 1, 1, 1, 2, 3, 4]


@pytest.mark.parametrize("content", ["", "\n", "no\n", "fffffffff\n"])
def test_bits_that_cannot_be_read_are_unknown(tmp_path: Path, content: str) -> None:
    laid = lay_out("pi-4b", tmp_path)
    (laid.roots.sys / "devices/platform/soc/soc:firmware/get_throttled").write_text(content)
    with Sensors(laid.roots) as sensors:
        reading = sensors.read()
    assert reading.throttle is None
    assert "throttle" in reading.unknown


def test_without_its_file_a_pi_asks_the_firmware_once_in_ten_seconds(tmp_path: Path) -> None:
    laid, asked = lay_out("pi-cm5", tmp_path), []

    def run(*arguments: str) -> str:
        asked.append(arguments[1])
        return (
            "throttled=0x20002\n"
            if arguments[1] == "get_throttled"
            else " 3V3_A current(1)=1.5A\n 3V3_V volt(9)=2.0V\n"
        )

    with Sensors(laid.roots, run=run) as sensors:
        readings = [sensors.read() for _ in range(3)]
    assert sorted(asked) == ["get_throttled", "pmic_read_adc"]
    assert readings[-1].watts == 3.0
    assert readings[-1].throttle is not None
    assert (readings[-1].throttle.now, readings[-1].throttle.slowed) == (("frequency-cap",), True)


def test_an_alarm_of_the_supply_says_nothing_of_heat(tmp_path: Path) -> None:
    laid = lay_out("pi-cm5", tmp_path)
    with Sensors(laid.roots) as sensors:
        calm = sensors.read().throttle
        (laid.roots.sys / "class/hwmon/hwmon1/in0_lcrit_alarm").write_text("1\n")
        low = sensors.read().throttle
    assert calm is not None
    assert low is not None
    assert (calm.slowed, low.slowed, low.now, low.count) == (None, True, ("under-voltage",), 1)


def test_counters_are_told_as_their_change_since_the_start(tmp_path: Path) -> None:
    """The counter of peaks stood at 27,390 before."""
    laid = lay_out("jetson-orin-nano", tmp_path)
    peaks = laid.roots.sys / "class/hwmon/hwmon4/oc3_event_cnt"
    found = []
    with Sensors(laid.roots) as sensors:
        for count in (27390, 27400, 27400, 3):
            peaks.write_text(f"{count}\n")
            throttle = sensors.read().throttle
            assert throttle is not None
            found.append((throttle.now, throttle.events["over-current-peak"]))
    assert found == [((), 0), (("over-current-peak",), 10), ((), 10), (("over-current-peak",), 13)]


def test_a_core_that_gets_too_hot_is_counted_once(tmp_path: Path) -> None:
    """All cores of a package report what happens to it."""
    laid = lay_out("intel-n100", tmp_path)
    with Sensors(laid.roots) as sensors:
        for core in range(4):
            counter = laid.roots.sys / f"devices/system/cpu/cpu{core}/thermal_throttle/package_throttle_count"
            counter.write_text("5\n")
        throttle = sensors.read().throttle
    assert throttle is not None
    assert (throttle.now, throttle.count) == (("package-heat",), 2)


def test_the_kernel_slows_a_processor_by_its_cooling_device(tmp_path: Path) -> None:
    laid = lay_out("rk3588", tmp_path)
    with Sensors(laid.roots) as sensors:
        sensors.read()
        (laid.roots.sys / "class/thermal/cooling_device0/cur_state").write_text("3\n")
        throttle = sensors.read().throttle
    assert throttle is not None
    assert (throttle.now, throttle.count) == (("heat",), 1)


def test_energy_becomes_power_and_may_begin_anew(tmp_path: Path) -> None:
    laid = lay_out("intel-n100", tmp_path)
    energy = laid.roots.sys / "class/powercap/intel-rapl:0/energy_uj"
    with Sensors(laid.roots) as sensors:
        time.sleep(0.02)
        energy.write_text("1200000\n")
        first = sensors.read().watts
        time.sleep(0.02)
        energy.write_text("100000\n")  # beyond the end of its range
        second = sensors.read().watts
    assert first is not None
    assert second is not None
    assert 0 < first <= 10  # 0.2 J in 20 ms at least
    assert second > 1e6  # the range itself is 262 kJ


def test_a_counter_of_energy_that_only_root_may_read_says_so(tmp_path: Path) -> None:
    laid = lay_out("intel-n100", tmp_path)
    energy = laid.roots.sys / "class/powercap/intel-rapl:0/energy_uj"
    energy.unlink()
    energy.symlink_to("/proc/self/mem")
    with Sensors(laid.roots) as sensors:
        reading = sensors.read()
    assert reading.watts is None
    assert f"sudo chmod a+r {energy}" in reading.unknown["watts"]


def test_unused_rails_and_the_sum_of_shunts_are_not_added(tmp_path: Path) -> None:
    laid = lay_out("jetson-orin-nano", tmp_path)
    (laid.roots.sys / "bus/i2c/devices/1-0040/hwmon/hwmon1/in1_label").write_text("VDD_GPU\n")  # no total rail
    with Sensors(laid.roots) as sensors:
        watts = sensors.read().watts
    assert watts == pytest.approx(4.98 * (1.23 + 0.24 + 0.29))


def test_clocks_and_the_load_of_the_gpu_are_told(tmp_path: Path) -> None:
    with Sensors(lay_out("jetson-xavier-nx", tmp_path).roots) as sensors:
        reading = sensors.read()
    assert reading.clocks_mhz == {"0-1": 1420.8, "2-3": 1190.4, "4-5": 1190.4}
    assert reading.gpu_load == 0.412


def test_gauges_show_what_is_known_and_nothing_else(tmp_path: Path) -> None:
    laid = lay_out("pi-5", tmp_path / "pi")
    values = {gauge.name: gauge.read() for gauge in device_gauges(Sensors.of(laid.detect(), laid.roots))}
    assert values == {
        "device_temperature_c": 55.1,
        "device_temperature_limit_c": 80.0,
        "device_throttled": 0.0,
        "device_throttle_events": 0.0,
        "device_clock_mhz": 2400.0,
        "device_power_w": None,
    }
    nothing = {gauge.read() for gauge in device_gauges(Sensors(lay_out("xeon-vm-quota", tmp_path / "vm").roots))}
    assert nothing == {None}


def test_gauges_that_are_asked_together_share_a_reading_that_grows_old(tmp_path: Path) -> None:
    laid = lay_out("pi-4b", tmp_path)
    zone = laid.roots.sys / "class/thermal/thermal_zone0/temp"
    gauge = device_gauges(Sensors(laid.roots))[0]
    assert gauge.read() == 48.2
    zone.write_text("61000\n")
    assert gauge.read() == 48.2
    deadline = time.monotonic() + 5
    while gauge.read() != 61.0:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_reading_once_a_second_costs_less_than_a_hundredth_of_a_core(tmp_path: Path) -> None:
    with Sensors(lay_out("jetson-orin-nano", tmp_path).roots) as sensors:
        sensors.read()
        began = time.process_time()
        for _ in range(100):
            sensors.read()
        assert time.process_time() - began < 1.0


def test_a_cooling_device_of_the_kernel_says_nothing_of_what_a_pi_s_firmware_does(tmp_path: Path) -> None:
    laid = lay_out("pi-5", tmp_path)
    (laid.roots.sys / "devices/platform").rename(tmp_path / "gone")
    cooling = {"type": "cpufreq-cpu0\n", "cur_state": "0\n"}
    write_tree({f"sys/class/thermal/cooling_device9/{name}": text for name, text in cooling.items()}, tmp_path)
    with Sensors(laid.roots) as sensors:
        throttle = sensors.read().throttle
    assert throttle is not None
    assert throttle.slowed is None


def test_a_pi_is_known_where_a_container_hides_the_first_place_of_the_device_tree(tmp_path: Path) -> None:
    laid = lay_out("pi-cm5", tmp_path)
    (laid.roots.sys / "firmware/devicetree").mkdir(parents=True, exist_ok=True)
    (laid.roots.proc / "device-tree").rename(laid.roots.sys / "firmware/devicetree/base")
    with Sensors(laid.roots, run=lambda *_: "throttled=0x2\n") as sensors:
        throttle = sensors.read().throttle
    assert throttle is not None
    assert throttle.now == ("frequency-cap",)
