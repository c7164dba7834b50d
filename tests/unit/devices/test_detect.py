from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edgecv import registry
from edgecv.devices.detect import describe, detect
from edgecv.runtimes import DISTRIBUTIONS
from tests.unit.devices.boards import ORIN, PI5, X86, X86_CPUINFO, lay_out


@pytest.mark.parametrize(
    ("files", "arch", "board", "source", "total_bytes"),
    [
        (PI5, "aarch64", "Raspberry Pi 5 Model B Rev 1.0", "device-tree", 8255616 * 1024),
        (ORIN, "aarch64", "NVIDIA Jetson Orin Nano Developer Kit", "device-tree", 7802784 * 1024),
        (X86, "x86_64", "LENOVO ThinkCentre M75q", "dmi", 24684092 * 1024),
    ],
)
def test_board_and_memory_of_known_machines(tmp_path, files, arch, board, source, total_bytes):
    device = detect(lay_out(files, tmp_path), arch)
    assert (device.board.name, device.board.source) == (board, source)
    assert device.memory.total_bytes == total_bytes
    assert device.arch == arch


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (PI5, [("hailo", "hailo0", ""), ("gpu", "renderD128", "v3d")]),
        (ORIN, [("nvidia", "nvhost-gpu", "")]),
        (X86, [("nvidia", "nvidia0", ""), ("edgetpu", "apex_0", "")]),
    ],
)
def test_accelerators_are_found_by_their_nodes(tmp_path, files, found):
    device = detect(lay_out(files, tmp_path), "aarch64")
    assert [(a.kind, a.node.rpartition("/")[2], a.driver) for a in device.accelerators] == found


def test_system_and_kernel_are_read(tmp_path):
    pi, orin = detect(lay_out(PI5, tmp_path / "pi")), detect(lay_out(ORIN, tmp_path / "orin"))
    assert (pi.os, pi.kernel) == ("Debian GNU/Linux 12 (bookworm)", "6.6.31+rpt-rpi-2712")
    assert orin.os == "Ubuntu 22.04.4 LTS"


def test_a_memory_limit_of_a_container_is_read(tmp_path):
    assert detect(lay_out(X86, tmp_path / "limited")).memory.limit_bytes == 2**31
    assert detect(lay_out(X86 | {"sys/fs/cgroup/memory.max": "max\n"}, tmp_path / "free")).memory.limit_bytes is None


@pytest.mark.parametrize(
    ("product", "board", "name"),
    [
        ("To Be Filled By O.E.M.", "X570 Taichi", "ASRock X570 Taichi"),
        ("Default string", "Default string", "virtual machine"),
    ],
)
def test_placeholders_of_the_firmware_are_no_name(tmp_path, product, board, name):
    dmi = {
        "proc/cpuinfo": X86_CPUINFO,
        "sys/class/dmi/id/sys_vendor": "To Be Filled By O.E.M.",
        "sys/class/dmi/id/product_name": product,
        "sys/class/dmi/id/board_vendor": "ASRock",
        "sys/class/dmi/id/board_name": board,
    }
    assert detect(lay_out(dmi, tmp_path), "x86_64").board.name == name


def test_a_machine_that_says_nothing_is_described_without_guesses(tmp_path):
    device = detect(lay_out({}, tmp_path), "riscv64")
    assert (device.board.name, device.board.source) == ("", "unknown")
    assert device.memory.total_bytes is None
    assert device.accelerators == ()
    assert dict(describe(device))["memory"] == "unknown in all, unknown available"


def test_this_machine_can_be_described_and_stored_as_json():
    device = detect()
    assert json.loads(json.dumps(device.as_dict()))["cpu"]["cores"] >= 1
    assert device.usable_cores >= 1
    assert "onnxruntime" in device.runtimes
    assert all(text for _, text in describe(device))


HEAVY = {"numpy", "onnxruntime", "openvino", "ai_edge_litert", "cv2", "torch"}


@pytest.mark.parametrize(
    "code", ["from edgecv.devices.detect import detect; detect()", "sys.argv[1:] = ['devices', '--json']; main()"]
)
def test_neither_numpy_nor_a_runtime_is_imported(code):
    program = (
        "import sys\nfrom edgecv.cli.entry import main\n"
        f"try:\n    {code}\nexcept SystemExit:\n    pass\nprint(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    modules = set(done.stderr.split())
    assert done.returncode == 0
    assert "edgecv.devices.detect" in modules
    assert not modules & HEAVY


def test_a_runtime_says_what_devices_look_for():
    for runtime, names in DISTRIBUTIONS.items():
        assert registry.resolve("runtimes", runtime).distributions == names
    assert set(DISTRIBUTIONS) <= set(registry.names("runtimes"))
