"""SAM 2.1 by name, through Ultralytics' builders: images only, no video memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgecv._internal.extras import require
from edgecv.converters.families import ultralytics_import
from edgecv.converters.families.resnet import IMAGENET_MEAN, IMAGENET_STD
from edgecv.converters.families.sam.networks import decoder_module, encoder2_module
from edgecv.converters.families.sam.sam import (
    ARCHITECTURE,
    FAMILY_TOLERANCES,
    check_weights,
    coarser,
    embeddings,
    example_prompt,
    float_tensor,
    load_weights,
    mask_outputs,
    prompt_inputs,
    prompted,
    square,
    weights_origin,
)
from edgecv.converters.families.torch_input import SEED, normalised
from edgecv.converters.source import Family, Part, SourceModel, SourceOptions, image_input
from edgecv.protocols import Array, Tensors
from edgecv.specs import DecodeSpec, ModelSpec, PreprocessSpec, TensorSpec

_BUILDERS: Mapping[str, str] = MappingProxyType({"sam2.1_t": "build_sam2_t"})


def open_sam2(path: Path, options: SourceOptions) -> SourceModel:
    """``sam2.1_t``. Images are stretched to the square and normalised as ImageNet's, as SAM 2's own predictor does.

    Raises:
        ConfigError: it was not said where the weights come from, or the size is not square.
        UnsupportedSource: the weights do not fit.
        MissingDependency: torch or ultralytics is not installed.
    """
    size = square(options.size_wh)
    check_weights(path.name, options)
    spec = PreprocessSpec(
        size_wh=(size, size), resize="stretch", interpolation="antialias", mean=IMAGENET_MEAN, std=IMAGENET_STD
    )
    network = _network(path.name, options, size)
    return SourceModel(
        name=path.name,
        family="sam2",
        licence="unknown" if options.weights else "Apache-2.0",
        origin=weights_origin(path.name, options),
        spec=ModelSpec(
            preprocess=spec,
            # SAM 2 sees a box as two points, and points end with a token.
            decode=DecodeSpec(task="promptable-segment", decoder="sam", options={"box_ends": True}),
        ),
        parts=(_encoder(network, spec), _decoder(network, size)),
        trained=not options.random_weights,
        tolerances=FAMILY_TOLERANCES,
        prompts=example_prompt(size),
        assumptions=coarser(size),
    )


def _network(name: str, options: SourceOptions, size: int) -> Any:
    torch = require("torch", "convert")
    ultralytics_import.tasks()
    torch.manual_seed(SEED)
    network = getattr(require("ultralytics.models.sam.build", "convert"), _BUILDERS[name])()
    network.set_imgsz([size, size])
    if options.weights is not None:
        load_weights(network, options.weights, strict=False)  # the published file holds the video memory's as well
    return network.float().eval().requires_grad_(False)


def _features(size: int) -> tuple[TensorSpec, ...]:
    """What the encoder gives and the decoder takes."""
    return (
        embeddings(size),
        float_tensor("high_res_0", 1, 32, size // 4, size // 4),
        float_tensor("high_res_1", 1, 64, size // 8, size // 8),
    )


def _encoder(network: Any, spec: PreprocessSpec) -> Part:
    def reference(feeds: Tensors) -> dict[str, Array]:
        """Through SAM 2's own preparation of features."""
        torch = require("torch", "convert")
        with torch.no_grad():
            found = network.forward_image(torch.from_numpy(normalised(feeds["image"][0], spec)))
            _, flat, _, sizes = network._prepare_backbone_features(found)
            flat[-1] = flat[-1] + network.no_mem_embed
            maps = [
                feature.permute(1, 2, 0).reshape(1, -1, *hw).numpy() for feature, hw in zip(flat, sizes, strict=True)
            ]
        return {"image_embeddings": maps[2], "high_res_0": maps[0], "high_res_1": maps[1]}

    size = spec.size_wh[0]
    return Part(
        name="encoder",
        inputs=(image_input((size, size)),),
        outputs=_features(size),
        reference=reference,
        module=encoder2_module(network, spec),
        architecture=ARCHITECTURE,
    )


def _decoder(network: Any, size: int) -> Part:
    return Part(
        name="decoder",
        inputs=(*_features(size), *prompt_inputs(size)),
        outputs=mask_outputs(size),
        reference=lambda feeds: _decode(network, feeds),
        module=decoder_module(network.sam_prompt_encoder, network.sam_mask_decoder, size),
        architecture="float",
    )


def _decode(network: Any, feeds: Tensors) -> dict[str, Array]:
    torch = require("torch", "convert")
    with torch.no_grad():
        given, sparse, dense = prompted(network.sam_prompt_encoder, feeds)
        masks, iou, _, _ = network.sam_mask_decoder.predict_masks(
            given["image_embeddings"],
            network.sam_prompt_encoder.get_dense_pe(),
            sparse,
            dense,
            repeat_image=False,
            high_res_features=[given["high_res_0"], given["high_res_1"]],
        )
    return {"low_res_masks": masks.numpy(), "iou_predictions": iou.numpy()}


SAM2 = Family(open_sam2, architecture=ARCHITECTURE)
