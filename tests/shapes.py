"""A bundle whose model has several input shapes, built in a moment: it finds bright cells, as the detector of ``models.py``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from edgecv.bundles.bundle import Bundle, describe_file
from edgecv.bundles.manifest import MANIFEST, ModelFiles, Variant, dump_manifest
from edgecv.specs import TensorSpec
from tests.models import CELL, IMAGE, PREDICTION, manifest, save

SQUARE, WIDE, MIDDLE, TALL = (64, 64), (64, 32), (64, 48), (32, 64)


def shaped_detector(path: Path, size_wh: tuple[int, int]) -> tuple[TensorSpec, TensorSpec]:
    """Write the detector for an input of this size; gives its input and output."""
    columns, rows = size_wh[0] // CELL, size_wh[1] // CELL
    y, x = np.meshgrid((np.arange(rows) + 0.5) * CELL, (np.arange(columns) + 0.5) * CELL, indexing="ij")
    boxes = np.stack([x.ravel(), y.ravel(), np.full(x.size, CELL), np.full(x.size, CELL)])[None].astype(np.float32)
    image = TensorSpec(name="image", role="image", shape=(1, size_wh[1], size_wh[0], 3), dtype="uint8", layout="NHWC")
    prediction = TensorSpec(name="prediction", role="prediction", shape=(1, 6, x.size), dtype="float32")
    save(
        path,
        [
            helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["real", "white"], ["unit"]),
            helper.make_node("Transpose", ["unit"], ["images"], perm=[0, 3, 1, 2]),
            helper.make_node("AveragePool", ["images"], ["cells"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
            helper.make_node("ReduceMean", ["cells"], ["grey"], axes=[1], keepdims=1),
            helper.make_node("Reshape", ["grey", "row"], ["score"]),
            helper.make_node("Mul", ["score", "zero"], ["none"]),
            helper.make_node("Concat", ["boxes", "score", "none"], ["prediction"], axis=1),
        ],
        [("image", TensorProto.UINT8, image.shape)],
        [("prediction", TensorProto.FLOAT, prediction.shape)],
        {"boxes": boxes, "row": np.array([1, 1, -1]), "zero": np.float32(0), "white": np.float32(255)},
    )
    assert size_wh != SQUARE or (image, prediction) == (IMAGE, PREDICTION)
    return image, prediction


def write_shapes(folder: Path, sizes: Sequence[tuple[int, int]] = (SQUARE, WIDE)) -> Bundle:
    """A bundle with one float variant for each input size; the first is the model's own."""
    variants = []
    for size_wh in sizes:
        name = "onnx-fp32" if size_wh == sizes[0] else f"onnx-fp32-{size_wh[0]}x{size_wh[1]}"
        (folder / name).mkdir(parents=True)
        image, prediction = shaped_detector(folder / name / "model.onnx", size_wh)
        files = ModelFiles(
            files=(describe_file(folder, folder / name / "model.onnx"),), inputs=(image,), outputs=(prediction,)
        )
        variants.append(
            Variant(name=name, format="onnx", precision="fp32", size_wh=size_wh, latency_ms=1.0, models={"main": files})
        )
    (folder / MANIFEST).write_bytes(dump_manifest(manifest(variants)))
    return Bundle.open(folder)


def frame(size_wh: tuple[int, int], bright_xyxy: tuple[int, int, int, int] | None = None) -> np.ndarray:
    """A black image of this size, with a white rectangle."""
    image = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
    if bright_xyxy is not None:
        left, top, right, bottom = bright_xyxy
        image[top:bottom, left:right] = 255
    return image
