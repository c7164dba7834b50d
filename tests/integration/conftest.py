"""Conversions that several files read; each is made once per test run."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecv.bundles.bundle import Bundle
from tests.integration.trained import Data, convert, write_data
from tests.once import made_once


@pytest.fixture(scope="session")
def data(coco_images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Photographs to calibrate with and to judge by."""
    root = made_once(tmp_path_factory, "photographs", lambda folder: write_data(coco_images, folder))
    return Data(calibration=root / "calibration", labelled=root / "labelled")


@pytest.fixture(scope="session")
def trained(yolov8n: Path, data: Data, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The trained YOLOv8n in nine variants, its INT8 judged by labels as well."""

    def make(folder: Path) -> None:
        asked = ("--to", "all", "--fp16", "--calib", data.calibration, "--data", data.labelled, "--max-drop", "2")
        done = convert(yolov8n, folder / "yolov8n.ecv", *asked, timeout_s=800)
        assert done.returncode == 0, done.stderr

    return Bundle.open(made_once(tmp_path_factory, "trained", make) / "yolov8n.ecv")
