"""A bundle's OpenVINO network with the arithmetic of the boxes behind it, so that tools which expect it in the file can run it.

EdgeCV's network ends where the convolutions end; distances and scores become boxes outside, and only for what is above the
threshold. Model API wants ``(1, 4 + classes, anchors)``. The network itself, with its weights, stays as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv.bundles.bundle import Bundle
from edgecv.errors import ConfigError
from edgecv.specs import TensorSpec

_VARIANT = "openvino-int8"
_BINS = 16  # distances are told as weights of so many whole numbers


def write_with_boxes(bundle: Path, out: Path) -> Path:
    """Write the INT8 OpenVINO network of a YOLOv8 bundle with its boxes to ``out``, an ``.xml``.

    Raises:
        ConfigError: the bundle has no such variant, or its outputs are laid out otherwise.
    """
    openvino = require("openvino", "openvino")
    opened = Bundle.open(bundle)
    outputs = _outputs(opened)
    model = openvino.Core().read_model(str(bundle / _VARIANT / "model.xml"))
    ports = {name: port for port in model.outputs for name in port.get_names()}
    parts = [_boxes(openvino.opset13, ports[box.name], ports[scores.name], stride) for stride, box, scores in outputs]
    ops = openvino.opset13
    joined = ops.transpose(ops.concat([part.output(0) for part in parts], 1), np.array([0, 2, 1]))
    result = ops.result(joined)
    finished = openvino.Model([result], model.get_parameters(), "with_boxes")
    out.parent.mkdir(parents=True, exist_ok=True)
    openvino.save_model(finished, str(out), compress_to_fp16=False)
    return out


def _outputs(bundle: Bundle) -> list[tuple[int, TensorSpec, TensorSpec]]:
    """Stride, distances and scores of each scale."""
    variant = next((one for one in bundle.variants if one.name == _VARIANT), None)
    if variant is None:
        raise ConfigError(f"{bundle.path} has no {_VARIANT}.", "Convert it with --int8 --to openvino,onnx,tflite.")
    by_role = {spec.role: spec for spec in variant.models["main"].outputs}
    strides = sorted(int(role.partition("/")[2]) for role in by_role if role.startswith("box/"))
    if not strides or any(spec.layout != "NHWC" for spec in by_role.values()):
        raise ConfigError(f"The outputs of {_VARIANT} are {sorted(by_role)}.", "Take a bundle of a YOLOv8 detector.")
    return [(stride, by_role[f"box/{stride}"], by_role[f"class/{stride}"]) for stride in strides]


def _boxes(ops: Any, box: Any, scores: Any, stride: int) -> Any:
    """``(1, anchors, 4 + classes)`` of one scale: middle and size in pixels, and scores between 0 and 1."""
    _, height, width, classes = scores.shape
    places = height * width
    # The port of a result is its input's: what made the value is behind it.
    weights = ops.softmax(ops.reshape(_value(box), np.array([1, places, 4, _BINS]), False), 3)
    steps = np.arange(_BINS, dtype=np.float32).reshape(_BINS, 1)
    distances = ops.reshape(ops.matmul(weights, steps, False, False), np.array([1, places, 4]), False)
    left_top, right_bottom = ops.split(distances, np.int64(2), 2).outputs()
    y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
    middle = np.stack([x.ravel(), y.ravel()], axis=1)[None]
    first, last = ops.subtract(middle, left_top), ops.add(middle, right_bottom)
    scale = np.float32(stride)
    centre = ops.multiply(ops.add(first, last), scale / 2)
    size = ops.multiply(ops.subtract(last, first), scale)
    likely = ops.sigmoid(ops.reshape(_value(scores), np.array([1, places, classes]), False))
    return ops.concat([centre, size, likely], 2)


def _value(port: Any) -> Any:
    node = port.get_node()
    return node.input_value(0) if node.get_type_name() == "Result" else port
