"""Recipes: how a model is quantized, as data with a published name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import msgspec


class GateLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an INT8 model must reach against the float model on pictures that calibration did not see.

    Set between recipes known to be good and known to be bad (YOLOv8n, docs/int8.md): the recipe below gives an F1 of 0.94; ranges
    from noise 0.866 with a score bias of -0.23; the S8S8 per-tensor recipe 0.875; one scale for all outputs 0.
    """

    f1_50: float = 0.90
    f1_75: float = 0.88
    matched_iou: float = 0.92
    score_bias: float = 0.06
    top1_lower: float = 0.80
    output_cosine: float = 0.80
    embedding_cosine: float = 0.99
    mask_iou: float = 0.90


class QuantizeRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to quantize.

    Attributes:
        name: Published name, stored in the bundle.
        activations: Type of activations.
        weights: Type of weights.
        per_channel: One weight scale for each output channel.
        method: Range estimator of tensors in general.
        silu_method: Range estimator of tensors that feed a SiLU.
        stem: ``packed``: the first convolution is int8 over exact pixels, with rounding fitted to them, several output pixels per
            row; ``float``: it stays float.
        subset_size: At most this many calibration pictures are used.
        kind: ``static``: weights and activations, ranges from calibration; ``weights``: the weights of matrix products alone.
        bias_correction: Of NNCF: ``fast`` or ``accurate``.
        target: CPU class the kernels are for.
        limits: What the gate asks for.
    """

    name: str
    activations: Literal["uint8", "int8"] = "uint8"
    weights: Literal["int8"] = "int8"
    per_channel: bool = True
    method: Literal["minmax", "mse"] = "mse"
    silu_method: Literal["minmax", "mse", "silu"] = "silu"
    stem: Literal["packed", "float"] = "packed"
    kind: Literal["static", "weights"] = "static"
    bias_correction: Literal["fast", "accurate"] = "fast"
    subset_size: int = 300
    target: str = "x86-vnni"
    limits: GateLimits = GateLimits()


# Rungs in the order they are tried, per format and architecture: the fastest first, each next one keeps more of the float model.
LADDERS: Mapping[tuple[str, str], tuple[QuantizeRecipe, ...]] = MappingProxyType(
    {
        ("onnx", "conv"): (
            QuantizeRecipe(name="ort-u8s8"),
            QuantizeRecipe(name="ort-u8s8-float-stem", stem="float"),
            QuantizeRecipe(name="ort-u8s8-float-stem-minmax", stem="float", method="minmax"),
        ),
        ("openvino", "conv"): (
            QuantizeRecipe(name="ov-mixed", target="x86"),
            QuantizeRecipe(name="ov-mixed-accurate-bias", target="x86", bias_correction="accurate"),
        ),
        ("tflite", "conv"): (
            QuantizeRecipe(name="litert-static", activations="int8", target=""),
            QuantizeRecipe(name="litert-static-float-stem", activations="int8", target="", stem="float"),
            QuantizeRecipe(name="litert-static-minmax", activations="int8", target="", stem="float", method="minmax"),
        ),
        # Full INT8 ruins a vision transformer (docs/int8.md: cosine 0.49 to 0.88) and is no faster; its weights alone do not.
        ("onnx", "transformer"): (QuantizeRecipe(name="ort-dynamic", kind="weights", target=""),),
        ("openvino", "transformer"): (QuantizeRecipe(name="ov-weights", kind="weights", target=""),),
        ("tflite", "transformer"): (QuantizeRecipe(name="litert-dynamic", kind="weights", target=""),),
    }
)
