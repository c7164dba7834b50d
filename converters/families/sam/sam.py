"""SAM by name, through Ultralytics' builders: an encoder and a decoder. SAM 2 (``sam2.py``) shares the decoder's form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from edgecv.converters.families.sam.networks import encoder_module, normalised
from edgecv.converters.families.sam.parts import ARCHITECTURE, Networks, built, embeddings, size_of, source_of
from edgecv.converters.families.torch_input import calibrate_norms, inferred, sample_images
from edgecv.converters.source import Family, SourceModel, SourceOptions
from edgecv.protocols import Array
from edgecv.specs import DecodeSpec, PreprocessSpec
from edgecv.vision.sam import PADDING_BGR

_BUILDERS: Mapping[str, str] = MappingProxyType(
    {
        "mobile_sam": "build_mobile_sam",
        "sam_b": "build_sam_vit_b",
        "sam_l": "build_sam_vit_l",
        "sam_h": "build_sam_vit_h",
    }
)
_CALIBRATION_IMAGES = 4  # each is a megapixel
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
    size = size_of(path, options)
    spec = PreprocessSpec(
        size_wh=(size, size), resize="letterbox", pad_value=PADDING_BGR, pad_anchor="top-left", mean=_MEAN, std=_STD
    )
    network = built(_BUILDERS[path.name], size, options.weights)
    if options.weights is None:
        images = sample_images(spec, options.images, _CALIBRATION_IMAGES)
        calibrate_norms(network.image_encoder, (normalised(image, network) for image in images))

    def encode(image: Array) -> dict[str, Array]:
        return {"image_embeddings": inferred(network.image_encoder, normalised(image, network)).numpy()}

    networks = Networks(
        encode=encode,
        encoder=encoder_module(network),
        features=(embeddings(size),),
        prompts=network.prompt_encoder,
        masks=network.mask_decoder,
    )
    return source_of(path, "sam", options, spec, DecodeSpec(task="promptable-segment", decoder="sam"), networks)


SAM = Family(open_sam, architecture=ARCHITECTURE)
