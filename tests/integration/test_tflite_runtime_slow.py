"""tflite-runtime 2.14 of older boards, in an environment of its own (numpy below 2): the same files, the same answers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgecv
from edgecv.bundles.golden import cosine
from tests.conftest import CHECKOUT

pytest.importorskip("litert_torch")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SIDE = 64
_PACKAGES = ("tflite-runtime==2.14.0", "numpy<2", "msgspec", "typer", "opencv-python-headless<4.12")
# What every raw output must keep. INT8 kernels of 2.14 round differently, and outputs of random weights lie near zero: 0.902 seen
# on a grid of 4 x 4 cells. A lost layer or a wrong scale gives less than 0.5.
_LEAST = {"fp32": 0.9999, "int8": 0.8}
_ANSWER = """
import sys
import numpy as np
import edgecv
from edgecv.media.images import read_image
from edgecv.runtimes.litert import LiteRtSession
bundle, image, precision, out = sys.argv[1:]
with edgecv.load(bundle, runtime="litert", precision=precision) as model:
    found = model.infer(model.prepare(read_image(image))[0])
    model(read_image(image))
np.savez(out, **found)
print(LiteRtSession.package)
"""


@pytest.fixture(scope="module")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds tflite-runtime and what a device needs, and nothing else."""
    base = sys.executable if sys.version_info[:2] == (3, 11) else shutil.which("python3.11")
    if base is None:
        pytest.skip("tflite-runtime 2.14 needs Python 3.11")
    folder = tmp_path_factory.mktemp("old")
    subprocess.run([base, "-m", "venv", str(folder)], check=True, timeout=120)
    python = folder / "bin/python"
    done = subprocess.run(
        [str(python), "-m", "pip", "install", "-q", *_PACKAGES],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"pip cannot install tflite-runtime: {done.stderr.strip().splitlines()[-1]}")
    return python


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index in range(24):
        small = rng.integers(0, 256, (6, 8, 3), np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), cv2.resize(small, (80, 60), interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.fixture(scope="module")
def bundle(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = edgecv.convert(
        "yolov8n.yaml",
        formats=("tflite",),
        precision="int8",
        calibration=images,
        imgsz=SIDE,
        out=tmp_path_factory.mktemp("bundle") / "small.ecv",
        options=edgecv.SourceOptions(random_weights=True),
    )
    return made.path


def _answer(python: Path, bundle: Path, image: Path, precision: str, out: Path) -> tuple[str, dict[str, np.ndarray]]:
    """Name of the package that ran it, and the outputs as stored."""
    done = subprocess.run(
        [str(python), "-c", _ANSWER, str(bundle), str(image), precision, str(out)],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with np.load(out, allow_pickle=False) as archive:
        found = {name: archive[name].astype(np.float64) for name in archive.files}
    return done.stdout.split()[-1], found


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_both_packages_compute_the_same(
    precision: str, old_python: Path, bundle: Path, images: Path, tmp_path: Path
) -> None:
    image = images / "0.png"
    old_name, old = _answer(old_python, bundle, image, precision, tmp_path / "old.npz")
    new_name, new = _answer(Path(sys.executable), bundle, image, precision, tmp_path / "new.npz")
    assert (old_name, new_name) == ("tflite_runtime", "ai_edge_litert")
    zero_points = {
        spec.name: spec.zero_point or 0
        for variant in edgecv.Bundle.open(bundle).variants
        if variant.precision == precision
        for spec in variant.models["main"].outputs
    }
    assert old.keys() == new.keys() == zero_points.keys()
    for name, zero_point in zero_points.items():
        assert cosine(old[name] - zero_point, new[name] - zero_point) >= _LEAST[precision], name


def test_a_missing_runtime_is_named_with_its_pip_line(old_python: Path, bundle: Path) -> None:
    hide = "import sys; sys.modules['tflite_runtime'] = None; import edgecv; edgecv.load(sys.argv[1], runtime='litert')"
    done = subprocess.run(
        [str(old_python), "-c", hide, str(bundle)],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode
    assert "edgecv.errors.MissingDependency" in done.stderr, done.stderr
