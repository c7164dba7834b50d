"""SAM 2.1 by name, through Ultralytics' builders: images only, no video memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from edgecv._internal.extras import require
from edgecv.converters.families.resnet import IMAGENET_MEAN, IMAGENET_STD
from edgecv.converters.families.sam.networks import encoder2_module
from edgecv.converters.families.sam.parts import (
    ARCHITECTURE,
    Networks,
    built,
    embeddings,
    float_tensor,
    size_of,
    source_of,
)
from edgecv.converters.families.torch_input import normalised
from edgecv.converters.source import Family, SourceModel, SourceOptions
from edgecv.protocols import Array
from edgecv.specs import DecodeSpec, PreprocessSpec

_BUILDERS: Mapping[str, str] = MappingProxyType({"sam2.1_t": "build_sam2_t"})


def open_sam2(path: Path, options: SourceOptions) -> SourceModel:
    """``sam2.1_t``. Images are stretched to the square and normalised as ImageNet's, as SAM 2's own predictor does.

    Errors are those of ``open_sam``.
    """
    size = size_of(path, options)
    spec = PreprocessSpec(
        size_wh=(size, size), resize="stretch", interpolation="antialias", mean=IMAGENET_MEAN, std=IMAGENET_STD
    )
    # The file holds the weights of the video memory as well.
    network = built(_BUILDERS[path.name], size, options.weights, whole=False)

    def encode(image: Array) -> dict[str, Array]:
        """Through SAM 2's own preparation of features."""
        torch = require("torch", "convert")
        with torch.no_grad():
            found = network.forward_image(torch.from_numpy(normalised(image, spec)))
            _, flat, _, sizes = network._prepare_backbone_features(found)
            flat[-1] = flat[-1] + network.no_mem_embed
            maps = [
                feature.permute(1, 2, 0).reshape(1, -1, *hw).numpy() for feature, hw in zip(flat, sizes, strict=True)
            ]
        return {"image_embeddings": maps[2], "high_res_0": maps[0], "high_res_1": maps[1]}

    networks = Networks(
        encode=encode,
        encoder=encoder2_module(network, spec),
        features=(
            embeddings(size),
            float_tensor("high_res_0", 1, 32, size // 4, size // 4),
            float_tensor("high_res_1", 1, 64, size // 8, size // 8),
        ),
        prompts=network.sam_prompt_encoder,
        masks=network.sam_mask_decoder,
    )
    # SAM 2 sees a box as two points, and points end with a token.
    decode = DecodeSpec(task="promptable-segment", decoder="sam", options={"box_ends": True})
    return source_of(path, "sam2", options, spec, decode, networks)


SAM2 = Family(open_sam2, architecture=ARCHITECTURE)
