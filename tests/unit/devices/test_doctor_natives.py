"""Runtimes are tried in child processes: whatever native code does there, the doctor goes on."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from edgecv.devices.doctor.native import LIMIT_S, try_runtime

CHILDREN = {
    "SIGILL": ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "signal", "SIGILL"),
    "SIGSEGV": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal", "SIGSEGV"),
    "exit": ("import sys; sys.exit('libfoo.so.1: cannot open shared object file')", "error", "libfoo.so.1"),
    "nothing": ("pass", "error", "ended with 0"),
    "noise": ("print('hello'); print('{\"a\": 1}')", "error", "ended with 0"),
    "bytes": ("import sys; sys.stdout.buffer.write(b'\\xff\\xfe\\n'); sys.exit(3)", "error", "ended with 3"),
    "said": ('print(\'INFO\'); print(\'{"edgecv": "doctor", "error": "no kernel"}\')', "error", "no kernel"),
    "well": ("print('INFO'); print('{\"edgecv\": \"doctor\"}')", "ok", ""),
}


@pytest.mark.parametrize("name", CHILDREN)
def test_whatever_a_native_library_does_is_an_answer(name: str) -> None:
    code, outcome, detail = CHILDREN[name]
    found = try_runtime("onnxruntime", "onnxruntime", "1.0", program=(sys.executable, "-S", "-c", code))
    assert (found.outcome, detail in found.detail) == (outcome, True), found


def test_a_module_in_the_working_folder_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "ran"
    for name in ("json", "resource", "onnxruntime", "edgecv"):
        (tmp_path / f"{name}.py").write_text(f"open({str(marker)!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    try_runtime("litert", "ai-edge-litert", "2", limit_s=60.0)
    assert not marker.exists()


def test_a_library_that_hangs_is_given_up() -> None:
    began_s = time.monotonic()
    program = (sys.executable, "-S", "-c", "import time; time.sleep(30)")
    found = try_runtime("openvino", "openvino", "1.0", limit_s=0.3, program=program)
    assert found.outcome == "timeout"
    assert time.monotonic() - began_s < LIMIT_S


def test_a_program_that_is_not_there_is_an_answer() -> None:
    assert try_runtime("litert", "ai-edge-litert", "2", program=("/nowhere/python",)).outcome == "error"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "litert"])
def test_a_real_runtime_computes_a_tiny_model(runtime: str) -> None:
    pytest.importorskip({"litert": "ai_edge_litert"}.get(runtime, runtime))
    found = try_runtime(runtime, runtime, "1", limit_s=60.0)
    assert (found.outcome, found.ran_model, found.gpu_error) == ("ok", True, ""), found
