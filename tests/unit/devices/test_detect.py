"""``detect`` on what no tree of a board has, and on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgecv import registry
from edgecv.devices.describe import describe
from edgecv.devices.detect import detect
from edgecv.runtimes import DISTRIBUTIONS
from tests.boards import cpuinfo, lay_out, roots_of, write_tree


@pytest.mark.parametrize(
    ("product", "board", "name"),
    [
        ("To Be Filled By O.E.M.", "X570 Taichi", "ASRock X570 Taichi"),
        ("Default string", "Default string", "virtual machine"),
    ],
)
def test_placeholders_of_the_firmware_are_no_name(tmp_path: Path, product: str, board: str, name: str) -> None:
    dmi = {
        "proc/cpuinfo": cpuinfo("xeon-vm-quota"),
        "sys/class/dmi/id/sys_vendor": "To Be Filled By O.E.M.",
        "sys/class/dmi/id/product_name": product,
        "sys/class/dmi/id/board_vendor": "ASRock",
        "sys/class/dmi/id/board_name": board,
    }
    write_tree(dmi, tmp_path)
    assert detect(roots_of(tmp_path), "x86_64").board.name == name


def test_a_machine_that_says_nothing_is_described_without_guesses(tmp_path: Path) -> None:
    device = detect(roots_of(tmp_path), "riscv64")
    assert (device.board.name, device.board.source) == ("", "unknown")
    assert (device.memory.total_bytes, device.jetson, device.power_mode) == (None, None, None)
    assert (device.accelerators, device.effective_cpus) == ((), 1)
    assert dict(describe(device))["memory"] == "unknown in all, unknown available"


def test_this_machine_can_be_described_and_stored_as_json() -> None:
    device = detect()
    assert json.loads(json.dumps(device.as_dict()))["cpu"]["cores"] >= 1
    assert 1 <= device.effective_cpus <= device.usable_cores
    assert "onnxruntime" in device.runtimes
    assert all(text for _, text in describe(device))


def test_the_fingerprint_stays_and_tells_devices_apart(tmp_path: Path) -> None:
    pi5, again, pi4 = (
        lay_out(name, tmp_path / str(at)).detect().fingerprint for at, name in enumerate(("pi-5", "pi-5", "pi-4b"))
    )
    assert pi5 == again != pi4
    assert len(pi5) == 16


def test_a_coral_that_changed_its_number_is_the_same_device(tmp_path: Path) -> None:
    new = lay_out("pi-4b-coral-new", tmp_path / "new").detect()
    used = lay_out("pi-4b-coral-used", tmp_path / "used").detect()
    assert new.fingerprint == used.fingerprint
    assert new.accelerators[0].id != used.accelerators[0].id


def test_neither_free_memory_nor_a_quota_changes_the_fingerprint(tmp_path: Path) -> None:
    before = lay_out("pi-5", tmp_path).detect()
    write_tree(
        {
            "proc/meminfo": "MemTotal: 8100000 kB\nMemAvailable: 100 kB\n",
            "sys/fs/cgroup/cpu.max": "100000 100000",
        },
        tmp_path,
    )
    after = detect(roots_of(tmp_path), "aarch64")
    assert (before.effective_cpus, after.effective_cpus) == (4, 1)
    assert before.fingerprint == after.fingerprint


def test_a_runtime_says_what_devices_look_for() -> None:
    for runtime, names in DISTRIBUTIONS.items():
        assert registry.resolve("runtimes", runtime).distributions == names
    assert set(DISTRIBUTIONS) <= set(registry.names("runtimes"))


def test_no_runtime_and_no_numpy_is_imported() -> None:
    foreign = "('onnxruntime', 'openvino', 'ai_edge_litert', 'cv2', 'torch', 'numpy')"
    code = (
        "import sys; from edgecv.devices.describe import describe; from edgecv.devices.detect import detect;"
        "from edgecv.devices.profiles import profile_of; device = detect(); describe(device); profile_of(device);"
        f"print(*(name for name in {foreign} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr
