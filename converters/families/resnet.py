"""ResNets by name, through torchvision's definitions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgecv._internal.extras import require
from edgecv.bundles.manifest import Source
from edgecv.converters.checkpoints.weights import read_weights, weight_shape
from edgecv.converters.families import ultralytics_import
from edgecv.converters.families.torch_input import damped, inferred, normalised, pixel_module, with_random_weights
from edgecv.converters.source import (
    CLOSE_TOLERANCES,
    Part,
    SourceModel,
    SourceOptions,
    class_labels,
    image_input,
    logits_output,
    made_origin,
    no_weights,
    origin,
)
from edgecv.errors import UnsupportedSource
from edgecv.specs import DecodeSpec, ModelSpec, PreprocessSpec

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CROP = 224 / 256  # torchvision's evaluation transform: short side to 256, centre 224


def open_named(path: Path, options: SourceOptions) -> SourceModel:
    """A ResNet of torchvision: ``resnet18`` ... ``resnet152``.

    Raises:
        ConfigError: it was not said where the weights come from, or there is not one label per class.
        UnsupportedSource: the weights do not fit.
        MissingDependency: torch or torchvision is not installed.
    """
    name = path.name
    options.accept(name, "weights", "random_weights", "pretrained", "labels")
    spec = PreprocessSpec(
        size_wh=options.size_wh or (224, 224),
        resize="crop",
        crop_fraction=_CROP,
        interpolation="antialias",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
    network, made_from, labels = _network(name, options, spec)
    classes = network.fc.out_features
    part = Part(
        inputs=(image_input(spec.size_wh),),
        outputs=(logits_output(classes),),
        reference=lambda feeds: {"logits": inferred(network, normalised(feeds["image"][0], spec)).numpy()},
        module=pixel_module(network, spec),
    )
    return SourceModel(
        name=name,
        family="resnet",
        licence="BSD-3-Clause" if options.pretrained or options.random_weights else "unknown",
        origin=made_from,
        spec=ModelSpec(
            preprocess=spec,
            decode=DecodeSpec(
                task="classify",
                decoder="logits",
                labels=class_labels(options.labels, labels or tuple(str(index) for index in range(classes)), name),
                confidence=0.0,
            ),
        ),
        parts=(part,),
        trained=not options.random_weights,
        tolerances=CLOSE_TOLERANCES,
    )


def _network(name: str, options: SourceOptions, spec: PreprocessSpec) -> tuple[Any, Source, tuple[str, ...]]:
    ultralytics_import.declare_torchvision_operators()
    models = require("torchvision.models", "convert")
    build: Callable[..., Any] = getattr(models, name)
    if options.weights is not None:
        return _loaded(build, options.weights), origin(options.weights), ()
    if options.random_weights:
        network = with_random_weights(lambda: damped(build(weights=None), _last_norm), spec, options.images)
        return network, made_origin(name), ()
    if options.pretrained:
        weights = models.get_model_weights(name).DEFAULT
        labels = tuple(str(label) for label in weights.meta["categories"])
        return _downloaded(build, weights), made_origin(name, str(weights)), labels
    raise no_weights(name, "Give --weights FILE.pth, --random-weights, or --pretrained (torchvision downloads them).")


def _last_norm(block: Any) -> Any:
    """Of a residual block of torchvision's ResNets."""
    return getattr(block, "bn3", None) or getattr(block, "bn2", None)


def _downloaded(build: Callable[..., Any], weights: Any) -> Any:
    try:
        return build(weights=weights).eval()
    except OSError as error:
        raise UnsupportedSource(
            f"torchvision could not download {weights}: {error}.",
            "Download them elsewhere and give --weights FILE.pth.",
        ) from error


def _loaded(build: Callable[..., Any], path: Path) -> Any:
    with require("torch", "convert").device("meta"):
        names = build(weights=None).state_dict()
    network = build(weights=None, num_classes=weight_shape(path, "fc.weight", names)[0])
    network.load_state_dict(read_weights(path, network.state_dict()))
    return network.eval()
