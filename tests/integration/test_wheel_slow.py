"""The wheel: what is in it, and that the five lines of the README run where nothing but the wheel is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT
from tests.models import write_bundle
from tests.package_index import checkout_copy, needs_a_package_index
from tests.unit.test_media import write_mp4

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DEADLINE_S = 600
ROOMS = ("benchmarks", "cloud_sync", "converters", "devices", "pipelines", "quantize")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``make dist`` builds it: from the source archive."""
    checkout = checkout_copy(tmp_path_factory.mktemp("dist") / "checkout")
    command = [sys.executable, "-m", "build", "--no-isolation"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list(checkout.glob("dist/*.tar.gz"))) == 1
    (path,) = checkout.glob("dist/*.whl")
    return path


def test_the_wheel_holds_every_file_of_the_rooms_but_the_laboratory(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert not [name for name in packed if name.startswith(("edgecv/benchmarks/lab/", "tests/"))]
    listed = subprocess.run(
        ["git", "ls-files", "edgecv", *ROOMS], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    files = [name for name in listed.stdout.splitlines() if not name.startswith("benchmarks/lab/")]
    expected = {name if name.startswith("edgecv/") else f"edgecv/{name}" for name in files}
    assert expected - packed == set()
    assert {Path(name).suffix for name in packed} >= {".onnx", ".html", ".css", ".js", ".svg"}


def test_the_five_lines_run_where_only_the_wheel_is_installed(wheel: Path, tmp_path: Path) -> None:
    needs_a_package_index()
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True, timeout=120)
    python = tmp_path / "env/bin/python"
    install = [str(python), "-m", "pip", "install", "-q", f"{wheel}[device]"]
    # With PYTHONPATH pip could see an EdgeCV in the checkout, and install none.
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(install, env=clean, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]

    desk = tmp_path / "desk"
    write_bundle(desk / "yolov8n.ecv")
    write_mp4(desk / "clip.mp4", frames=5)
    script = (CHECKOUT / "docs/examples/five_lines.py").read_text()

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/bin:/bin"}
        return subprocess.run(
            command, cwd=desk, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    ran = run(str(python), "-c", script)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert [line.split()[0] for line in ran.stdout.splitlines() if line[0].isdigit()] == list("01234")
    origin = run(str(python), "-c", "import edgecv; print(edgecv.__file__)").stdout
    assert origin.startswith(str(tmp_path / "env")), "the wheel ran, not the checkout"
    assert run(str(python), "-c", "import torch").returncode != 0, "a device has no torch"
    assert run(str(python.parent / "edgecv"), "info", "yolov8n.ecv").returncode == 0
