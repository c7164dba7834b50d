"""The trained YOLOv8n in every format and precision: converted once per test run, read by several files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import CHECKOUT

FORMATS = ("onnx", "openvino", "tflite")
SIDE = 320
JUDGED, CALIBRATION, UNSEEN = 32, 64, 24  # of 128 photographs the first, the following, the last


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Images to calibrate with, and labelled ones that calibration does not see."""

    calibration: Path
    labelled: Path


def write_data(images: list[Path], root: Path) -> None:
    """Copy the photographs that calibrate, and those that judge with their labels."""
    for folder in ("calibration", "labelled/images", "labelled/labels"):
        (root / folder).mkdir(parents=True)
    for path in images[JUDGED : JUDGED + CALIBRATION]:
        shutil.copy(path, root / "calibration")
    for path in images[:JUDGED]:
        shutil.copy(path, root / "labelled/images")
        labels = path.parents[1] / "labels" / f"{path.stem}.txt"
        if labels.exists():  # an image without objects has none
            shutil.copy(labels, root / "labelled/labels")


def convert(source: Path, out: Path, *more: str | Path, timeout_s: float = 280) -> subprocess.CompletedProcess[str]:
    """``edgecv convert SOURCE --int8`` at this size, in a process of its own."""
    command = [sys.executable, "-m", "edgecv", "convert", source, "--int8", "--imgsz", SIDE, "--out", out, *more]
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, cwd=CHECKOUT, timeout=timeout_s
    )
