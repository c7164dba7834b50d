"""Ultralytics' own INT8 ONNX of a checkpoint, made by its own exporter.

``python -m edgecv.benchmarks.lab peer_onnx CHECKPOINT.pt IMAGES OUT.onnx``

Its recipe (``ultralytics/utils/export/onnx.py``, 8.4.190): the whole graph with its decoding tail, then ONNX Runtime's
``quantize_static`` as it comes (QDQ, S8S8, per tensor, min/max), restricted to Conv, Gemm and MatMul, calibrated on all the images.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from edgecv.benchmarks.lab.peers.ultralytics_environment import open_yolo
from edgecv.errors import ConfigError, ConversionError
from edgecv.media.images import list_images


def export_int8_onnx(checkpoint: Path, images: Path, out: Path) -> Path:
    """Write the INT8 ONNX of ``checkpoint`` to ``out``, calibrated on ``images`` (a folder that holds ``images/`` and ``labels/``).

    Raises:
        ConfigError: the target exists, or there are no images.
        ConversionError: Ultralytics wrote no INT8 file.
        MissingDependency: ultralytics is not installed.
    """
    if out.exists():
        raise ConfigError(f"{out} exists.", "Name another file.")
    with tempfile.TemporaryDirectory() as folder:
        # Copies: Ultralytics writes beside the checkpoint and beside the labels.
        work = Path(folder)
        copied = shutil.copy(checkpoint, work / checkpoint.name)
        yolo = open_yolo(Path(copied), threads=2)
        data = _data_file(images, work, yolo.names)
        written = Path(str(yolo.export(format="onnx", quantize=8, data=str(data), imgsz=640, device="cpu")))
        if not written.name.endswith("_int8.onnx"):
            raise ConversionError(f"Ultralytics wrote {written.name}, not an INT8 file.", "Is it release 8.4 or newer?")
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(written, out)
    return out


def _data_file(images: Path, work: Path, names: dict[int, str]) -> Path:
    """A data set as Ultralytics wants it: a YAML file beside ``images/`` and ``labels/``."""
    list_images(images / "images")  # says what is missing
    for part in ("images", "labels"):
        shutil.copytree(images / part, work / part)
    rows = "\n".join(f"  {number}: {name!r}" for number, name in names.items())
    path = work / "data.yaml"
    path.write_text(f"path: {work}\ntrain: images\nval: images\nnames:\n{rows}\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m edgecv.benchmarks.lab peer_onnx", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("images", type=Path, help="folder with images/ and labels/")
    parser.add_argument("out", type=Path)
    given: Any = parser.parse_args()
    print(export_int8_onnx(given.checkpoint, given.images, given.out))
