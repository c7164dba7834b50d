"""Sources to convert: exports that Ultralytics itself makes, once per test session."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from edgecv._internal.quiet import quiet
from edgecv.converters.families.ultralytics_import import tasks

SIDE = 96


def _exported(checkpoint: Path, **options: Any) -> Path:
    tasks()
    from ultralytics import YOLO

    with quiet():
        return Path(YOLO(str(checkpoint)).export(format="onnx", simplify=False, verbose=False, **options))


@pytest.fixture(scope="session")
def exported(yolov8n: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real weights, fixed shapes."""
    copy = shutil.copy(yolov8n, tmp_path_factory.mktemp("export") / "real.pt")
    return _exported(Path(copy), imgsz=SIDE)


@pytest.fixture(scope="session")
def exported_dynamic(yolov8n: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real weights, open shapes."""
    copy = shutil.copy(yolov8n, tmp_path_factory.mktemp("export") / "dynamic.pt")
    return _exported(Path(copy), imgsz=SIDE, dynamic=True)


@pytest.fixture(scope="session")
def untrained_64(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained YOLOv8n of 64 classes: its box and class convolutions have equally many channels."""
    import torch

    torch.manual_seed(0)
    network = tasks().DetectionModel("yolov8n.yaml", nc=64, verbose=False)
    network.args = {"imgsz": 64, "task": "detect"}
    path = tmp_path_factory.mktemp("untrained") / "many.pt"
    torch.save({"model": network.half()}, path)
    return path


@pytest.fixture(scope="session")
def exported_64(untrained_64: Path) -> Path:
    """The same as ONNX."""
    return _exported(untrained_64, imgsz=64)
