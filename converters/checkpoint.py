"""Read a checkpoint without running what is in it.

A ``.pt`` is a pickle: reading it as one runs whatever its author put there. torch's ``weights_only`` reader runs nothing but
names on a list. The list here holds module classes of ``torch.nn`` and ``ultralytics.nn`` - and not even those may be *called*:
building an ultralytics model from a description evaluates strings in it. So the reader gets stand-ins whose constructors
refuse; objects are only ever made empty and filled, then given their true class.
"""

from __future__ import annotations

import importlib
import inspect
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgecv.converters import ultralytics_world
from edgecv.errors import UnsupportedSource
from edgecv.extras import require
from edgecv.foreign import first_line

_MODULE_PREFIXES = ("torch.nn.modules.", "ultralytics.nn.")
# What training leaves in a checkpoint beside modules: its settings, and how a classifier's pictures were prepared.
_DATA_CLASSES = (
    "ultralytics.utils.IterableSimpleNamespace",
    *(
        f"torchvision.transforms.transforms.{name}"
        for name in ("Compose", "Resize", "CenterCrop", "ToTensor", "Normalize")
    ),
)
_INTERPOLATION = (
    "torchvision.transforms.functional.InterpolationMode"  # an enumeration: stored as a call with its value
)
# `getattr(module, "forward_fuse")` is how a fused Conv block is stored; any other look-up is refused.
_METHODS = ("forward", "forward_fuse")
_DAMAGE = (RuntimeError, EOFError, ValueError, AttributeError, TypeError)


def read_checkpoint(path: Path, trust_pickle: bool = False) -> dict[str, Any]:
    """The checkpoint's dictionary.

    Raises:
        UnsupportedSource: missing, empty, not a checkpoint, or in need of code that is not on the list.
        MissingDependency: torch or ultralytics is not installed.
    """
    _check_is_archive(path)
    torch = require("torch", "convert")
    ultralytics_world.tasks()
    try:
        content = _read_all(torch, path) if trust_pickle else _read_listed(torch, path)
    except (pickle.UnpicklingError, ImportError, LookupError, *_DAMAGE) as error:
        raise UnsupportedSource(
            f"{path} cannot be read as a checkpoint: {first_line(error)}",
            "Give the .pt that training wrote. If you trust whoever made it: --trust-pickle runs the code in it.",
        ) from error
    if not isinstance(content, dict):
        raise UnsupportedSource(f"{path} holds a {type(content).__name__}, not a checkpoint.", "Give a training .pt.")
    return content


def _check_is_archive(path: Path) -> None:
    if not path.is_file():
        raise UnsupportedSource(f"{path} does not exist.", "Check the path to the checkpoint.")
    if not zipfile.is_zipfile(path):
        size = path.stat().st_size
        raise UnsupportedSource(
            f"{path} ({size} bytes) is {'empty' if not size else 'not a PyTorch checkpoint'}.",
            "Copy or download it again.",
        )


def _read_all(torch: Any, path: Path) -> Any:
    return torch.load(str(path), map_location="cpu", weights_only=False)


def _read_listed(torch: Any, path: Path) -> Any:
    wanted = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    stand_ins: dict[type, type] = {}
    allowed: list[tuple[Any, str]] = []
    refused = []
    for name in sorted(wanted):
        if name == "builtins.getattr":
            allowed.append((_method_of_module, name))
            continue
        if name == _INTERPOLATION:
            allowed.append((_interpolation_mode, name))
            continue
        original = _listed_class(torch, name)
        if original is None:
            refused.append(name)
            continue
        stand_in = _stand_in(original)
        stand_ins[stand_in] = original
        allowed.append((stand_in, name))
    if refused:
        raise UnsupportedSource(
            f"{path} needs code that is not on the list: {', '.join(refused[:5])}.",
            "A checkpoint can run any code. If you trust whoever made it: --trust-pickle.",
        )
    with torch.serialization.safe_globals(allowed):
        content = torch.load(str(path), map_location="cpu", weights_only=True)
    _restore_classes(content, stand_ins, set())
    return content


def _listed_class(torch: Any, name: str) -> type | None:
    module_name, _, attribute = name.rpartition(".")
    if not name.startswith(_MODULE_PREFIXES) and name not in _DATA_CLASSES:
        return None
    try:
        found = getattr(importlib.import_module(module_name), attribute, None)
    except ImportError:
        return None
    is_module = inspect.isclass(found) and issubclass(found, torch.nn.Module)
    return found if is_module or name in _DATA_CLASSES else None


def _stand_in(original: type) -> type:
    def refuse(_self: object, *_args: object, **_kwargs: object) -> None:
        raise pickle.UnpicklingError(f"it calls {original.__qualname__}(...), which a plain checkpoint never does")

    return type(original.__name__, (original,), {"__init__": refuse})


def _method_of_module(owner: Any, name: str) -> Callable[..., Any]:
    torch = require("torch", "convert")
    if name not in _METHODS or not isinstance(owner, torch.nn.Module):
        raise pickle.UnpicklingError(f"it looks up {name!r} on a {type(owner).__name__}")
    method: Callable[..., Any] = getattr(owner, name)
    return method


def _interpolation_mode(value: object) -> Any:
    modes = require("torchvision.transforms.functional", "convert").InterpolationMode
    if not isinstance(value, str):
        raise pickle.UnpicklingError(f"it takes a {type(value).__name__} for an interpolation")
    return modes(value)


def _restore_classes(value: Any, originals: dict[type, type], seen: set[int]) -> None:
    if id(value) in seen or isinstance(value, (str, bytes, int, float)):
        return
    seen.add(id(value))
    if type(value) in originals:
        value.__class__ = originals[type(value)]
    inner: list[Any] = []
    if isinstance(value, dict):
        inner = [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple, set)):
        inner = list(value)
    elif type(value) in originals.values():
        inner = list(vars(value).values())
    for item in inner:
        _restore_classes(item, originals, seen)
