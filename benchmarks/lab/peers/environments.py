"""The environments of the peers: what each needs, pinned here alone, in a folder of its own that is made when it is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec

HERE = "edgecv"  # the development environment: EdgeCV, and Ultralytics with the torch of the project's locks
_VIDEO = ("numpy==2.4.6", "opencv-python-headless==5.0.0.93")
PINS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "openvino": ("openvino==2026.4.1", *_VIDEO),
        "onnxruntime": ("onnxruntime==1.31.1", *_VIDEO),
        "litert": ("ai-edge-litert==2.3.0", *_VIDEO),
        # It asks for OpenCV 4, which the project's own environment does not have.
        "model-api": (
            "openvino-model-api==0.4.7",
            "openvino==2026.4.1",
            "numpy==2.4.6",
            "opencv-python-headless==4.14.0.94",
        ),
    }
)
_DONE = "made-with.txt"  # written last: an environment without it was not finished
_INSTALL_TIMEOUT_S = 900.0


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """One environment: its Python, or the reason why there is none."""

    name: str
    python: str = ""
    reason: str = ""


def prepare(names: Sequence[str], folder: Path, *, install: bool = True) -> dict[str, Environment]:
    """Every environment by name; those that are missing, or that other pins made, are made anew with ``install``."""
    return {name: _prepared(name, folder, install) for name in names}


def _prepared(name: str, folder: Path, install: bool) -> Environment:
    if name == HERE:
        return Environment(name=name, python=sys.executable)
    place, python = folder / name, folder / name / "bin/python"
    if is_made(place, PINS[name]):
        return Environment(name=name, python=str(python))
    if not install:
        return Environment(name=name, reason=f"{place} is missing or holds other versions, and --no-install was said")
    reason = _make(place, PINS[name])
    return Environment(name=name, reason=reason) if reason else Environment(name=name, python=str(python))


def is_made(place: Path, pins: Sequence[str]) -> bool:
    """Whether the environment in ``place`` was made to the end, with these pins."""
    done = place / _DONE
    return done.is_file() and done.read_text().split() == list(pins) and (place / "bin/python").exists()


def _make(place: Path, pins: Sequence[str]) -> str:
    """Make it anew; the reason when that failed, else nothing."""
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    pip = (str(place / "bin/python"), "-m", "pip", "install", "-q", "--no-compile", "--disable-pip-version-check")
    for command in ((sys.executable, "-m", "venv", str(place)), (*pip, *pins)):
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=_INSTALL_TIMEOUT_S,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"could not be installed: {error}"
        if done.returncode:
            return f"could not be installed: {(done.stderr.strip().splitlines() or ['pip said nothing'])[-1]}"
    (place / _DONE).write_text("\n".join(pins) + "\n")
    return ""
