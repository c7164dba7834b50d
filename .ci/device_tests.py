"""The run-time tests: those that pass where only the wheel is installed, with the extras of a device and ingest and no converter.

``TESTS`` is the one list of them: ``make test-pythons`` runs it in each Python that is supported. ``make test-arm64`` runs
those of ``ON_ARM64`` in an emulated arm64 Debian. A test that needs more than a device has stands in ``LEFT_OUT``, with the reason.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
EXTRAS = "device,tflite,video,track,preview,cloud"  # `cloud`: ingest and its store run on small machines, too
# What the tests themselves import. onnx writes their tiny models.
TOOLS = ("pytest", "pytest-timeout", "hypothesis", "onnx", "psutil")

TESTS = (
    "tests/contract/test_decoders.py",
    "tests/contract/test_paho.py",
    "tests/contract/test_runtimes.py",
    "tests/contract/test_sinks.py",
    "tests/contract/test_sources.py",
    "tests/unit/cloud_sync",
    "tests/unit/core",
    "tests/unit/devices",
    "tests/unit/pipelines",
    "tests/unit/runtimes",
    "tests/unit/test_drawing.py",
    "tests/unit/test_media.py",
    "tests/unit/test_video_decoder.py",
    "tests/unit/vision",
)
# Those in which the processor, its packages and its kernel matter most: under emulation each takes ten times as long.
ON_ARM64 = (
    "tests/unit/runtimes",
    "tests/contract/test_runtimes.py",
    "tests/contract/test_decoders.py",
    "tests/unit/vision",
    "tests/unit/test_drawing.py",
    "tests/unit/test_media.py",
    "tests/unit/test_video_decoder.py",
    "tests/unit/devices",
    "tests/unit/core",
)
LEFT_OUT = {
    "tests/unit/core/test_precision.py": "it needs OpenVINO",
    "tests/unit/runtimes/test_openvino_device.py": "it needs OpenVINO",
    "tests/unit/runtimes/test_ov.py": "it needs OpenVINO",
}
# What the tests read of the checkout. The package is not among it: the wheel runs, or nothing does.
MATERIAL = ("tests", "docs", ".ci", "README.md", "CHANGELOG.md", "pyproject.toml", "constraints.txt", "Makefile")


def requirements(wheel: str) -> list[str]:
    """What pip installs for a run: the wheel with the extras of a device, and what the tests import."""
    return [f"{wheel}[{EXTRAS}]", *TOOLS]


def built_wheel() -> Path:
    """The wheel that ``make dist`` has built.

    Raises:
        SystemExit: There is none, or there are several.
    """
    wheels = sorted((CHECKOUT / "dist").glob("edgecv-*.whl"))
    if len(wheels) != 1:
        raise SystemExit(f"There must be one wheel in {CHECKOUT / 'dist'}, not {len(wheels)}. Run `make dist`.")
    return wheels[0]


def copy_tests(folder: Path) -> None:
    """A folder with the tests and what they read, in place of what was there."""
    shutil.rmtree(folder, ignore_errors=True)
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *MATERIAL]
    listed = subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, listed):
        if (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, folder / name)


def pytest_command(python: str, tests: Sequence[str] = TESTS, *options: str) -> list[str]:
    """The command that runs tests, in the folder that ``copy_tests`` made."""
    ignored = [f"--ignore={path}" for path in LEFT_OUT]
    return [python, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", *options, *ignored, *tests]
