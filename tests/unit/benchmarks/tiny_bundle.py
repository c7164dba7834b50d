"""A real bundle that is made in a moment: an ONNX of a few nodes that finds one box in every image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgecv.bundles.bundle import Bundle, describe_file
from edgecv.bundles.manifest import MANIFEST, SCHEMA, Manifest, ModelFiles, Source, Variant, dump_manifest
from edgecv.specs import DecodeSpec, PreprocessRule, TensorSpec

LABELS = ("circle", "square")
SIDE = 64
_PREDICTION = np.zeros((1, 4 + len(LABELS), 8), np.float32)
_PREDICTION[0, :5, 0] = (32, 32, 20, 20, 0.9)


def write_model(path: Path) -> Path:
    """``image (1, 64, 64, 3)`` uint8 to ``prediction (1, 6, 8)``: the constant above plus nothing of the image."""
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["constant", "nothing"], ["prediction"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, (1, SIDE, SIDE, 3))],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, _PREDICTION.shape)],
        [numpy_helper.from_array(np.float32(0), "zero"), numpy_helper.from_array(_PREDICTION, "constant")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def write_bundle(folder: Path) -> Path:
    """``folder`` as a bundle with the variants ``onnx-fp32`` and ``onnx-int8`` (the same graph under both names)."""
    variants = tuple(_variant(folder, precision) for precision in ("fp32", "int8"))
    manifest = Manifest(
        schema=SCHEMA,
        name="tiny",
        family="yolov8",
        preprocess=PreprocessRule(),
        decode=DecodeSpec(task="detect", decoder="yolov8", labels=LABELS),
        variants=variants,
        source=Source(file="tiny.onnx", sha256=""),
        licence="Apache-2.0",
    )
    (folder / MANIFEST).write_bytes(dump_manifest(manifest))
    return Bundle.open(folder).path


def _variant(folder: Path, precision: str) -> Variant:
    place = folder / f"onnx-{precision}"
    place.mkdir(parents=True)
    path = write_model(place / "model.onnx")
    image = TensorSpec(name="image", role="image", shape=(1, SIDE, SIDE, 3), dtype="uint8", layout="NHWC")
    prediction = TensorSpec(name="prediction", role="prediction", shape=_PREDICTION.shape, dtype="float32")
    return Variant(
        name=f"onnx-{precision}",
        format="onnx",
        precision="int8" if precision == "int8" else "fp32",
        size_wh=(SIDE, SIDE),
        latency_ms=1.0 if precision == "int8" else 2.0,
        models={"main": ModelFiles(files=(describe_file(folder, path),), inputs=(image,), outputs=(prediction,))},
    )
