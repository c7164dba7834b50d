"""SAM by name, through Ultralytics' builders: an encoder and a decoder. SAM 2 (``sam2.py``) shares the decoder's form."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from edgecv._internal.extras import require
from edgecv.bundles.bundle import sha256_of
from edgecv.bundles.manifest import Source
from edgecv.converters.checkpoints.checkpoint import read_weights
from edgecv.converters.families import ultralytics_import
from edgecv.converters.families.sam.networks import calibrate_norms, decoder_module, encoder_module, normalised
from edgecv.converters.families.torch_input import SEED
from edgecv.converters.source import (
    RANDOM,
    TOLERANCES,
    Family,
    Part,
    SourceModel,
    SourceOptions,
    Tolerance,
    image_input,
)
from edgecv.errors import ConfigError
from edgecv.protocols import Array, Tensors
from edgecv.specs import DecodeSpec, ModelSpec, PreprocessSpec, TensorSpec
from edgecv.vision.sam import INSIDE, NO_POINT, OUTSIDE, PADDING_BGR, point_prompt

ARCHITECTURE: Literal["transformer"] = "transformer"  # which recipes suit it
FAMILY_TOLERANCES = {**TOLERANCES, "fp16": Tolerance(cosine=0.999, worst=0.02)}  # docs/adr/0013
SIZE = 1024  # what SAM was trained at
MAX_POINTS = 8  # of one object
SLOTS = MAX_POINTS + 1  # one for the end of the points
_CELL = 16  # model pixels per embedding
_BUILDERS: Mapping[str, str] = MappingProxyType(
    {
        "mobile_sam": "build_mobile_sam",
        "sam_b": "build_sam_vit_b",
        "sam_l": "build_sam_vit_l",
        "sam_h": "build_sam_vit_h",
    }
)
# Pixel statistics of SAM's training (segment-anything, build_sam.py), as parts of 255.
_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
_STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)


def open_sam(path: Path, options: SourceOptions) -> SourceModel:
    """``mobile_sam``, ``sam_b``, ``sam_l`` or ``sam_h``.

    Raises:
        ConfigError: it was not said where the weights come from, or the size is not square.
        UnsupportedSource: the weights do not fit.
        MissingDependency: torch or ultralytics is not installed.
    """
    size = square(options.size_wh)
    check_weights(path.name, options)
    spec = PreprocessSpec(
        size_wh=(size, size),
        resize="letterbox",
        pad_value=PADDING_BGR,
        pad_anchor="top-left",
        mean=_MEAN,
        std=_STD,
    )
    network = _network(path.name, options, spec)
    return SourceModel(
        name=path.name,
        family="sam",
        licence="unknown" if options.weights else "Apache-2.0",
        origin=weights_origin(path.name, options),
        spec=ModelSpec(preprocess=spec, decode=DecodeSpec(task="promptable-segment", decoder="sam")),
        parts=(_encoder(network, size), _decoder(network, size)),
        trained=not options.random_weights,
        tolerances=FAMILY_TOLERANCES,
        prompts=example_prompt(size),
        assumptions=coarser(size),
    )


def _network(name: str, options: SourceOptions, spec: PreprocessSpec) -> Any:
    torch = require("torch", "convert")
    ultralytics_import.tasks()
    build = getattr(require("ultralytics.models.sam.build", "convert"), _BUILDERS[name])
    torch.manual_seed(SEED)
    network = build()
    network.set_imgsz(list(spec.size_wh))
    if options.weights is not None:
        load_weights(network, options.weights)
    else:
        calibrate_norms(network, spec, options.images)
    return network.float().eval().requires_grad_(False)


def _encoder(network: Any, size: int) -> Part:
    def reference(feeds: Tensors) -> dict[str, Array]:
        torch = require("torch", "convert")
        with torch.no_grad():
            found = network.image_encoder(torch.from_numpy(normalised(feeds["image"][0], network)))
        return {"image_embeddings": found.numpy()}

    return Part(
        name="encoder",
        inputs=(image_input((size, size)),),
        outputs=(embeddings(size),),
        reference=reference,
        module=encoder_module(network),
        architecture=ARCHITECTURE,
    )


def _decoder(network: Any, size: int) -> Part:
    return Part(
        name="decoder",
        inputs=(embeddings(size), *prompt_inputs(size)),
        outputs=mask_outputs(size),
        reference=lambda feeds: _decode(network, feeds),
        module=decoder_module(network.prompt_encoder, network.mask_decoder, size),
        architecture="float",
    )


def _decode(network: Any, feeds: Tensors) -> dict[str, Array]:
    """The source's own prompt encoder and decoder over the slots in use: another road than the export takes."""
    torch = require("torch", "convert")
    with torch.no_grad():
        given, sparse, dense = prompted(network.prompt_encoder, feeds)
        masks, iou = network.mask_decoder.predict_masks(
            given["image_embeddings"], network.prompt_encoder.get_dense_pe(), sparse, dense
        )
    return {"low_res_masks": masks.numpy(), "iou_predictions": iou.numpy()}


