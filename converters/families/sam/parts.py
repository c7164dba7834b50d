"""What SAM and SAM 2 have in common: how their networks are read, their tensors and prompts, and the source made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgecv._internal.extras import require
from edgecv.converters.checkpoints.weights import read_weights
from edgecv.converters.families import ultralytics_import
from edgecv.converters.families.sam.networks import decoder_module
from edgecv.converters.families.torch_input import SEED
from edgecv.converters.source import (
    CLOSE_TOLERANCES,
    Part,
    SourceModel,
    SourceOptions,
    image_input,
    made_origin,
    no_weights,
    origin,
)
from edgecv.errors import ConfigError
from edgecv.protocols import Array, Tensors
from edgecv.specs import DecodeSpec, ModelSpec, PreprocessSpec, TensorSpec
from edgecv.vision.sam import INSIDE, NO_POINT, OUTSIDE, point_prompt

ARCHITECTURE: Literal["transformer"] = "transformer"  # which recipes suit it
_SIZE = 1024  # what SAM was trained at
SLOTS = 9  # 8 points of one object, and one for the end of the points
_CELL = 16  # model pixels per embedding


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Networks:
    """A SAM of either generation."""

    encode: Callable[[Array], dict[str, Array]]  # the source's own encoder: from a fitted image to the features by name
    encoder: Any  # the same as a module that can be traced
    features: tuple[TensorSpec, ...]  # what it gives and the decoder takes, in this order
    prompts: Any  # the source's prompt encoder
    masks: Any  # the source's mask decoder


def size_of(path: Path, options: SourceOptions) -> int:
    """The side of the square images in pixels; ``ConfigError`` for options that contradict each other or mean nothing for a SAM."""
    options.accept(path.name, "weights", "random_weights")
    if options.weights is None and not options.random_weights:
        raise no_weights(path.name, "Give --weights FILE.pt or --random-weights.")
    width, height = options.size_wh or (_SIZE, _SIZE)
    if width != height:
        raise ConfigError(f"SAM takes square images, not {width}x{height}.", f"Leave --imgsz out, or use {_SIZE}.")
    return width


def built(builder: str, size: int, weights: Path | None, *, whole: bool = True) -> Any:
    """A network of Ultralytics' builders, with the weights of a state dict or those of seed 0.

    ``whole`` says whether the file may hold nothing else, and must hold everything.
    """
    torch = require("torch", "convert")
    ultralytics_import.tasks()
    torch.manual_seed(SEED)
    network = getattr(require("ultralytics.models.sam.build", "convert"), builder)()
    network.set_imgsz([size, size])
    if weights is not None:
        network.load_state_dict(read_weights(weights, network.state_dict(), whole=whole), strict=whole)
    return network.float().eval().requires_grad_(False)


def source_of(
    path: Path, family: str, options: SourceOptions, preprocess: PreprocessSpec, decode: DecodeSpec, networks: Networks
) -> SourceModel:
    """The source: an encoder that is quantized, and a decoder that stays float."""
    size = preprocess.size_wh[0]
    encoder = Part(
        name="encoder",
        inputs=(image_input((size, size)),),
        outputs=networks.features,
        reference=lambda feeds: networks.encode(feeds["image"][0]),
        module=networks.encoder,
        architecture=ARCHITECTURE,
    )
    decoder = Part(
        name="decoder",
        inputs=(*networks.features, *_prompt_inputs(size)),
        outputs=_mask_outputs(size),
        reference=lambda feeds: _decoded(networks, feeds),
        module=decoder_module(networks.prompts, networks.masks, size),
        architecture="float",
    )
    coarser = f"size {size}x{size} is good enough (SAM was trained at {_SIZE}x{_SIZE}; its masks are coarser)"
    return SourceModel(
        name=path.name,
        family=family,
        licence="unknown" if options.weights else "Apache-2.0",
        origin=origin(options.weights) if options.weights is not None else made_origin(path.name),
        spec=ModelSpec(preprocess=preprocess, decode=decode),
        parts=(encoder, decoder),
        trained=not options.random_weights,
        tolerances=CLOSE_TOLERANCES,
        prompts=_example_prompt(size),
        assumptions=(coarser,) if size != _SIZE else (),
    )


def _decoded(networks: Networks, feeds: Tensors) -> dict[str, Array]:
    """The source's own prompt encoder and decoder over the slots in use: another road than the export takes."""
    torch = require("torch", "convert")
    prompts = networks.prompts
    used = feeds["point_labels"][0] >= NO_POINT
    given = {name: torch.from_numpy(np.array(array)) for name, array in feeds.items()}
    image, *fine = (given[spec.name] for spec in networks.features)
    more = {"repeat_image": False, "high_res_features": fine} if fine else {}
    with torch.no_grad():
        sparse = prompts._embed_points(given["point_coords"][:, used], given["point_labels"][:, used], pad=False)
        _, dense = prompts(None, None, given["mask_input"] if feeds["has_mask_input"][0] else None)
        masks, iou, *_ = networks.masks.predict_masks(image, prompts.get_dense_pe(), sparse, dense, **more)
    return {"low_res_masks": masks.numpy(), "iou_predictions": iou.numpy()}


def _example_prompt(size: int) -> dict[str, Array]:
    """A prompt with a point inside, one outside, and unused slots."""
    points = np.array([[0.4, 0.5], [0.8, 0.2]]) * size
    coords, labels = point_prompt(points, np.array([INSIDE, OUTSIDE]), SLOTS)
    return {
        "point_coords": coords,
        "point_labels": labels,
        "mask_input": np.zeros((1, 1, size // 4, size // 4), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
    }


def float_tensor(name: str, *shape: int) -> TensorSpec:
    """Without a layout: every format keeps the axes as they are, so that what one part gives fits the other."""
    return TensorSpec(name=name, role=name, shape=shape, dtype="float32")


def embeddings(size: int) -> TensorSpec:
    """What every encoder gives."""
    return float_tensor("image_embeddings", 1, 256, size // _CELL, size // _CELL)


def _prompt_inputs(size: int) -> tuple[TensorSpec, ...]:
    return (
        float_tensor("point_coords", 1, SLOTS, 2),
        float_tensor("point_labels", 1, SLOTS),
        float_tensor("mask_input", 1, 1, size // 4, size // 4),
        float_tensor("has_mask_input", 1),
    )


def _mask_outputs(size: int) -> tuple[TensorSpec, ...]:
    """Four candidates: one for prompts that leave no doubt, and whole, part and part of a part."""
    return (float_tensor("low_res_masks", 1, 4, size // 4, size // 4), float_tensor("iou_predictions", 1, 4))
