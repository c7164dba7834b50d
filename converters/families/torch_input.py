"""What every torch source shares: taking uint8 BGR pixels, seeding weights, calibrating batch norms."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecv._internal.extras import require
from edgecv.errors import UnsupportedSource
from edgecv.media.images import read_image
from edgecv.protocols import Array
from edgecv.results import Image
from edgecv.specs import PreprocessSpec
from edgecv.vision.letterbox import fit

SEED = 0
_BATCH_NORM_IMAGES = 16
_RESIDUAL_SCALE = 0.25


def normalised(image: Image, spec: PreprocessSpec) -> Array:
    """A fitted ``(H, W, 3)`` BGR image as the float ``(1, 3, H, W)`` tensor that the network was trained on."""
    ordered = image[..., ::-1] if spec.color == "rgb" else image
    real = (ordered.astype(np.float32) / 255 - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
    return np.ascontiguousarray(real.transpose(2, 0, 1)[None], np.float32)


def inferred(network: Any, image: Array) -> Any:
    """What a torch network makes of an array."""
    torch = require("torch", "convert")
    with torch.no_grad():
        return network(torch.from_numpy(image))


def pixel_scale(spec: PreprocessSpec) -> tuple[Array, Array]:
    """Factor and shift ``(3,)`` in BGR order: normalised = pixel * factor + shift."""
    factor = (1 / (255 * np.array(spec.std))).astype(np.float32)
    shift = (-np.array(spec.mean) / np.array(spec.std)).astype(np.float32)
    return (factor[::-1].copy(), shift[::-1].copy()) if spec.color == "rgb" else (factor, shift)


def pixel_module(network: Any, spec: PreprocessSpec) -> Any:
    """``network`` as a module from uint8 BGR pixels ``(1, H, W, 3)``.

    Colour order and scale go into the first weights, at no cost. The mean does not: the network pads its normalised image with
    0, which would no longer be the padding's value. It is subtracted from the pixels. A network that does not begin with a
    convolution over three channels is an ``UnsupportedSource``.
    """
    torch = require("torch", "convert")
    network = copy.deepcopy(network)
    first = next((module for module in network.modules() if isinstance(module, torch.nn.Conv2d)), None)
    if first is None or first.in_channels != 3:
        raise UnsupportedSource(
            "The network does not begin with a convolution over three channels.",
            "Export it to .onnx and convert that: its input may be grey, too.",
        )
    factor, shift = pixel_scale(spec)
    weight = first.weight.detach().flip(1) if spec.color == "rgb" else first.weight.detach()
    first.weight = torch.nn.Parameter(weight * torch.from_numpy(factor).view(1, 3, 1, 1), requires_grad=False)

    class FromPixels(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.register_buffer("mean", torch.from_numpy(-shift / factor).view(1, 1, 1, 3))

        def forward(self, image: Any) -> Any:
            return self.network((image.float() - self.mean).permute(0, 3, 1, 2))

    return FromPixels().eval()


def with_random_weights(build: Callable[[], Any], spec: PreprocessSpec, images: Sequence[Path]) -> Any:
    """A network from seed 0 whose batch norms have seen images (noise, when there are none).

    Fresh batch norms have mean 0 and variance 1: activations would grow or vanish from layer to layer, as in no trained network.
    """
    require("torch", "convert").manual_seed(SEED)
    network = build()
    seen = sample_images(spec, images, _BATCH_NORM_IMAGES)
    calibrate_norms(network, [np.concatenate([normalised(image, spec) for image in seen])])
    return network.eval()


def calibrate_norms(network: Any, batches: Iterable[Array]) -> None:
    """Let fresh batch norms see ``(N, 3, H, W)`` images; nothing happens where there are none."""
    torch = require("torch", "convert")
    norms = [module for module in network.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
    network.train()
    with torch.no_grad():
        for batch in batches:
            network(torch.from_numpy(batch))
    network.eval()


def damped(network: Any, last_norm: Callable[[Any], Any]) -> Any:
    """Random residual blocks that add little to what passes them by, as those of trained networks do.

    At full strength a hundred layers of chance amplify rounding: fp16 weights alone turn the logits of ResNet-101 by 3 degrees
    (cosine 0.9983) and YOLOv8m's mask coefficients as far (0.9989). Goyal et al. 2017 (arXiv:1706.02677), 5.1, start training
    from 0 for the same reason. ``last_norm`` gives the batch norm at the end of a module's residual branch, if it has one.
    """
    torch = require("torch", "convert")
    for module in network.modules():
        norm = last_norm(module)
        if norm is not None:
            torch.nn.init.constant_(norm.weight, _RESIDUAL_SCALE)
    return network


def sample_images(spec: PreprocessSpec, images: Sequence[Path], count: int) -> list[Image]:
    """``count`` fitted images, noise where there are none."""
    if images:
        return [fit(read_image(path), spec)[0] for path in images[:count]]
    rng = np.random.default_rng(SEED)
    width, height = spec.size_wh
    return [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]
