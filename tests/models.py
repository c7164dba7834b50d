"""Small real models, built in a moment: ONNX graphs of a few nodes, and bundles of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgecv.bundles.bundle import Bundle, describe_file
from edgecv.bundles.manifest import MANIFEST, SCHEMA, Manifest, ModelFiles, Source, Variant, dump_manifest
from edgecv.specs import DecodeSpec, ModelSpec, PreprocessSpec, TensorSpec

SIDE = 64
CELL = 16  # the detectors below see one grid of cells of this size
CELLS = SIDE // CELL
LABELS = ("bright", "never")
IMAGE = TensorSpec(name="image", role="image", shape=(1, SIDE, SIDE, 3), dtype="uint8", layout="NHWC")
PREDICTION = TensorSpec(name="prediction", role="prediction", shape=(1, 6, CELLS * CELLS), dtype="float32")
SPEC = ModelSpec(
    preprocess=PreprocessSpec(size_wh=(SIDE, SIDE)),
    decode=DecodeSpec(task="detect", decoder="yolov8", labels=LABELS),
)
METADATA = {"names": "{0: 'bright', 1: 'never'}", "imgsz": f"[{SIDE}, {SIDE}]", "task": "detect"}


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    constants: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A checked ONNX file; inputs and outputs as ``(name, element type, shape)``."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def arithmetic(path: Path) -> Path:
    """``pixels (1, 4, 4, 3)`` uint8 and ``gain (2,)`` float32 to ``total = sum(pixels) * gain`` and ``same = pixels``."""
    return save(
        path,
        [
            helper.make_node("Cast", ["pixels"], ["real"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["real"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["sum", "gain"], ["total"]),
            helper.make_node("Identity", ["pixels"], ["same"]),
        ],
        [("pixels", TensorProto.UINT8, (1, 4, 4, 3)), ("gain", TensorProto.FLOAT, (2,))],
        [("total", TensorProto.FLOAT, (2,)), ("same", TensorProto.UINT8, (1, 4, 4, 3))],
        {},
    )


def _cell_boxes() -> np.ndarray:
    """Centre x, centre y, width, height of every cell: ``(1, 4, cells)``."""
    middle = (np.arange(CELLS, dtype=np.float32) + 0.5) * CELL
    y, x = np.meshgrid(middle, middle, indexing="ij")
    side = np.full(CELLS * CELLS, CELL, np.float32)
    return np.stack([x.ravel(), y.ravel(), side, side])[None]


def detector(path: Path, metadata: Mapping[str, str] | None = None, *, floats: bool = False) -> Path:
    """Finds bright cells: the score of class 0 is the mean brightness, 0 to 1; class 1 never scores.

    ``image (1, 64, 64, 3)`` uint8, or with ``floats`` ``images (1, 3, 64, 64)`` 0 to 1, to the classic ``(1, 6, 16)``.
    """
    planes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["real", "white"], ["unit"]),
        helper.make_node("Transpose", ["unit"], ["images"], perm=[0, 3, 1, 2]),
    ]
    return save(
        path,
        [
            *([] if floats else planes),
            helper.make_node("AveragePool", ["images"], ["cells"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
            helper.make_node("ReduceMean", ["cells"], ["grey"], axes=[1], keepdims=1),
            helper.make_node("Reshape", ["grey", "row"], ["score"]),
            helper.make_node("Mul", ["score", "zero"], ["none"]),
            helper.make_node("Concat", ["boxes", "score", "none"], ["prediction"], axis=1),
        ],
        [("images", TensorProto.FLOAT, (1, 3, SIDE, SIDE)) if floats else ("image", TensorProto.UINT8, IMAGE.shape)],
        [("prediction", TensorProto.FLOAT, PREDICTION.shape)],
        {
            "boxes": _cell_boxes(),
            "row": np.array([1, 1, -1]),
            "zero": np.float32(0),
            **({} if floats else {"white": np.float32(255)}),
        },
        metadata,
    )


def spot_detector(path: Path) -> Path:
    """Finds the one bright spot of an image, wherever it is: a box of 12 x 12 around its middle, of class 0."""
    side = np.arange(SIDE, dtype=np.float32) + 0.5
    node = helper.make_node
    return save(
        path,
        [
            node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
            node("ReduceMean", ["real"], ["grey"], axes=[3], keepdims=0),
            node("Greater", ["grey", "limit"], ["is_bright"]),
            node("Cast", ["is_bright"], ["bright"], to=TensorProto.FLOAT),
            node("ReduceSum", ["bright", "axes"], ["area"], keepdims=1),
            node("Max", ["area", "one"], ["most"]),
            *(
                one
                for name in ("x", "y")
                for one in (
                    node("Mul", ["bright", f"{name}s"], [f"{name}_parts"]),
                    node("ReduceSum", [f"{name}_parts", "axes"], [f"{name}_sum"], keepdims=1),
                    node("Div", [f"{name}_sum", "most"], [name]),
                )
            ),
            node("Min", ["area", "one"], ["score"]),
            node("Concat", ["x", "y", "size", "size", "score", "zero"], ["column"], axis=1),
            node("Pad", ["column", "pads"], ["prediction"]),
        ],
        [("image", TensorProto.UINT8, IMAGE.shape)],
        [("prediction", TensorProto.FLOAT, PREDICTION.shape)],
        {
            "limit": np.float32(200),
            "axes": np.array([1, 2]),
            "one": np.ones((1, 1, 1), np.float32),
            "xs": side[None, None, :],
            "ys": side[None, :, None],
            "size": np.full((1, 1, 1), 12, np.float32),
            "zero": np.zeros((1, 1, 1), np.float32),
            "pads": np.array([0, 0, 0, 0, 0, CELLS * CELLS - 1]),
        },
    )


def bright_cell(row: int, column: int) -> np.ndarray:
    """A black ``(64, 64, 3)`` image with one white cell."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = 255
    return image