def example_prompt(size: int) -> dict[str, Array]:
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
    """What the encoder gives and the decoder takes."""
    return float_tensor("image_embeddings", 1, 256, size // _CELL, size // _CELL)


def prompt_inputs(size: int) -> tuple[TensorSpec, ...]:
    """The decoder's inputs beside the image."""
    return (
        float_tensor("point_coords", 1, SLOTS, 2),
        float_tensor("point_labels", 1, SLOTS),
        float_tensor("mask_input", 1, 1, size // 4, size // 4),
        float_tensor("has_mask_input", 1),
    )


def mask_outputs(size: int) -> tuple[TensorSpec, ...]:
    """Four candidates: one for prompts that leave no doubt, and whole, part and part of a part."""
    return (
        float_tensor("low_res_masks", 1, 4, size // 4, size // 4),
        float_tensor("iou_predictions", 1, 4),
    )


def prompted(prompts: Any, feeds: Tensors) -> tuple[dict[str, Any], Any, Any]:
    """The feeds as torch tensors, and the source's own sparse and dense embeddings of the slots in use."""
    torch = require("torch", "convert")
    used = feeds["point_labels"][0] >= NO_POINT
    given = {name: torch.from_numpy(np.array(array)) for name, array in feeds.items()}
    sparse = prompts._embed_points(given["point_coords"][:, used], given["point_labels"][:, used], pad=False)
    _, dense = prompts(None, None, given["mask_input"] if feeds["has_mask_input"][0] else None)
    return given, sparse, dense


def load_weights(network: Any, path: Path, strict: bool = True) -> None:
    """Read a state dict, as SAM's are published, without running what is in it.

    Raises:
        UnsupportedSource: there is none, or it is another network's.
    """
    network.load_state_dict(read_weights(path, network.state_dict(), whole=strict), strict=strict)


def weights_origin(name: str, options: SourceOptions) -> Source:
    """Where the weights come from."""
    if options.weights is not None:
        return Source(file=options.weights.name, sha256=sha256_of(options.weights))
    text = f"{name}: {RANDOM}"
    return Source(file=text, sha256=hashlib.sha256(text.encode()).hexdigest())


SAM = Family(open_sam, architecture=ARCHITECTURE)


def check_weights(name: str, options: SourceOptions) -> None:
    """Raise ``ConfigError`` unless it was said where the weights come from, and nothing that means nothing for a SAM."""
    options.accept(name, "weights", "random_weights")
    if options.weights is None and not options.random_weights:
        raise ConfigError(
            f"'{name}' names an architecture; where do its weights come from?",
            "Give --weights FILE.pt or --random-weights.",
        )


def square(size_wh: tuple[int, int] | None) -> int:
    """The side in pixels.

    Raises:
        ConfigError: width and height differ.
    """
    width, height = size_wh or (SIZE, SIZE)
    if width != height:
        raise ConfigError(f"SAM takes square images, not {width}x{height}.", f"Leave --imgsz out, or use {SIZE}.")
    return width


def coarser(size: int) -> tuple[str, ...]:
    """What is assumed at another size than that of the training."""
    if size == SIZE:
        return ()
    return (f"size {size}x{size} is good enough (SAM was trained at {SIZE}x{SIZE}; its masks are coarser)",)
