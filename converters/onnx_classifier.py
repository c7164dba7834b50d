"""A classification ``.onnx`` that somebody else exported: one image in, one row of class scores out."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgecv.bundle import sha256_of
from edgecv.converters.onnx_parts import (
    from_pixels,
    in_memory_session,
    labels_from,
    licence_from,
    rename_outputs,
    ultralytics_task,
    without_softmax,
)
from edgecv.converters.pixels import normalised
from edgecv.converters.resnet import IMAGENET_MEAN, IMAGENET_STD
from edgecv.converters.source import Part, SourceModel, SourceOptions, class_labels, image_input, origin
from edgecv.converters.yolov8_tasks import classifier_preprocess
from edgecv.errors import ConfigError
from edgecv.protocols import Array, Tensors
from edgecv.quantize.onnx_graph import Graph
from edgecv.specs import DecodeSpec, ModelSpec, PreprocessSpec, TensorSpec

_ASSUMED = ("resize", "color", "mean", "std")


def classifier(
    path: Path, model: Any, size_wh: tuple[int, int] | None, classes: int, options: SourceOptions
) -> SourceModel:
    """A classifier of fixed shapes; what its file does not say about its input is assumed, and the assumption recorded.

    A softmax at its end is taken off, since ``LogitsDecoder`` applies it.

    Raises:
        ConfigError: the size is known to nobody; what the caller says of the input, or the number of labels, cannot be.
    """
    if size_wh is None:
        raise ConfigError(f"{path.name} leaves its input size open.", "Say what it was trained in: --imgsz 224")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    spec, assumed = _preprocess(size_wh, metadata, options)
    model = without_softmax(model)
    session = in_memory_session(model)
    (source_input,), (tensor,) = Graph(model).input_names(), Graph(model).output_names()

    def reference(feeds: Tensors) -> dict[str, Array]:
        (scores,) = session.run([tensor], {source_input: normalised(feeds["image"][0], spec)})
        return {"logits": scores}

    graph = copy.deepcopy(model)
    rename_outputs(graph, {tensor: "logits"})
    return SourceModel(
        name=path.stem,
        family="onnx-classifier",
        licence=licence_from(metadata),
        origin=origin(path, sha256_of(path)),
        spec=ModelSpec(
            preprocess=spec,
            decode=DecodeSpec(
                task="classify",
                decoder="logits",
                labels=class_labels(options.labels, labels_from(metadata, classes), path.name),
                confidence=0.0,
            ),
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
        assumptions=tuple(f"{name}: {getattr(spec, name)}" for name in assumed if name not in options.preprocess),
    )


def _preprocess(
    size_wh: tuple[int, int], metadata: Mapping[str, str], options: SourceOptions
) -> tuple[PreprocessSpec, tuple[str, ...]]:
    """What pictures become, and what of it was assumed unless the caller says otherwise.

    Ultralytics' exports say what they are. Of any other file: stretched, RGB, over 255, ImageNet's mean and std.
    """
    said = options.preprocess
    unknown = said.keys() - set(_ASSUMED)
    if unknown:
        raise ConfigError(f"A classifier's input has no '{min(unknown)}'.", f"Known: {', '.join(_ASSUMED)}.")
    ours = ultralytics_task(metadata) == "classify"
    base = (
        classifier_preprocess(size_wh)
        if ours
        else PreprocessSpec(size_wh=size_wh, resize="stretch", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    )
    try:
        spec = msgspec.convert({**msgspec.structs.asdict(base), **said}, PreprocessSpec)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"What is said of the input cannot be: {error}.", "Example: --mean 0.5,0.5,0.5 --resize stretch"
        ) from error
    if not np.isfinite([*spec.mean, *spec.std]).all() or min(spec.std) <= 0:
        raise ConfigError(
            f"A mean of {spec.mean} and a std of {spec.std} normalise nothing.", "Example: --std 0.229,0.224,0.225"
        )
    return spec, () if ours else _ASSUMED
