"""YOLOv8 networks: from an Ultralytics ``.pt``, or an architecture's name, to a module that ends at the raw head convolutions."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from edgecv._internal.extras import require
from edgecv.bundles.manifest import Source
from edgecv.converters.checkpoints.checkpoint import read_checkpoint
from edgecv.converters.families import ultralytics_import
from edgecv.converters.families.torch_input import damped, inferred, normalised, with_random_weights
from edgecv.converters.families.yolov8_tasks import (
    HEADS,
    Head,
    decode_of,
    head_of,
    outputs_of,
    preprocess_of,
    raw_outputs,
    unread_head,
)
from edgecv.converters.source import Part, SourceModel, SourceOptions, image_input, made_origin, no_weights, origin
from edgecv.errors import UnsupportedSource
from edgecv.protocols import Array, Tensors
from edgecv.specs import ModelSpec

LICENCE = "AGPL-3.0"  # of weights trained with Ultralytics, unless their owner holds another licence
_NAME = re.compile(r"[a-z0-9-]+\.yaml")
_SCALED = re.compile(r"(?P<generation>yolo[a-z]*-?\d+)(?P<scale>[nsmlx])(?P<variant>-.+)?")


def open_checkpoint(path: Path, options: SourceOptions) -> SourceModel:
    """Read a YOLOv8 checkpoint of any task.

    Raises:
        ConfigError: options were given that mean nothing for it.
        UnsupportedSource: not a checkpoint, without a YOLOv8 head, or with a network that cannot be built from its description.
        MissingDependency: torch or ultralytics is not installed.
    """
    options.accept(path.name, "trust_pickle")
    content = read_checkpoint(path, options.trust_pickle)
    network: Any = content.get("ema") or content.get("model")
    if not isinstance(network, require("torch", "convert").nn.Module):
        raise UnsupportedSource(
            f"{path} holds no YOLOv8 network.",
            f"If it holds weights alone, name the network: edgecv convert mobile_sam --weights {path.name} "
            "(or sam_b, sam2.1_t, resnet50 ...).",
        )
    head = head_of(network, str(path))
    return _source(path.stem, origin(path), _frozen(network), head, options)


def open_architecture(path: Path, options: SourceOptions) -> SourceModel:
    """Build a network that Ultralytics describes, such as ``yolov8n-seg.yaml``, with random weights.

    Only the descriptions that ship with Ultralytics are read, by name: building from one evaluates strings in it.

    Raises:
        ConfigError: random weights were not asked for.
        UnsupportedSource: there is no such architecture, or its head is none that EdgeCV decodes.
        MissingDependency: torch or ultralytics is not installed.
    """
    options.accept(path.name, "random_weights")
    if not options.random_weights:
        hint = "Give the trained checkpoint (.pt) instead, which holds the architecture too, or --random-weights."
        raise no_weights(str(path), hint)
    description = _description(path)
    kind = description["head"][-1][2]
    if kind not in HEADS:
        raise unread_head(path.name, kind)
    head = HEADS[kind]
    build = getattr(ultralytics_import.tasks(), head.network)

    def checked() -> Any:
        network = build(description, verbose=False)
        head_of(network, path.name)
        return damped(network, _last_norm)

    network = with_random_weights(checked, preprocess_of(None, head, options.size_wh), options.images)
    return replace(_source(path.stem, made_origin(path.name), _frozen(network), head, options), trained=False)


def _last_norm(module: Any) -> Any:
    """Of a bottleneck of Ultralytics' networks."""
    return module.cv2.bn if type(module).__name__ == "Bottleneck" else None


def _description(path: Path) -> dict[str, Any]:
    """The description of that name among Ultralytics' own; ``yolov8n-seg`` is ``yolov8-seg`` at scale ``n``."""
    models = Path(ultralytics_import.tasks().__file__).parents[1] / "cfg" / "models"
    scaled = _SCALED.fullmatch(path.stem)
    generation, scale, variant = scaled.group("generation", "scale", "variant") if scaled else (path.stem, "", "")
    known = {file.name: file for file in models.glob("*/*.yaml")} if _NAME.fullmatch(str(path)) else {}
    file = known.get(path.name) or known.get(f"{generation}{variant or ''}.yaml")
    if file is None:
        raise UnsupportedSource(
            f"'{path}' names no architecture that Ultralytics describes.",
            "Such as yolov8n.yaml, yolo11s.yaml, yolov8n-seg.yaml, yolov8n-pose.yaml, yolov8n-obb.yaml, yolov8n-cls.yaml.",
        )
    description: dict[str, Any] = require("yaml", "convert").safe_load(file.read_text(encoding="utf-8"))
    return description if file.name == path.name else {**description, "scale": scale}


def _frozen(network: Any) -> Any:
    """A copy for inference: float, without gradients, batch norms folded into their convolutions."""
    return copy.deepcopy(network).float().eval().requires_grad_(False).fuse(verbose=False)


def _source(name: str, made_from: Source, network: Any, head: Head, options: SourceOptions) -> SourceModel:
    preprocess = preprocess_of(network, head, options.size_wh)
    outputs = outputs_of(network, head, preprocess.size_wh)
    order = [output.name for output in outputs]

    def reference(feeds: Tensors) -> dict[str, Array]:
        """The unchanged network on normalised floats: another road than the export takes."""
        run = partial(raw_outputs, network.model, set(network.save))
        tensors = inferred(run, normalised(feeds["image"][0], preprocess))
        return {name: tensor.numpy() for name, tensor in zip(order, tensors, strict=True)}

    part = Part(
        inputs=(image_input(preprocess.size_wh),), outputs=outputs, reference=reference, module=_pixel_module(network)
    )
    return SourceModel(
        name=name,
        family="yolov8",
        licence=LICENCE,
        origin=made_from,
        spec=ModelSpec(preprocess=preprocess, decode=decode_of(network, head)),
        parts=(part,),
    )


def _pixel_module(network: Any) -> Any:
    """The network as a module from uint8 BGR pixels ``(1, H, W, 3)`` to its raw outputs, normalised by its own first weights."""
    torch = require("torch", "convert")
    network = copy.deepcopy(network)
    first = next(module for module in network.model.modules() if isinstance(module, torch.nn.Conv2d))
    if first.in_channels != 3:
        raise UnsupportedSource(
            f"The network takes {first.in_channels} channels, not three.",
            "Export it to .onnx and convert that: its input may be grey, too.",
        )
    # RGB in 0..1 to BGR in 0..255 costs nothing when the weights carry it; zero padding stays zero.
    first.weight = torch.nn.Parameter(first.weight.flip(1) / 255, requires_grad=False)

    class PixelNetwork(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layers = network.model
            self.kept = set(network.save)

        def forward(self, image: Any) -> Any:
            return raw_outputs(self.layers, self.kept, image.permute(0, 3, 1, 2).float())

    return PixelNetwork().eval()
