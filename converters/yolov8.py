"""YOLOv8 checkpoints: from an Ultralytics ``.pt`` to a module that ends at the raw head convolutions."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np

from edgecv.bundle import sha256_of
from edgecv.converters.checkpoint import read_checkpoint
from edgecv.converters.source import SourceModel, SourceOptions, image_input, origin, raw_head_outputs
from edgecv.errors import UnsupportedSource
from edgecv.extras import require
from edgecv.protocols import Array
from edgecv.results import Image
from edgecv.specs import DecodeSpec, ModelSpec, PreprocessSpec

LICENCE = "AGPL-3.0"  # of weights trained with Ultralytics, unless their owner holds another licence
_DEFAULT_SIZE = 640


def open_checkpoint(path: Path, options: SourceOptions) -> SourceModel:
    """Read a YOLOv8 detection checkpoint.

    Raises:
        UnsupportedSource: not a checkpoint, not a detector with a YOLOv8 head, or in need of code that is not on the list.
        MissingDependency: torch or ultralytics is not installed.
    """
    network = _network(path, read_checkpoint(path, options.trust_pickle))
    head = network.model[-1]
    size_wh = options.size_wh or _trained_size(network)
    names = _labels(network, head)
    outputs = raw_head_outputs(size_wh, tuple(int(stride) for stride in head.stride), head.reg_max, len(names))
    order = [output.name for output in outputs]
    return SourceModel(
        name=path.stem,
        family="yolov8",
        licence=LICENCE,
        origin=origin(path, sha256_of(path)),
        spec=ModelSpec(
            preprocess=PreprocessSpec(size_wh=size_wh),
            decode=DecodeSpec(task="detect", decoder="yolov8-raw", labels=names),
        ),
        input=image_input(size_wh),
        outputs=outputs,
        reference=lambda picture: _reference(network, picture, order),
        module=_pixel_module(network),
    )


def _network(path: Path, content: dict[str, Any]) -> Any:
    torch = require("torch", "convert")
    network: Any = content.get("ema") or content.get("model")
    head = network.model[-1] if isinstance(network, torch.nn.Module) and hasattr(network, "model") else None
    if head is None or type(head).__name__ != "Detect" or getattr(head, "end2end", False):
        kind = type(head).__name__ if head is not None else type(network).__name__
        raise UnsupportedSource(
            f"{path} holds no YOLOv8 detector (its head is a {kind}).",
            "Give a detection checkpoint of YOLOv8, or an .onnx of another model.",
        )
    network = copy.deepcopy(network).float().eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network.fuse(verbose=False)


def _trained_size(network: Any) -> tuple[int, int]:
    given = getattr(network, "args", None) or {}
    size = given.get("imgsz", _DEFAULT_SIZE) if isinstance(given, dict) else _DEFAULT_SIZE
    return (int(size), int(size)) if isinstance(size, int) else (_DEFAULT_SIZE, _DEFAULT_SIZE)


def _labels(network: Any, head: Any) -> tuple[str, ...]:
    names = getattr(network, "names", None) or {}
    return tuple(str(names.get(index, index)) for index in range(head.nc))


def _pixel_module(network: Any) -> Any:
    """The network as a module from uint8 BGR pixels ``(1, H, W, 3)`` to its raw outputs, normalised by its own first weights."""
    torch = require("torch", "convert")
    network = copy.deepcopy(network)
    first = network.model[0].conv
    if first.in_channels != 3:
        raise UnsupportedSource(f"The network takes {first.in_channels} channels, not three.")
    # RGB in 0..1 to BGR in 0..255 costs nothing when the weights carry it; zero padding stays zero.
    first.weight = torch.nn.Parameter(first.weight.flip(1) / 255, requires_grad=False)

    class PixelNetwork(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layers = network.model
            self.kept = set(network.save)

        def forward(self, image: Any) -> tuple[Any, ...]:
            return raw_head(self.layers, self.kept, image.permute(0, 3, 1, 2).float())

    return PixelNetwork().eval()


def raw_head(layers: Any, kept: set[int], x: Any) -> tuple[Any, ...]:
    """Run the layers; box and class output per stride. A layer's ``f`` names where its inputs come from (-1: the one before)."""
    made: list[Any] = []
    for layer in layers[:-1]:
        if layer.f != -1:
            x = made[layer.f] if isinstance(layer.f, int) else [x if at == -1 else made[at] for at in layer.f]
        x = layer(x)
        made.append(x if layer.i in kept else None)
    head = layers[-1]
    pairs = ((head.cv2[level](made[at]), head.cv3[level](made[at])) for level, at in enumerate(head.f))
    return tuple(tensor for pair in pairs for tensor in pair)


def _reference(network: Any, picture: Image, order: list[str]) -> dict[str, Array]:
    """The unchanged network on normalised floats: another road than the export takes."""
    torch = require("torch", "convert")
    real = np.ascontiguousarray(picture[..., ::-1].transpose(2, 0, 1)[None]).astype(np.float32) / 255
    with torch.no_grad():
        tensors = raw_head(network.model, set(network.save), torch.from_numpy(real))
    return {name: tensor.numpy() for name, tensor in zip(order, tensors, strict=True)}
