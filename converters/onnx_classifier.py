"""A classification ``.onnx`` that somebody else exported: one image in, one row of class scores out."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import msgspec

from edgecv.bundle import sha256_of
from edgecv.converters.onnx_parts import from_pixels, in_memory_session, labels_from, rename_outputs
from edgecv.converters.pixels import normalised
from edgecv.converters.resnet import IMAGENET_MEAN, IMAGENET_STD
from edgecv.converters.source import Part, SourceModel, SourceOptions, image_input, origin
from edgecv.errors import ConfigError
from edgecv.protocols import Array, Tensors
from edgecv.quantize.onnx_graph import Graph
from edgecv.specs import DecodeSpec, ModelSpec, PreprocessSpec, TensorSpec

_ASSUMED = ("resize", "color", "mean", "std")


def classifier(path: Path, model: Any, size_wh: tuple[int, int], options: SourceOptions) -> SourceModel:
    """A classifier of fixed shapes; what its file does not say about its input is assumed, and the assumption recorded.

    Raises:
        ConfigError: what the caller says of the input, or the number of labels, cannot be.
    """
    spec = _preprocess(size_wh, options)
    session = in_memory_session(model)
    (source_input,), (tensor,) = Graph(model).input_names(), Graph(model).output_names()
    classes = int(session.get_outputs()[0].shape[1])
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    labels = options.labels or labels_from(metadata, classes)
    if len(labels) != classes:
        raise ConfigError(f"{path.name} has {classes} classes, not {len(labels)}.", "Give one label per class.")

    def reference(feeds: Tensors) -> dict[str, Array]:
        (scores,) = session.run([tensor], {source_input: normalised(feeds["image"][0], spec)})
        return {"logits": scores}

    graph = copy.deepcopy(model)
    rename_outputs(graph, {tensor: "logits"})
    return SourceModel(
        name=path.stem,
        family="onnx-classifier",
        licence=metadata.get("license", "unknown"),
        origin=origin(path, sha256_of(path)),
        spec=ModelSpec(
            preprocess=spec,
            decode=DecodeSpec(task="classify", decoder="logits", labels=labels, confidence=0.0),
        ),
        parts=(
            Part(
                name="main",
                inputs=(image_input(size_wh),),
                outputs=(TensorSpec(name="logits", role="logits", shape=(1, classes), dtype="float32"),),
                reference=reference,
                graph=from_pixels(graph, spec),
            ),
        ),
        assumptions=tuple(f"{name}: {getattr(spec, name)}" for name in _ASSUMED if name not in options.preprocess),
    )


def _preprocess(size_wh: tuple[int, int], options: SourceOptions) -> PreprocessSpec:
    """Stretched, RGB, over 255, ImageNet's mean and std, unless the caller says otherwise."""
    unknown = options.preprocess.keys() - set(_ASSUMED)
    if unknown:
        raise ConfigError(f"A classifier's input has no '{min(unknown)}'.", f"Known: {', '.join(_ASSUMED)}.")
    said = {"resize": "stretch", "mean": IMAGENET_MEAN, "std": IMAGENET_STD, **options.preprocess}
    try:
        return msgspec.convert({"size_wh": size_wh, **said}, PreprocessSpec)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"What is said of the input cannot be: {error}.", "Example: --mean 0.5,0.5,0.5 --resize stretch"
        ) from error
