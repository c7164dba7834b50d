"""Reading a foreign ``.onnx``: the file, its shapes and opset made fixed, and what its metadata say."""

from __future__ import annotations

import ast
import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv._internal.foreign import foreign_errors
from edgecv._internal.quiet import quiet
from edgecv.bundles.golden import cosine
from edgecv.bundles.manifest import MAX_INPUT_PIXELS, MAX_SIDE_PX
from edgecv.converters.families.foreign_onnx.graph import (
    OPSETS,
    SAME,
    answers_to_noise,
    image_input_of,
    input_shape,
    shape_of,
    sort_nodes,
)
from edgecv.converters.families.yolov8_tasks import HEADS, numbered_names
from edgecv.converters.source import SIZE_STEP
from edgecv.errors import ConfigError, ConversionError, SessionError, UnsupportedSource
from edgecv.quantize.ort.graph import Graph, add_constant, drop_unused_constants, load, name_nodes
from edgecv.runtimes.onnx_files import check_external

_MOST_LITERAL = 1 << 20  # characters; metadata of a thousand classes has 30 kB


def load_model(path: Path) -> Any:
    """The model, checked, its nodes named; ``UnsupportedSource`` for a file that is missing, damaged or empty."""
    if not path.is_file():
        raise UnsupportedSource(f"{path} does not exist.", "Check the path to the model.")
    onnx = require("onnx", "convert")
    decode_error = require("google.protobuf.message", "convert").DecodeError
    try:
        check_external(path)
        model = load(path)
        sort_nodes(model.graph)
        onnx.checker.check_model(model)
    except (decode_error, onnx.checker.ValidationError, SessionError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else "empty"
        raise UnsupportedSource(f"{path} is not a usable ONNX model: {reason}.", "Export it again.") from error
    if not model.graph.node:
        raise UnsupportedSource(f"{path} is not a usable ONNX model: it is empty.", "Export it again.")
    name_nodes(model)
    return model


def input_size(path: Path, model: Any, asked: tuple[int, int] | None) -> tuple[int, int] | None:
    """Width and height of the ``(N, 3, H, W)`` input: the graph's own, else what was asked for, else what its metadata say.

    Another size than the graph's own is a ``ConfigError``.
    """
    shape = input_shape(model)
    fixed = (shape[3], shape[2]) if shape[2] and shape[3] else None
    if max(shape[2:]) > MAX_SIDE_PX or math.prod(fixed or (0,)) > MAX_INPUT_PIXELS:
        raise UnsupportedSource(f"{path} takes {shape[3]} x {shape[2]} pixels, more than any model.", "Is it damaged?")
    if fixed and asked and fixed != asked:
        raise ConfigError(f"{path} has a fixed input of {fixed[0]}x{fixed[1]}.", "Leave --imgsz away, or export again.")
    known = fixed or asked or _size_in_metadata(model)
    if known and any(axis and axis != size for axis, size in zip((shape[3], shape[2]), known, strict=True)):
        raise ConfigError(
            f"{path} has one fixed side ({shape[3] or 'open'} x {shape[2] or 'open'}), which {known[0]}x{known[1]} does not have.",
            "Say a size with that side: --imgsz WxH.",
        )
    return known


def metadata_of(model: Any) -> dict[str, str]:
    """What an export says of itself."""
    return {entry.key: entry.value for entry in model.metadata_props}


def _literal(text: str) -> Any:
    """A Python literal in an export's metadata; ``None`` for anything else."""
    if len(text) > _MOST_LITERAL:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def numbers_in(text: str) -> tuple[int, ...]:
    """Whole numbers in an export's metadata; none where it says something else."""
    found = _literal(text)
    whole = isinstance(found, (list, tuple)) and all(isinstance(number, int) for number in found)
    return tuple(found) if whole else ()


def _size_in_metadata(model: Any) -> tuple[int, int] | None:
    found = numbers_in(metadata_of(model).get("imgsz", ""))
    if len(found) != 2:
        return None
    height, width = found
    return (width, height) if min(width, height) >= SIZE_STEP else None


def with_fixed_shapes(path: Path, model: Any, size_wh: tuple[int, int]) -> Any:
    """The graph for one image of a fixed size, with every shape inferred."""
    onnx = require("onnx", "convert")
    fixed = copy.deepcopy(model)
    axes = image_input_of(fixed).type.tensor_type.shape.dim
    if axes[0].dim_value > 1:
        open_reshapes(fixed, axes[0].dim_value)
        del fixed.graph.value_info[:]
    for axis, size in zip(axes, (1, 3, size_wh[1], size_wh[0]), strict=True):
        axis.dim_value = size
    for output in fixed.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        return onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise UnsupportedSource(
            f"{path}: shapes cannot be inferred: {error}.", "Export it with fixed shapes."
        ) from error


def in_supported_opset(model: Any) -> Any:
    """The graph of fixed shapes in an opset that every tool on the way reads.

    It stays as it is where ONNX's converter cannot bring it there, or brings something else: floats and other formats do not
    need it, and onnxruntime's quantizer says what it does not take.
    """
    found = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    wanted = min(max(found, min(OPSETS)), max(OPSETS))
    if found == wanted:
        return model
    onnx = require("onnx", "convert")
    try:
        with foreign_errors(ConversionError, "ONNX cannot convert the opset", ""), quiet():
            changed = onnx.version_converter.convert_version(model, wanted)
            changed = onnx.shape_inference.infer_shapes(changed, data_prop=True)
            pairs = zip(answers_to_noise(model), answers_to_noise(changed), strict=True)
            same = all(cosine(*pair) > SAME for pair in pairs)
    except ConversionError:
        return model
    if not same:
        return model
    name_nodes(changed)  # the converter's own have none
    onnx.helper.set_model_props(changed, metadata_of(model))
    return changed


def open_reshapes(model: Any, batch: int) -> None:
    """Let reshapes that were written for ``batch`` images keep the number they are given (a 0 means that), in place."""
    graph = Graph(require("onnx", "convert").shape_inference.infer_shapes(model))
    values = (*graph.model.graph.value_info, *graph.model.graph.input)
    leading = {value.name: shape_of(value)[:1] for value in values}
    for node in model.graph.node:
        shape = graph.constant(node.input[1]) if node.op_type == "Reshape" else None
        if shape is not None and shape.size > 1 and shape[0] == batch and leading.get(node.input[0]) == (batch,):
            node.input[1] = add_constant(model, f"{node.output[0]}/rows", np.array([0, *shape[1:]], np.int64))
    drop_unused_constants(model)


def ultralytics_task(metadata: Mapping[str, str]) -> str:
    """What an export of Ultralytics is for, such as ``detect``, by its head where the metadata name it; empty for other files."""
    if metadata.get("author") != "Ultralytics":
        return ""
    head = HEADS.get(metadata.get("head", ""))
    return head.task if head is not None else metadata.get("task", "")


def licence_from(metadata: Mapping[str, str]) -> str:
    """The licence in an export's metadata, without the words around its identifier; ``unknown`` where it has none."""
    return metadata.get("license", "").split(" ")[0] or "unknown"


def labels_from(metadata: Mapping[str, str], classes: int) -> tuple[str, ...]:
    """Names of the classes in an export's metadata; their numbers where it has none."""
    return numbered_names(_literal(metadata.get("names", "{}")), classes)
