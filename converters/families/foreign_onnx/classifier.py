"""A classification ``.onnx`` that somebody else exported: one image in, one row of class scores out."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from edgecv.converters.families.foreign_onnx.graph import in_memory_session, rename_outputs
from edgecv.converters.families.foreign_onnx.inputs import GREY, Input, from_pixels
from edgecv.converters.families.foreign_onnx.outputs import UNSURE, without_activation
from edgecv.converters.families.foreign_onnx.reading import labels_from, licence_from, metadata_of, ultralytics_task
from edgecv.converters.families.resnet import IMAGENET_MEAN, IMAGENET_STD
from edgecv.converters.families.torch_input import normalised
from edgecv.converters.families.yolov8_tasks import classifier_preprocess
from edgecv.converters.normalisation import read_normalisation
from edgecv.converters.source import Part, SourceModel, SourceOptions, class_labels, image_input, logits_output, origin
from edgecv.errors import ConfigError, UnsupportedSource
from edgecv.protocols import Array, Tensors
from edgecv.quantize.ort.graph import Graph
from edgecv.specs import DecodeSpec, ModelSpec, PreprocessSpec

_ASSUMED = ("resize", "color", "mean", "std")
_PIXELS = (1 / 255,) * 3  # the std at which pixels stay what they are


def classifier(
    path: Path,
    model: Any,
    size_wh: tuple[int, int] | None,
    classes: int,
    options: SourceOptions,
    given: Input,
) -> SourceModel:
    """A classifier of fixed shapes; what its file does not say about its input is assumed, and the assumption recorded.

    A softmax or sigmoid at its end is taken off, since ``LogitsDecoder`` applies it. Errors are those of ``open_onnx``.
    """
    if size_wh is None:
        raise ConfigError(f"{path.name} leaves its input size open.", "Say what it was trained in: --imgsz 224")
    metadata = metadata_of(model)
    spec, assumptions = _preprocess(path, size_wh, metadata, options, given)
    model, found = without_activation(model)
    activation = _activation(path, found, classes, options)
    if activation == "softmax" and found != "softmax" and not options.activation:
        assumptions += ("activation: softmax, one class per image; for several, --activation sigmoid",)
    session = in_memory_session(model)
    (source_input,), (tensor,) = Graph(model).input_names(), Graph(model).output_names()

    def reference(feeds: Tensors) -> dict[str, Array]:
        (scores,) = session.run([tensor], {source_input: normalised(feeds["image"][0], spec)})
        return {"logits": scores}

    graph = copy.deepcopy(model)
    rename_outputs(graph, {tensor: "logits"})
    part = Part(
        inputs=(image_input(size_wh),),
        outputs=(logits_output(classes),),
        reference=reference,
        graph=from_pixels(graph, spec),
    )
    # One number is the confidence of the second of two classes, as Keras and torch's binary cross entropy have it.
    known = labels_from(metadata, max(2, classes))
    return SourceModel(
        name=path.stem,
        family="onnx-classifier",
        licence=licence_from(metadata),
        origin=origin(path),
        spec=ModelSpec(
            preprocess=spec,
            decode=DecodeSpec(
                task="classify",
                decoder="logits",
                labels=class_labels(options.labels, known, path.name),
                confidence=0.0,
                options=_decode_options(activation, classes),
            ),
        ),
        parts=(part,),
        assumptions=assumptions,
    )


def _decode_options(activation: str, classes: int) -> dict[str, Any]:
    """What ``LogitsDecoder`` is told beyond its defaults. Where each class stands for itself, all are of interest."""
    if activation == "softmax":
        return {}
    return {"activation": activation, "top": classes} if classes > 2 else {"activation": activation}


def _activation(path: Path, found: str, classes: int, options: SourceOptions) -> str:
    """What makes confidences of the scores: what the file says, else the caller, else a softmax over several classes."""
    asked = options.activation
    if found in ("softmax", "sigmoid", "none"):
        if asked and found not in (asked, "none"):
            raise ConfigError(f"{path.name} ends in a {found}, not in plain scores.", "Leave --activation out.")
        return found
    if asked == "softmax" and classes == 1:
        raise ConfigError("The softmax of one score is always 1.", "Use --activation sigmoid for one score.")
    if asked:
        return asked
    if found == UNSURE or classes == 1:
        what = "one number per image" if classes == 1 else f"{classes} numbers, all between 0 and 1,"
        raise UnsupportedSource(
            f"{path} gives {what} and does not end in a softmax or sigmoid: what they mean is not said.",
            "Say it: --activation sigmoid (scores of a binary or multi-label classifier), none (confidences already) or softmax. "
            "A regression (an age, an angle) is not read.",
        )
    return "softmax"


def _preprocess(
    path: Path, size_wh: tuple[int, int], metadata: Mapping[str, str], options: SourceOptions, given: Input
) -> tuple[PreprocessSpec, tuple[str, ...]]:
    """What images become, and what of it was assumed unless the caller says otherwise.

    Ultralytics' exports say what they are. Of any other file: stretched, RGB, over 255, ImageNet's mean and std. A grey image is
    only divided by 255; a network that takes uint8 pixels gets them as they are.
    """
    said, notes = read_normalisation(options.preprocess)
    unknown = said.keys() - set(_ASSUMED)
    if unknown:
        raise ConfigError(f"A classifier's input has no '{min(unknown)}'.", f"Known: {', '.join(_ASSUMED)}.")
    useless = ({"mean", "std"} if given.pixels else set()) | ({"color"} if given.grey else set())
    if useless & said.keys():
        why = "takes uint8 pixels and normalises them itself" if given.pixels else "takes grey images"
        raise ConfigError(f"{path.name} {why}.", f"Leave --{min(useless & said.keys())} out.")
    ours = ultralytics_task(metadata) == "classify"
    base = classifier_preprocess(size_wh) if ours else PreprocessSpec(size_wh=size_wh, resize="stretch")
    if given.pixels:
        base = msgspec.structs.replace(base, std=_PIXELS)
    elif not ours and not given.grey:
        base = msgspec.structs.replace(base, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    try:
        spec = msgspec.convert({**msgspec.structs.asdict(base), **said}, PreprocessSpec)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"What is said of the input cannot be: {error}.", "Example: --mean 0.5,0.5,0.5 --resize stretch"
        ) from error
    assumed = () if ours else tuple(name for name in _ASSUMED if name not in said.keys() | useless)
    grey = (f"grey: {GREY[0]} red + {GREY[1]} green + {GREY[2]} blue",) if given.grey else ()
    return spec, (*(f"{name}: {getattr(spec, name)}" for name in assumed), *grey, *notes)
