"""``edgecv doctor`` finds every fault of the boards in ``tests/fixtures/devices`` and holds nothing against a healthy one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgecv.devices.device import Accelerator, Device, State
from edgecv.devices.doctor.checks.parts import _accelerator
from edgecv.devices.doctor.doctor import diagnose
from edgecv.devices.doctor.environment import Environment
from edgecv.devices.doctor.finding import Finding, has_failed, summary
from edgecv.devices.doctor.native import Native
from edgecv.devices.doctor.pairs import bad_pairs, fits, packages_asked_for
from edgecv.devices.doctor.system_packages import debian_versions, tensorrt_majors
from edgecv.devices.sensors.throttle import Throttle
from edgecv.devices.tables import table
from tests.boards import NAMES, around, lay_out

# Board -> what was planted: id, level, a word of what is said, a word of the line to paste.
PLANTED = {
    "core-ultra-npu": [
        ("accelerator-npu", "warn", "may not open", "usermod -aG render"),
        ("accelerator-gpu", "warn", "may not open", "usermod -aG render"),
    ],
    "intel-n100": [("accelerator-gpu", "warn", "intel.icd", "apt-get install intel-opencl-icd")],
    "jetson-nano": [
        ("power-mode", "note", "5W", "nvpmodel -m 0"),
        ("accelerator-nvidia", "note", "onnxruntime-gpu", "edgecv devices"),
    ],
    "jetson-orin-container": [
        ("accelerator-nvidia", "warn", "container", "docker run --runtime nvidia"),
        ("jetson", "note", "unknown", "-v /etc/nv_tegra_release"),
        ("cpus", "note", "quota of 3", "docker update --cpus"),
    ],
    "jetson-orin-nano": [
        ("power-mode", "warn", "15W", "nvpmodel -m 0"),
        ("supply", "warn", "27390", "oc*_event_cnt"),
    ],
    "jetson-xavier-nx": [("accelerator-nvidia", "note", "onnxruntime-gpu", "edgecv devices")],
    "pi-3b": [
        ("supply", "fail", "under-voltage at this moment", "2.5 A"),
        ("heat", "warn", "slower at this moment", "vcgencmd measure_temp"),
    ],
    "pi-5-hailo-10h": [("accelerator-hailo", "warn", "hailo1x_pci", "hailo-h10-all")],
    "pi-cm5": [("heat", "warn", "nothing tells", "usermod -aG video")],
    "rk3588": [("accelerator-npu", "warn", "librknnrt.so", "librknnrt.so")],
    "xeon-vm-quota": [("cpus", "warn", "0.5", "kubectl set resources")],
    "zero-2-w-32bit": [("system", "fail", "32-bit", "raspios_lite_arm64")],
}
HEALTHY = ("pi-4b", "pi-4b-coral-new", "pi-4b-coral-used", "pi-5")


def _seen(name: str, folder: Path) -> tuple[Device, Environment]:
    laid = lay_out(name, folder)
    device = laid.detect()
    return device, around(laid, device)


def _one(findings: tuple[Finding, ...], wanted: str) -> Finding:
    return next(one for one in findings if one.id == wanted)


@pytest.mark.parametrize("name", PLANTED)
def test_every_planted_fault_is_found_with_its_line_to_paste(name: str, tmp_path: Path) -> None:
    findings = diagnose(*_seen(name, tmp_path))
    for wanted, level, what, fix in PLANTED[name]:
        found = [one for one in findings if one.id == wanted and what in one.what]
        assert [one.level for one in found] == [level], findings
        assert fix in found[0].fix


@pytest.mark.parametrize("name", NAMES)
def test_nothing_fails_or_warns_but_what_was_planted(name: str, tmp_path: Path) -> None:
    findings = diagnose(*_seen(name, tmp_path))
    planted = {(wanted, level) for wanted, level, _, _ in PLANTED.get(name, ())}
    bad = {(one.id, one.level) for one in findings if one.level in ("fail", "warn")}
    assert bad <= planted
    assert has_failed(findings) == (name in ("pi-3b", "zero-2-w-32bit"))


def test_every_board_is_planted_or_healthy() -> None:
    assert sorted((*PLANTED, *HEALTHY)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_well_has_a_reason_and_one_line_to_paste(name: str, tmp_path: Path) -> None:
    for one in diagnose(*_seen(name, tmp_path)):
        assert one.what
        assert bool(one.why and one.fix) == (one.level != "ok"), one
        assert "\n" not in one.fix


def test_the_worst_comes_first_and_the_count_is_said(tmp_path: Path) -> None:
    findings = diagnose(*_seen("pi-3b", tmp_path), [lambda: Finding(id="source", level="fail", what="no")])
    levels = [one.level for one in findings]
    assert levels == sorted(levels, key=["fail", "warn", "note", "ok"].index)
    assert summary(findings).startswith("2 fail, 1 warn, ")


# What changes around a healthy Raspberry Pi 4 -> id, level, a word of what is said, a word of the line to paste.
CHANGES: list[tuple[dict[str, Any], str, str, str, str]] = [
    ({"free_bytes": 50 * 2**20}, "disk", "fail", "50 MiB", "journalctl --vacuum"),
    ({"free_bytes": 500 * 2**20}, "disk", "warn", "500 MiB", "journalctl --vacuum"),
    ({"free_bytes": None, "folder": "/a b; reboot"}, "disk", "note", "not told", "df -h -- '/a b; reboot'"),
    ({"shm_free_bytes": 2**20}, "shm", "note", "1 MiB", "mount -t tmpfs"),
    ({"shm_free_bytes": None}, "shm", "note", "no /dev/shm", "mount -t tmpfs"),
    ({"now_s": 0.0}, "clock", "fail", "1970-01-01", "set-ntp true"),
    ({"synced": False}, "clock", "warn", "no time server", "set-ntp true"),
    ({"pressure": False}, "pressure", "note", "/proc/pressure", "psi=1"),
    ({"pi_bits": 1 << 16}, "supply", "warn", "since the start", "5.1 V and 3 A"),
    ({"pi_bits": 1 << 18}, "heat", "note", "since the start", "measure_temp"),
    ({"governors": frozenset({("cpufreq-dt", "powersave")})}, "governor", "warn", "powersave", "schedutil"),
    ({"closed_cameras": ("/dev/video0",)}, "cameras", "warn", "/dev/video0", "usermod -aG video"),
    ({"natives": ()}, "runtimes", "fail", "no runtime", "pip install ai-edge-litert"),
    ({"packages": {"pycoral": "0.2.0"}}, "pycoral", "warn", "unrelated", "pip uninstall -y pycoral"),
    ({"packages": {"onnxruntime": "1.21.0"}}, "onnxruntime-a72", "fail", "illegal", "onnxruntime!=1.21.0"),
]


@pytest.mark.parametrize(("change", "wanted", "level", "what", "fix"), CHANGES, ids=lambda value: str(value)[:40])
def test_what_is_wrong_around_a_board_is_found(
    change: dict[str, Any], wanted: str, level: str, what: str, fix: str, tmp_path: Path
) -> None:
    device, environment = _seen("pi-4b", tmp_path)
    found = _one(diagnose(device, replace(environment, **change)), wanted)
    assert (found.level, what in found.what, fix in found.fix) == (level, True, True), found


def test_the_governor_that_adapts_is_none_that_saves_power(tmp_path: Path) -> None:
    device, environment = _seen("intel-n100", tmp_path)
    for driver in ("intel_pstate", "amd-pstate-epp", ""):
        changed = replace(environment, governors=frozenset({(driver, "powersave")}))
        assert _one(diagnose(device, changed), "governor").level == "ok"


def test_driver_and_library_of_a_hailo_are_compared(tmp_path: Path) -> None:
    device, environment = _seen("pi-5", tmp_path)
    packages = {"hailort": "4.20.0"}
    same = replace(environment, packages=packages, modules={"hailo_pci": "4.20.0"})
    assert not [one for one in diagnose(device, same) if one.id == "hailo-versions"]
    other = replace(environment, packages=packages, modules={"hailo_pci": "4.17.0"})
    found = _one(diagnose(device, other), "hailo-versions")
    assert (found.level, "4.17.0" in found.what) == ("fail", True)


def test_library_and_package_of_a_rockchip_npu_are_compared(tmp_path: Path) -> None:
    device, environment = _seen("rk3588", tmp_path)
    changed = replace(environment, packages={"rknn-toolkit-lite2": "2.5.0"}, rknn_library="2.3.2")
    assert _one(diagnose(device, changed), "rknn-versions").level == "warn"


def _with_memryx(tmp_path: Path) -> tuple[Device, Environment]:
    device, environment = _seen("pi-5", tmp_path)
    card = Accelerator(
        kind="memryx",
        name="MemryX MX3",
        state="usable",
        id="1fe9:0100",
        node="/dev/memx0",
        driver="memx",
        reason="",
        fix="",
    )
    return replace(device, accelerators=(card,)), environment


def test_the_three_parts_of_a_memryx_are_compared_by_the_release_of_their_sdk(tmp_path: Path) -> None:
    device, environment = _with_memryx(tmp_path)
    debian = {"memx-drivers": "2.1.0-1", "memx-accl": "2.1.0"}
    same = replace(environment, packages={"memryx": "2.1.4"}, debian=debian)
    assert not [one for one in diagnose(device, same) if one.id == "memryx-versions"]
    found = _one(diagnose(device, replace(same, packages={"memryx": "2.2.0"})), "memryx-versions")
    assert (found.level, "memx-drivers is 2.1.0-1" in found.what, "memryx is 2.2.0" in found.what) == (
        "warn",
        True,
        True,
    )
    assert "https://developer.memryx.com/pip" in found.fix
    without = replace(_seen("pi-5", tmp_path / "no card")[0], accelerators=())
    assert not [
        one for one in diagnose(without, replace(same, debian={"memx-accl": "2.0"})) if one.id == "memryx-versions"
    ]


def test_versions_of_debian_packages_are_read_and_removed_ones_are_not(tmp_path: Path) -> None:
    status = tmp_path / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text(
        "Package: memx-drivers\nStatus: install ok installed\nVersion: 2.1.0-1\n\n"
        "Package: memx-accl\nStatus: deinstall ok config-files\nVersion: 2.0.0\n\nPackage: memx-drivers-extra\nVersion: 9\n"
    )
    assert debian_versions(tmp_path, ("memx-drivers", "memx-accl")) == {"memx-drivers": "2.1.0-1"}
    assert debian_versions(tmp_path / "nowhere", ("memx-drivers",)) == {}


@pytest.mark.parametrize(
    ("version", "libraries", "found"),
    [
        ("1.31.1", ["libnvinfer.so.11", "libnvinfer.so.11.3.0"], True),
        ("1.31.1", ["libnvinfer.so.10", "libnvinfer.so.11"], False),
        ("1.31.1", [], False),
        ("1.17.0", ["libnvinfer.so.8"], False),
        ("", ["libnvinfer.so.11"], False),
    ],
)
def test_the_tensorrt_of_the_system_is_compared_with_what_onnxruntime_was_built_for(
    version: str, libraries: list[str], found: bool, tmp_path: Path
) -> None:
    device, environment = _seen("intel-n100", tmp_path)
    folder = tmp_path / "root/usr/lib/x86_64-linux-gnu"
    folder.mkdir(parents=True)
    for name in libraries:
        (folder / name).touch()
    changed = replace(environment, packages={"onnxruntime-gpu": version}, tensorrt=tensorrt_majors(tmp_path / "root"))
    said = [one for one in diagnose(device, changed) if one.id == "onnxruntime-tensorrt"]
    assert [one.level for one in said] == ["warn"] * found
    assert all("libnvinfer.so.11" in one.what and "<11" in one.fix for one in said)


def test_the_version_is_found_in_the_library_of_a_rockchip_npu(tmp_path: Path) -> None:
    laid = lay_out("rk3588", tmp_path)
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/librknnrt.so").write_bytes(b"\x7fELF\0\0librknnrt version: 2.3.2 (429f97)\0")
    assert around(laid, laid.detect()).rknn_library == "2.3.2"


# Package, version, board, other packages -> the finding, a word of its line to paste.
PAIRS = [
    ("onnxruntime-gpu", "1.31.1", "jetson-orin-nano", {}, "onnxruntime-gpu-jetson", "pypi.jetson-ai-lab.io/jp6/cu126"),
    ("onnxruntime-gpu", "1.31.1", "jetson-xavier-nx", {}, "onnxruntime-gpu-jetson", "pip install onnxruntime"),
    ("onnxruntime-gpu", "1.23.0", "jetson-orin-nano", {}, "", ""),
    ("onnxruntime-gpu", "1.31.1", "intel-n100", {"onnxruntime": "1.32.0"}, "onnxruntime-twice", "uninstall"),
    ("onnxruntime-gpu", "1.31.1", "intel-n100", {"tensorrt": "11.0.0"}, "onnxruntime-tensorrt", "<11"),
    ("onnxruntime-gpu", "1.31.1", "intel-n100", {"tensorrt": "10.13.0"}, "", ""),
    ("onnxruntime", "1.21.0", "pi-4b", {}, "onnxruntime-a72", "!=1.21.0"),
    ("onnxruntime", "1.21.0", "pi-5", {}, "", ""),
    ("onnxruntime", "1.21.1", "pi-4b", {}, "", ""),
    ("tflite-runtime", "2.14.0", "pi-4b", {"numpy": "2.4.6"}, "tflite-runtime-numpy", "numpy<2"),
    ("tflite-runtime", "2.14.0", "pi-4b", {"numpy": "1.26.4"}, "", ""),
    ("tflite-runtime", "2.14.0", "pi-4b", {"numpy": "2.4.6", "ai-edge-litert": "2.3.0"}, "", ""),
    ("pycoral", "2.0.0", "pi-4b", {}, "", ""),
]


@pytest.mark.parametrize(("package", "version", "board", "others", "wanted", "fix"), PAIRS)
def test_known_bad_releases_are_told_for_the_boards_they_are_bad_on(
    package: str, version: str, board: str, others: dict[str, str], wanted: str, fix: str, tmp_path: Path
) -> None:
    device = replace(lay_out(board, tmp_path).detect(), python="3.12.1", libc="glibc 2.36")
    found = list(bad_pairs(device, {package: version, **others}))
    assert [one.id for one in found] == ([wanted] if wanted else [])
    assert all(fix in one.fix and version in one.what for one in found)


@pytest.mark.parametrize(("libc", "count"), [("glibc 2.31", 1), ("glibc 2.35", 0), ("musl 1.2", 0), ("", 0)])
def test_the_c_library_counts(libc: str, count: int, tmp_path: Path) -> None:
    device = replace(lay_out("jetson-xavier-nx", tmp_path).detect(), libc=libc, python="3.12.1")
    assert len(list(bad_pairs(device, {"openvino": "2026.4.1"}))) == count


@pytest.mark.parametrize(("python", "count"), [("3.10.12", 1), ("3.11.2", 0), ("", 0)])
def test_the_version_of_python_counts(python: str, count: int, tmp_path: Path) -> None:
    device = replace(lay_out("pi-4b", tmp_path).detect(), python=python)
    assert len(list(bad_pairs(device, {}))) == count


def test_every_row_says_all_of_it(tmp_path: Path) -> None:
    device = lay_out("pi-4b", tmp_path).detect()
    rows = table("doctor")["pair"]
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert all(row[name] for name in ("what", "why", "fix", "source")), row
        assert row["level"] in ("fail", "warn", "note")
        fits("1.2.3", row["spec"])
        # Whatever is installed, in whatever version: each condition is known and can be looked at.
        list(bad_pairs(device, dict.fromkeys(packages_asked_for(), "999")))
        list(bad_pairs(device, {}))


@pytest.mark.parametrize(
    ("version", "spec", "expected"),
    [
        ("1.21.0", "==1.21", True),
        ("1.21.0+cu126", "==1.21.0", True),
        ("1.9", ">=1.21", False),
        ("2026.4.1", ">=2026,<2027", True),
        ("torn", ">=1", False),
        ("", "any", False),
        ("", "absent", True),
        ("torn", "any", True),
        ("3.13.0rc1", "<3.14", True),
    ],
)
def test_a_version_is_held_against_bounds(version: str, spec: str, expected: bool) -> None:
    assert fits(version, spec) is expected


def test_a_bound_that_is_none_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no bound"):
        fits("1.0", "~=1")


def test_a_line_to_paste_takes_the_python_that_runs_edgecv(tmp_path: Path) -> None:
    device, environment = _seen("pi-4b", tmp_path)
    changed = replace(environment, natives=(), python="/opt/my env/bin/python", needs_root=True)
    fix = _one(diagnose(device, changed), "runtimes").fix
    assert fix == "sudo '/opt/my env/bin/python' -m pip install ai-edge-litert"


# What became of a runtime -> level, a word of the line to paste.
NATIVES = [
    ({"outcome": "signal", "detail": "SIGILL"}, "fail", "pip install 'onnxruntime<1.21.0'"),
    ({"outcome": "signal", "detail": "SIGSEGV"}, "fail", "--force-reinstall"),
    ({"outcome": "error", "detail": "x: ELF load command address/offset not page-aligned"}, "fail", "kernel8.img"),
    ({"outcome": "error", "detail": "libfoo.so: cannot open"}, "fail", "--force-reinstall"),
    ({"outcome": "timeout", "detail": "no answer within 10 s"}, "warn", "edgecv doctor"),
]


@pytest.mark.parametrize(("said", "level", "fix"), NATIVES)
def test_what_became_of_a_runtime_is_told(said: dict[str, Any], level: str, fix: str, tmp_path: Path) -> None:
    device, environment = _seen("pi-5", tmp_path)
    native = Native(runtime="onnxruntime", package="onnxruntime", version="1.21.0", **said)
    found = diagnose(replace(device, page_bytes=16384), replace(environment, natives=(native,)))
    judged = _one(found, "runtime-onnxruntime")
    assert (judged.level, said["detail"] in judged.what, fix in judged.fix) == (level, True, True), judged


def test_a_runtime_for_nvidia_that_cannot_use_it_is_told(tmp_path: Path) -> None:
    native = Native(
        runtime="onnxruntime", package="onnxruntime-gpu", version="1.31.1", outcome="ok", gpu_error="libcudnn.so.9"
    )
    for board, fix in (
        ("intel-n100", "ldd"),
        ("jetson-orin-nano", "nvidia-jetpack"),
        ("jetson-orin-container", "--runtime"),
    ):
        device, environment = _seen(board, tmp_path / board)
        found = _one(diagnose(device, replace(environment, natives=(native,))), "runtime-onnxruntime-gpu")
        assert (found.level, "libcudnn.so.9" in found.what, fix in found.fix) == ("warn", True, True)


def test_a_supply_of_which_nothing_tells_is_not_called_fine(tmp_path: Path) -> None:
    device, environment = _seen("pi-5", tmp_path)
    kernel = Throttle(now=(), events={"heat": 0}, tells_heat=False, source="cooling devices")
    untold = replace(environment, pi_bits=None, reading=replace(environment.reading, throttle=kernel))
    findings = diagnose(device, untold)
    assert "supply" not in [one.id for one in findings if one.level == "ok"]
    assert _one(findings, "heat").level == "warn"


@pytest.mark.parametrize(("state", "level"), [("driven", "ok"), ("seen", "note")])
def test_an_accelerator_that_edgecv_never_uses_is_nothing_to_mend(state: State, level: str) -> None:
    one = Accelerator(
        kind="gpu",
        name="GPU",
        state=state,
        id="",
        node="",
        driver="",
        reason="it is another's",
        fix="",
        has_runtime=False,
    )
    assert _accelerator(one).level == level


def test_the_render_node_of_a_board_whose_gpu_nothing_uses_is_known_by_data(tmp_path: Path) -> None:
    found = {one.kind: one.has_runtime for one in lay_out("rk3588", tmp_path).detect().accelerators}
    assert found == {"npu": True, "gpu": False}
