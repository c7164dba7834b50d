"""A ``.onnx`` that somebody else exported: a classifier, or a YOLOv8 detector of any task."""

from __future__ import annotations

from pathlib import Path

from edgecv._internal.foreign import first_line
from edgecv.converters.families.foreign_onnx.classifier import classifier
from edgecv.converters.families.foreign_onnx.detector import detector
from edgecv.converters.families.foreign_onnx.graph import output_shapes
from edgecv.converters.families.foreign_onnx.inputs import in_float32, prove_pixels, with_planes
from edgecv.converters.families.foreign_onnx.outputs import check_is_float, check_is_read, one_row
from edgecv.converters.families.foreign_onnx.reading import (
    in_supported_opset,
    input_size,
    load_model,
    with_fixed_shapes,
)
from edgecv.converters.source import SourceModel, SourceOptions
from edgecv.errors import UnsupportedSource
from edgecv.quantize.ort.graph import Graph

_DETECTOR_SIZE = (640, 640)  # what YOLOv8 is trained in, where neither graph nor metadata know


def open_onnx(path: Path, options: SourceOptions) -> SourceModel:
    """Read a ``.onnx``: a classifier when it gives one row of scores, else a YOLOv8 detector.

    Raises:
        UnsupportedSource: missing, damaged, quantized already, neither of the two, or nobody says what its scores mean.
        ConfigError: the size is known to nobody, or is not the graph's own; labels, or what is said of the input, cannot be; or
            there are options that mean nothing for it.
        MissingDependency: onnx is not installed.
    """
    options.accept(path.name, "preprocess", "labels", "activation")
    original = in_float32(load_model(path))
    check_is_float(path, original)
    model, given = with_planes(path, original)
    known_size = input_size(path, model, options.size_wh)
    size_wh = known_size or _DETECTOR_SIZE
    model = with_fixed_shapes(path, model, size_wh)
    try:
        shapes = output_shapes(model)
    except Exception as error:  # onnxruntime has an exception class per status code, without a base of their own
        raise UnsupportedSource(
            f"{path} does not run on one image of {size_wh[0]}x{size_wh[1]}: {first_line(error)}",
            "Export it with a batch of 1, or with open axes.",
        ) from error
    if given.pixels:
        prove_pixels(path, original, model, given)
    model = in_supported_opset(model)
    if one_row(path, model, dict(zip(Graph(model).output_names(), shapes.values(), strict=True))):
        shapes = output_shapes(model)
    check_is_read(path, model, shapes)
    first, *others = shapes.values()
    if not others and len(first) == 2 and first[0] == 1:
        return classifier(path, model, known_size, first[1], options, given)
    options.accept(f"{path.name}, a detector", "labels")
    if given.pixels:
        raise UnsupportedSource(
            f"{path} is a detector that takes uint8 pixels.", "Export it with a float32 input (1, 3, H, W) of 0 to 1."
        )
    return detector(path, model, size_wh, options)
