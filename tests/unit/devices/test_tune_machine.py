"""What tuning takes from the description of a board."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecv.devices.roots import Roots
from edgecv.devices.sensors.sensors import Sensors
from edgecv.devices.tuning.cells import cells_of, thread_counts
from edgecv.devices.tuning.disturbance import Disturbance
from edgecv.devices.tuning.machine import machine_of, this_machine
from tests.boards import NAMES, lay_out


@pytest.mark.parametrize("name", NAMES)
def test_every_board_has_an_order_and_threads(name: str, tmp_path: Path) -> None:
    device = lay_out(name, tmp_path).detect()
    machine = machine_of(device)
    assert machine.order[0][0] == "int8"
    assert machine.usable_cpus == device.effective_cpus >= 1
    assert machine.fingerprint == device.fingerprint


def test_the_order_of_a_raspberry_pi_is_that_of_its_profile(tmp_path: Path) -> None:
    machine = machine_of(lay_out("pi-5", tmp_path).detect())
    assert (machine.profile, machine.order[0]) == ("raspberry-pi-5", ("int8", "litert"))


def test_the_big_cores_alone_are_worth_a_try(tmp_path: Path) -> None:
    machine = machine_of(lay_out("rk3588", tmp_path).detect())
    assert (machine.usable_cpus, machine.more_threads, machine.big_cores) == (8, 0, (4, 5, 6, 7))
    cells = cells_of([("onnx-int8", "int8", "onnxruntime")], thread_counts(8, 0), ("cpu",), machine.big_cores)
    assert [(cell.threads, cell.cores) for cell in cells] == [(8, ()), (4, (4, 5, 6, 7)), (2, ()), (1, ())]
    assert str(cells[1]) == "onnx-int8 on onnxruntime, 4 threads on the cores 4, 5, 6, 7"


def test_a_quota_below_the_big_cores_counts(tmp_path: Path) -> None:
    machine = machine_of(lay_out("rk3588", tmp_path).detect())
    cells = cells_of([("onnx-int8", "int8", "onnxruntime")], thread_counts(2), ("cpu",), machine.big_cores)
    assert [(cell.threads, cell.cores) for cell in cells] == [(2, ()), (2, (4, 5, 6, 7)), (1, ())]


def test_where_only_the_big_cores_are_usable_there_is_nothing_to_choose(tmp_path: Path) -> None:
    laid = lay_out("rk3588", tmp_path)
    status = tmp_path / "proc/self/status"
    status.write_text(status.read_text().replace("0-7", "4-7").replace("ff", "f0"))
    machine = machine_of(laid.detect())
    assert (machine.usable_cpus, machine.big_cores) == (4, ())


def test_a_board_with_cores_of_one_kind_has_no_big_ones(tmp_path: Path) -> None:
    assert machine_of(lay_out("pi-5", tmp_path).detect()).big_cores == ()


def test_a_power_mode_has_its_number_and_its_name(tmp_path: Path) -> None:
    assert machine_of(lay_out("jetson-orin-nano", tmp_path).detect()).power_mode == "0 15W"


def test_this_machine_is_looked_at_once() -> None:
    assert this_machine() is this_machine()


def test_a_counter_that_moves_is_told_once(tmp_path: Path) -> None:
    counter = tmp_path / "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count"
    counter.parent.mkdir(parents=True)
    counter.write_text("7\n")
    with Sensors(Roots(**{name: tmp_path / name for name in ("proc", "sys", "dev", "etc")})) as sensors:
        disturbed = Disturbance(sensors)
        assert disturbed() == ""
        counter.write_text("9\n")
        assert disturbed() == "the device throttled"
        assert disturbed() == ""
        counter.unlink()
        assert disturbed() == "", "a counter that vanishes tells nothing"