def with_external_data(path: Path, location: str = "weights.bin") -> Path:
    """An ONNX file whose weights lie in another file beside it."""
    save(
        path,
        [helper.make_node("Add", ["x", "weights"], ["y"])],
        [("x", TensorProto.FLOAT, (512,))],
        [("y", TensorProto.FLOAT, (512,))],
        {"weights": np.arange(512, dtype=np.float32)},
    )
    onnx.save_model(onnx.load(str(path)), str(path), save_as_external_data=True, location=location, size_threshold=0)
    return path


def checked_path(bundle: Bundle, variant: Variant) -> Path:
    """The file to open for a variant, after every file it needs was checked."""
    with bundle.opened_model(variant) as model:
        return model.path


def manifest(variants: Sequence[Variant], **changes: Any) -> Manifest:
    """A manifest for the detectors above."""
    values = {
        "schema": SCHEMA,
        "name": "tiny",
        "family": "yolov8",
        "preprocess": SPEC.preprocess.rule,
        "decode": SPEC.decode,
        "variants": tuple(variants),
        "source": Source(file="tiny.onnx", sha256="0" * 64),
        "licence": "Apache-2.0",
    }
    return Manifest(**(values | changes))


def write_bundle(
    folder: Path,
    latencies_ms: Mapping[str, float] | None = None,
    *,
    make: Callable[[Path], Path] = detector,
    labels: tuple[str, ...] = LABELS,
) -> Bundle:
    """A bundle with one detector per precision, each with the latency it shall claim."""
    latencies_ms = latencies_ms or {"fp32": 2.0, "int8": 1.0}
    variants = []
    for precision, latency_ms in latencies_ms.items():
        place = folder / f"onnx-{precision}"
        place.mkdir(parents=True)
        entry = describe_file(folder, make(place / "model.onnx"))
        variants.append(
            Variant(
                name=f"onnx-{precision}",
                format="onnx",
                precision=precision,  # type: ignore[arg-type]
                size_wh=SPEC.preprocess.size_wh,
                latency_ms=latency_ms,
                models={"main": ModelFiles(files=(entry,), inputs=(IMAGE,), outputs=(PREDICTION,))},
            )
        )
    (folder / MANIFEST).write_bytes(
        dump_manifest(manifest(variants, decode=msgspec.structs.replace(SPEC.decode, labels=labels)))
    )
    return Bundle.open(folder)
