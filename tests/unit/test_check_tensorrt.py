"""``make check-tensorrt`` says what keeps it from checking, installs nothing then, and judges what a card gave."""

from __future__ import annotations

import importlib.util
import platform
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import CHECKOUT

SCRIPT = CHECKOUT / ".ci/check_tensorrt.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_tensorrt", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules["check_tensorrt"] = made  # its dataclasses look there
    spec.loader.exec_module(made)
    return made


@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="this machine has an NVIDIA card")
def test_without_a_card_it_says_what_it_would_install_and_installs_nothing() -> None:
    before = (CHECKOUT / ".cache/tensorrt").exists()
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3
    assert "no NVIDIA card in this machine. Nothing was checked, installed or changed." in done.stdout
    assert "'onnxruntime-gpu[cuda,cudnn]==1.31.1' 'tensorrt-cu13>=10.13,<11'" in done.stdout
    assert (CHECKOUT / ".cache/tensorrt").exists() == before


def test_a_card_without_its_driver_is_told_apart(script: ModuleType, tmp_path: Path) -> None:
    card = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    card.mkdir(parents=True)
    (card / "vendor").write_text("0x8086\n")
    assert script.why_not(tmp_path / "proc", tmp_path / "sys") == "There is no NVIDIA card in this machine."
    (card / "vendor").write_text("0x10de\n")
    assert "no driver for it" in script.why_not(tmp_path / "proc", tmp_path / "sys")
    driver = tmp_path / "proc/driver/nvidia"
    driver.mkdir(parents=True)
    (driver / "version").write_text("NVRM version: NVIDIA UNIX 580.95\n")
    found = script.why_not(tmp_path / "proc", tmp_path / "sys")
    ready = platform.machine() == "x86_64" and sys.version_info >= script.OLDEST_PYTHON
    assert (found == "") == ready


@pytest.mark.parametrize(
    ("computed_on", "golden", "code", "said"),
    [
        ("TensorrtExecutionProvider 99%, CUDAExecutionProvider 1%", "ok 0.9998 ", 0, "TensorRT takes both"),
        ("TensorrtExecutionProvider 41%, CPUExecutionProvider 59%", "ok 0.9998 ", 1, "took 41% of the nodes"),
        ("CUDAExecutionProvider, CPUExecutionProvider", "ok 0.9998 ", 1, "took 0% of the nodes"),
        ("TensorrtExecutionProvider 100%", "differs 0.31 cosine 0.31 is below 0.98", 1, "computes something else"),
    ],
)
def test_what_a_card_gave_is_judged(
    script: ModuleType, capsys: pytest.CaptureFixture[str], computed_on: str, golden: str, code: int, said: str
) -> None:
    report = {"stages": {"inference": {"p50_ms": 1.25}}, "computed_on": computed_on}
    assert script.show([script.row_of("onnx-fp16", report, golden)]) == code
    printed = capsys.readouterr().out
    assert said in printed
    assert "1.25 ms" in printed
