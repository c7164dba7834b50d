"""A Coral's files and its library. Not run on a Coral: what is proven is what is refused, and what is said then."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edgecv.devices.doctor import native
from edgecv.errors import DeviceError
from edgecv.runtimes import litert
from edgecv.runtimes.accelerators import edgetpu
from edgecv.runtimes.litert import LiteRtSession
from edgecv.specs import RuntimeOptions

PLAIN = Path(native.__file__).with_name("tiny.tflite")  # of the package: this runs where only that is installed


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    """A file that names the operator of the compiler, which is all that is looked at before it is loaded."""
    path = tmp_path / "tiny_edgetpu.tflite"
    path.write_bytes(PLAIN.read_bytes() + b"edgetpu-custom-op")
    return path


@pytest.mark.parametrize("device", ["edgetpu", "coral"])
def test_a_file_that_was_not_compiled_is_refused_with_the_command(device: str) -> None:
    with pytest.raises(DeviceError, match="edgetpu-custom-op") as caught:
        LiteRtSession(PLAIN, RuntimeOptions(device=device))
    assert "edgetpu_compiler -s tiny.tflite" in caught.value.hint


def test_a_compiled_file_is_refused_on_the_cpu(compiled: Path) -> None:
    with pytest.raises(DeviceError, match="compiled for a Coral") as caught:
        LiteRtSession(compiled, RuntimeOptions())
    assert "edgetpu" in caught.value.hint


def test_a_missing_library_names_the_package_and_the_rights(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edgetpu, "LIBRARY", "libedgetpu-of-nobody.so.1")
    with pytest.raises(DeviceError, match=r"libedgetpu-of-nobody\.so\.1 is missing") as caught:
        LiteRtSession(compiled, RuntimeOptions(device="edgetpu"))
    assert "libedgetpu1-std" in caught.value.hint
    assert "plugdev" in caught.value.hint


REFUSES = """
#include <stddef.h>
void *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
  report(count == 1 && values[0][0] == 'u' ? "Failed to open device on usb" : "No device");
  return NULL;
}
void tflite_plugin_destroy_delegate(void *delegate) {}
"""


def test_a_library_that_opens_no_coral_says_how_to_look_for_one(
    compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library with the two functions of a delegate, since no Coral is at hand."""
    if not shutil.which("gcc"):
        pytest.skip("gcc makes the library")
    library, source = tmp_path / "libedgetpu.so.1", tmp_path / "edgetpu.c"
    source.write_text(REFUSES)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)
    monkeypatch.setattr(edgetpu, "LIBRARY", str(library))
    with pytest.raises(DeviceError, match="opens no Coral here: Failed to open device on usb") as caught:
        LiteRtSession(compiled, RuntimeOptions(device="edgetpu", extra={"config": {"device": "usb"}}))
    for said in ("1a6e:089a", "18d1:9302", "plugdev", "apex"):
        assert said in caught.value.hint


def test_one_interpreter_takes_the_delegate_whatever_the_lanes(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    usual = litert._interpreter

    def interpreter(runtime: Any, path: Path, options: RuntimeOptions, delegates: list[Any]) -> Any:
        made.append({"delegates": delegates})
        return usual(runtime, path, options, [])

    monkeypatch.setattr(edgetpu, "load_delegate", lambda *_: "delegate")
    monkeypatch.setattr(litert, "_interpreter", interpreter)
    session = LiteRtSession(compiled, RuntimeOptions(device="edgetpu", lanes=3))
    assert made == [{"delegates": ["delegate"]}]
    assert session.providers == ("edgetpu", "cpu")
    session.close()
