"""What ``detect`` says of the boards in ``tests/fixtures/devices``: each tree says what of it was recorded."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edgecv.devices.describe import describe
from edgecv.devices.profiles import profile_of
from tests.boards import NAMES, TREES, lay_out, write_tree

# Board -> its profile, chip, class, effective CPUs, memory that is fitted in GiB.
EXPECTED = {
    "core-ultra-npu": ("x86-vnni", "", "x86-vnni", 16, None),
    "intel-n100": ("intel-n100", "", "x86-vnni", 4, None),
    "jetson-nano": ("jetson-nano", "tegra210", "arm64", 4, None),
    "jetson-orin-container": ("jetson-orin-nano", "tegra234", "arm64", 3, None),
    "jetson-orin-nano": ("jetson-orin-nano", "tegra234", "arm64", 6, None),
    "jetson-xavier-nx": ("jetson-xavier", "tegra194", "arm64", 6, None),
    "pi-3b": ("raspberry-pi-3", "bcm2837", "arm64", 4, 1),
    "pi-4b": ("raspberry-pi-4", "bcm2711", "arm64", 4, 8),
    "pi-4b-coral-new": ("raspberry-pi-4", "bcm2711", "arm64", 4, 8),
    "pi-4b-coral-used": ("raspberry-pi-4", "bcm2711", "arm64", 4, 8),
    "pi-5": ("raspberry-pi-5", "bcm2712", "arm64", 4, 8),
    "pi-5-hailo-10h": ("raspberry-pi-5", "bcm2712", "arm64", 4, 8),
    "pi-cm5": ("raspberry-pi-5", "bcm2712", "arm64", 4, 4),
    "rk3588": ("rk3588", "rk3588", "arm64", 8, None),
    "xeon-vm-quota": ("x86-vnni", "", "x86-vnni", 1, None),
    "zero-2-w-32bit": ("generic", "bcm2837", "other", 4, 0.5),
}
# Board -> its accelerators: name, state, a word of what is missing, a word of what mends it.
ACCELERATORS = {
    "core-ultra-npu": [
        ("Intel NPU", "driven", "may not open", "usermod -aG render"),
        ("Intel GPU", "driven", "may not open", "usermod -aG render"),
    ],
    "intel-n100": [("Intel GPU", "driven", "intel.icd", "apt-get install intel-opencl-icd")],
    "jetson-nano": [("NVIDIA Jetson GPU", "driven", "onnxruntime-gpu", "")],
    "jetson-orin-container": [("NVIDIA Jetson GPU", "seen", "container", "docker run --runtime nvidia")],
    "jetson-orin-nano": [("NVIDIA Jetson GPU", "usable", "", "")],
    "jetson-xavier-nx": [("NVIDIA Jetson GPU", "driven", "onnxruntime-gpu", "")],
    "pi-4b": [("GPU", "driven", "no runtime", "")],
    "pi-4b-coral-new": [("Coral USB Accelerator", "usable", "", "")],
    "pi-4b-coral-used": [("Coral USB Accelerator", "usable", "", "")],
    "pi-5": [("Hailo-8 or Hailo-8L", "usable", "", ""), ("GPU", "driven", "no runtime", "")],
    "pi-5-hailo-10h": [("Hailo-10H", "seen", "hailo1x_pci", "hailo-h10-all"), ("GPU", "driven", "no runtime", "")],
    "pi-cm5": [("GPU", "driven", "no runtime", "")],
    "rk3588": [("Rockchip NPU", "driven", "librknnrt.so", ""), ("GPU", "driven", "no runtime", "")],
}
# What stands in the trees and must never be told.
_SECRETS = re.compile("c0ffee42", re.IGNORECASE)


def test_every_tree_says_what_of_it_was_recorded() -> None:
    assert sorted(EXPECTED) == NAMES
    for name in NAMES:
        text = (TREES / name / "tree.toml").read_text()
        assert re.search(r'^origin = ".*(recorded|reconstructed)', text, re.MULTILINE), name


@pytest.mark.parametrize("name", NAMES)
def test_a_board_is_known_by_its_tree(name: str, tmp_path: Path) -> None:
    device = lay_out(name, tmp_path).detect()
    gibibytes = device.memory.fitted_bytes and device.memory.fitted_bytes / 2**30
    found = (profile_of(device).name, device.board.soc, device.cpu.cpu_class, device.effective_cpus, gibibytes)
    assert found == EXPECTED[name]


@pytest.mark.parametrize("name", NAMES)
def test_accelerators_have_their_state_and_what_mends_it(name: str, tmp_path: Path) -> None:
    found = lay_out(name, tmp_path).detect().accelerators
    expected = ACCELERATORS.get(name, [])
    assert [(one.name, one.state) for one in found] == [row[:2] for row in expected]
    for one, (_, state, reason, fix) in zip(found, expected, strict=True):
        assert reason in one.reason
        assert fix in one.fix
        assert bool(one.reason) == (state != "usable")
        assert "\n" not in one.fix


@pytest.mark.parametrize("name", NAMES)
def test_no_serial_number_is_told(name: str, tmp_path: Path) -> None:
    device = lay_out(name, tmp_path).detect()
    assert not _SECRETS.search(json.dumps(device.as_dict()))
    assert not _SECRETS.search(str(describe(device)))


@pytest.mark.parametrize(
    ("name", "l4t", "jetpack", "module", "capability", "mode"),
    [
        ("jetson-nano", "32.7.1", "4.6", "p3448-0000", "5.3", ("5W", 1, True)),
        ("jetson-xavier-nx", "35.4.1", "5.1.2", "p3668-0000", "7.2", ("MODE_15W_6CORE", 2, True)),
        ("jetson-orin-nano", "36.4.3", "6.2", "p3767-0005", "8.7", ("15W", 0, False)),
        ("jetson-orin-container", "", "", "p3767-0005", "8.7", None),
    ],
)
def test_a_jetson_says_its_release_and_mode(
    name: str, l4t: str, jetpack: str, module: str, capability: str, mode: tuple[str, int, bool] | None, tmp_path: Path
) -> None:
    device = lay_out(name, tmp_path).detect()
    assert device.jetson is not None
    jetson, power = device.jetson, device.power_mode
    assert (jetson.l4t, jetson.jetpack, jetson.module) == (l4t, jetpack, module)
    assert jetson.compute_capability == capability
    assert (power and (power.name, power.number, power.holds)) == mode


def test_limits_above_the_process_count(tmp_path: Path) -> None:
    device = lay_out("xeon-vm-quota", tmp_path).detect()
    assert (device.usable_cores, device.quota_cpus, device.effective_cpus) == (64, 0.5, 1)
    assert device.memory.limit_bytes == 2**30


def test_kinds_of_cores_are_told_apart(tmp_path: Path) -> None:
    clusters = lay_out("rk3588", tmp_path).detect().cpu.clusters
    assert [(one.name, one.cores, one.max_mhz) for one in clusters] == [
        ("Cortex-A55", 4, 1800),
        ("Cortex-A76", 4, 2400),
    ]


def test_two_cards_of_a_kind_have_a_node_each(tmp_path: Path) -> None:
    laid = lay_out("pi-5", tmp_path)
    second = laid.roots.sys / "bus/pci/devices/0002:01:00.0"
    second.mkdir()
    for name, text in (("vendor", "0x1e60"), ("device", "0x2864"), ("class", "0x120000")):
        (second / name).write_text(text)
    (second / "driver").symlink_to("../../drivers/hailo")
    (laid.roots.dev / "hailo1").touch()
    cards = [one for one in laid.detect().accelerators if one.kind == "hailo"]
    assert [Path(one.node).name for one in cards] == ["hailo0", "hailo1"]


def test_a_node_without_its_bus_is_found(tmp_path: Path) -> None:
    """In a container the buses may be hidden."""
    laid = lay_out("pi-5", tmp_path)
    (laid.roots.sys / "bus/pci/devices/0001:01:00.0/vendor").unlink()
    card = laid.detect().accelerators[0]
    assert (card.kind, card.state, card.id) == ("hailo", "usable", "")


def test_two_graphics_cards_each_have_the_name_of_their_own_node(tmp_path: Path) -> None:
    laid = lay_out("intel-n100", tmp_path)
    cards = {"0000:01:00.0": ("NVIDIA T4", 1), "0000:02:00.0": ("NVIDIA A2", 0)}
    files = {
        f"proc/driver/nvidia/gpus/{place}/information": f"Model: \t {name}\nGPU UUID: \t GPU-1\nDevice Minor: \t {minor}\n"
        for place, (name, minor) in cards.items()
    }
    write_tree({**files, "dev/nvidia0": "", "dev/nvidia1": ""}, tmp_path)
    found = {Path(one.node).name: one.name for one in laid.detect().accelerators if one.kind == "nvidia"}
    assert found == {"nvidia0": "NVIDIA A2", "nvidia1": "NVIDIA T4"}
