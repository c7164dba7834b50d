"""SAM by name, through Ultralytics' builders: an encoder and a decoder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgecv.bundle import Source, sha256_of
from edgecv.converters import ultralytics_world
from edgecv.converters.pixels import SEED
from edgecv.converters.sam_networks import calibrate_norms, decoder_module, encoder_module, normalised
from edgecv.converters.source import Part, SourceModel, SourceOptions, image_input
from edgecv.errors import ConfigError, UnsupportedSource
from edgecv.extras import require
from edgecv.protocols import Array, Tensors
from edgecv.specs import DecodeSpec, ModelSpec, PreprocessSpec, TensorSpec
from edgecv.vision.sam import INSIDE, OUTSIDE, PADDING_BGR, point_prompt

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
    size = _square(options.size_wh)
    spec = PreprocessSpec(
        size_wh=(size, size),
        resize="letterbox",
        pad_value=PADDING_BGR,
        pad_anchor="top-left",
        mean=_MEAN,
        std=_STD,
    )
    network, origin = _network(path.name, options, spec)
    return SourceModel(
        name=path.name,
        family="sam",
        licence="unknown" if options.weights else "Apache-2.0",
        origin=origin,
        spec=ModelSpec(preprocess=spec, decode=DecodeSpec(task="promptable-segment", decoder="sam")),
        parts=(_encoder(network, size), _decoder(network, size)),
        trained=not options.random_weights,
        prompts=_example(size),
        assumptions=()
        if size == SIZE
        else (f"SAM was trained at {SIZE}x{SIZE}; at {size}x{size} its masks are coarser.",),
    )


def _square(size_wh: tuple[int, int] | None) -> int:
    width, height = size_wh or (SIZE, SIZE)
    if width != height:
        raise ConfigError(f"SAM takes square pictures, not {width}x{height}.", f"Leave --imgsz out, or use {SIZE}.")
    return width


def _network(name: str, options: SourceOptions, spec: PreprocessSpec) -> tuple[Any, Source]:
    if options.weights is None and not options.random_weights:
        raise ConfigError(
            f"'{name}' names an architecture; where do its weights come from?",
            "Give --weights FILE.pt or --random-weights.",
        )
    torch = require("torch", "convert")
    ultralytics_world.tasks()
    build = getattr(require("ultralytics.models.sam.build", "convert"), _BUILDERS[name])
    torch.manual_seed(SEED)
    network = build()
    network.set_imgsz(list(spec.size_wh))
    if options.weights is not None:
        _load(network, options.weights)
        origin = Source(file=options.weights.name, sha256=sha256_of(options.weights))
    else:
        calibrate_norms(network, spec, options.pictures)
        text = f"{name}: random weights, seed 0"
        origin = Source(file=text, sha256=hashlib.sha256(text.encode()).hexdigest())
    return network.float().eval().requires_grad_(False), origin


def _load(network: Any, path: Path) -> None:
    torch = require("torch", "convert")
    try:
        content = torch.load(str(path), map_location="cpu", weights_only=True)
        network.load_state_dict(content.get("model", content))
    except FileNotFoundError as error:
        raise UnsupportedSource(f"{path} does not exist.", "Check the path to the weights.") from error
    except Exception as error:
        raise UnsupportedSource(
            f"{path} does not hold weights of this network: {str(error).splitlines()[0]}",
            "Give a state dict of that SAM.",
        ) from error


def _example(size: int) -> dict[str, Array]:
    """A prompt with a point inside, one outside, and unused slots."""
    points = np.array([[0.4, 0.5], [0.8, 0.2]]) * size
    coords, labels = point_prompt(points, np.array([INSIDE, OUTSIDE]), SLOTS)
    return {
        "point_coords": coords,
        "point_labels": labels,
        "mask_input": np.zeros((1, 1, size // 4, size // 4), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
    }


def _float(name: str, *shape: int) -> TensorSpec:
    """Without a layout: every format keeps the axes as they are, so that what one part gives fits the other."""
    return TensorSpec(name=name, role=name, shape=shape, dtype="float32")


def _embeddings(size: int) -> TensorSpec:
    return _float("image_embeddings", 1, 256, size // _CELL, size // _CELL)


def _encoder(network: Any, size: int) -> Part:
    def reference(feeds: Tensors) -> dict[str, Array]:
        torch = require("torch", "convert")
        with torch.no_grad():
            found = network.image_encoder(torch.from_numpy(normalised(feeds["image"][0], network)))
        return {"image_embeddings": found.numpy()}

    return Part(
        name="encoder",
        inputs=(image_input((size, size)),),
        outputs=(_embeddings(size),),
        reference=reference,
        module=encoder_module(network),
        architecture="transformer",
    )


def _decoder(network: Any, size: int) -> Part:
    fine = size // 4
    return Part(
        name="decoder",
        inputs=(
            _embeddings(size),
            _float("point_coords", 1, SLOTS, 2),
            _float("point_labels", 1, SLOTS),
            _float("mask_input", 1, 1, fine, fine),
            _float("has_mask_input", 1),
        ),
        outputs=(
            _float("low_res_masks", 1, 4, fine, fine),
            _float("iou_predictions", 1, 4),
        ),
        reference=lambda feeds: _decode(network, feeds),
        module=decoder_module(network, size),
        architecture="float",
    )


def _decode(network: Any, feeds: Tensors) -> dict[str, Array]:
    """The source's own prompt encoder and decoder over the slots in use: another road than the export takes."""
    torch = require("torch", "convert")
    used = feeds["point_labels"][0] >= -1
    given = {name: torch.from_numpy(np.array(array)) for name, array in feeds.items()}
    prompts = network.prompt_encoder
    with torch.no_grad():
        coords, labels = given["point_coords"][:, used], given["point_labels"][:, used]
        sparse = prompts._embed_points(coords, labels, pad=False)
        mask = given["mask_input"] if feeds["has_mask_input"][0] else None
        _, dense = prompts(None, None, mask)
        masks, iou = network.mask_decoder.predict_masks(
            given["image_embeddings"], prompts.get_dense_pe(), sparse, dense
        )
    return {"low_res_masks": masks.numpy(), "iou_predictions": iou.numpy()}
