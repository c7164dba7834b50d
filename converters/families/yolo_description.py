"""The description of a YOLO network in a checkpoint (Ultralytics' ``yaml``), checked: Ultralytics evaluates strings in one."""

from __future__ import annotations

import inspect
import re
from typing import Any

from edgecv._internal.extras import require
from edgecv.converters.checkpoints.records import UnknownNetwork

_NUMBERS = ("nc", "channels", "depth_multiple", "width_multiple", "reg_max")
_LARGEST, _MOST_LAYERS, _MOST_REPEATS = 1 << 16, 1_000, 100
# Layers of torch that Ultralytics' descriptions use.
_TORCH_LAYERS = (
    "Upsample",
    "ConvTranspose2d",
    "MaxPool2d",
    "AvgPool2d",
    "ZeroPad2d",
    "Identity",
    "BatchNorm2d",
    "Conv2d",
)
_UNSAFE_LAYERS = ("TorchVision",)  # it downloads weights
_WORDS = ("nc", "kpt_shape", "reg_max", "None", "True", "False", "nearest", "bilinear", "bicubic")
_ACTIVATION = re.compile(
    r"(?:torch\.)?nn\.(?P<name>SiLU|ReLU|ReLU6|LeakyReLU|ELU|GELU|Mish|Hardswish|Sigmoid|Identity)"
    r"\((?:inplace=(?P<inplace>True|False)|(?P<number>\d*\.?\d+))?\)"
)


def checked_description(given: Any) -> dict[str, Any]:
    """A description in which nothing can be evaluated but names of layers and numbers; else ``UnknownNetwork``."""
    if not isinstance(given, dict):
        raise UnknownNetwork("its network has no description")
    made: dict[str, Any] = {"channels": given.get("channels", given.get("ch", 3))}
    made |= {name: given[name] for name in (*_NUMBERS, "scale", "kpt_shape", "end2end", "activation") if name in given}
    if not all(is_number(made[name]) for name in _NUMBERS if name in made):
        raise UnknownNetwork("its description has sizes that are no numbers")
    if "kpt_shape" in made and not _are_numbers(made["kpt_shape"]):
        raise UnknownNetwork("its description has a keypoint shape that is not made of numbers")
    if not isinstance(made.get("scale", ""), str) or not isinstance(made.get("end2end"), (bool, type(None))):
        raise UnknownNetwork("its description has an odd scale")
    scales = given.get("scales")
    if scales is not None:
        if not isinstance(scales, dict) or not all(_are_numbers(scale) for scale in scales.values()):
            raise UnknownNetwork("its description has scales that are not made of numbers")
        made["scales"] = scales
    for part in ("backbone", "head"):
        made[part] = [_checked_layer(layer) for layer in _list(given.get(part))]
    if not made["head"] or len(made["backbone"]) + len(made["head"]) > _MOST_LAYERS:
        raise UnknownNetwork("its description has no layers, or too many")
    return made


def _checked_layer(layer: Any) -> list[Any]:
    where, repeats, name, arguments = layer if isinstance(layer, (list, tuple)) and len(layer) == 4 else (None,) * 4
    sources = where if isinstance(where, (list, tuple)) else [where]
    if not all(type(at) is int and abs(at) <= _MOST_LAYERS for at in sources):
        raise UnknownNetwork("its description has a layer that takes its input from nowhere")
    if type(repeats) is not int or not 0 < repeats <= _MOST_REPEATS:
        raise UnknownNetwork("its description repeats a layer too often")
    if not isinstance(name, str) or name not in _layer_names():
        raise UnknownNetwork(f"its description has a layer {str(name)[:60]!r}, which EdgeCV does not build")
    return [where if type(where) is int else list(sources), repeats, name, [_argument(a) for a in _list(arguments)]]


def _argument(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and len(value) <= 64 and all(is_number(item) for item in value):
        return list(value)
    if value is None or isinstance(value, bool) or is_number(value) or value in _WORDS:
        return value
    raise UnknownNetwork("its description has a layer with an argument that is no number")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise UnknownNetwork("its description has no list of layers")
    return list(value)


def is_number(value: Any) -> bool:
    """Whether a value is a number of a size that a network has."""
    return isinstance(value, (int, float)) and abs(value) <= _LARGEST


def _are_numbers(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) <= 8 and all(is_number(item) for item in value)


def _layer_names() -> frozenset[str]:
    torch = require("torch", "convert")
    modules = require("ultralytics.nn.modules", "convert")
    classes = {name: getattr(modules, name) for name in modules.__all__ if name not in _UNSAFE_LAYERS}
    own = {name for name, kind in classes.items() if inspect.isclass(kind) and issubclass(kind, torch.nn.Module)}
    return frozenset(own | {f"nn.{name}" for name in _TORCH_LAYERS})


def activation_of(text: Any) -> Any:
    """The activation that a description names, made without evaluating it."""
    found = _ACTIVATION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise UnknownNetwork(f"its description has an activation {str(text)[:60]!r}, which EdgeCV does not build")
    make = getattr(require("torch", "convert").nn, found["name"])
    if found["inplace"]:
        return make(inplace=found["inplace"] == "True")
    return make(float(found["number"])) if found["number"] else make()
