"""Read checkpoints (``.pt``, ``.pth``, ``.ckpt``) without running what is in them.

A checkpoint is a pickle: reading it as one runs whatever its author put there, and no list of permitted classes makes that safe
(docs/adr/0003). So it is read as inert data. Networks are built by our own calls from what it says, and its tensors are made by our
own code; every other object stays a record and is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgecv._internal.extras import require
from edgecv._internal.foreign import first_line
from edgecv.converters.checkpoints.archive import Archive, check_is_archive, open_archive
from edgecv.converters.checkpoints.module_records import check_calls, is_plain, module_record, plain
from edgecv.converters.checkpoints.records import UnknownNetwork, named
from edgecv.converters.checkpoints.refusals import explained, weights_alone
from edgecv.converters.checkpoints.weights import holders, named_tensors
from edgecv.converters.families import ultralytics_import
from edgecv.converters.families.yolo_networks import yolo_network
from edgecv.errors import UnsupportedSource

_NETWORKS = ("ema", "model")  # Ultralytics keeps the averaged weights beside the last ones, and uses them


def read_checkpoint(path: Path, trust_pickle: bool = False) -> dict[str, Any]:
    """What an Ultralytics checkpoint holds: its network (under ``ema`` or ``model``), and its plain values.

    Args:
        path: The ``.pt``.
        trust_pickle: Read it as a pickle, and so run the code in it.

    Raises:
        UnsupportedSource: missing, empty, damaged, not a checkpoint, or with a network that cannot be built from its description.
        MissingDependency: torch or ultralytics is not installed.
    """
    check_is_archive(path)
    if trust_pickle:
        content = _read_trusted(path)
        names = () if _has_network(content) else _names(content, _torch_tensors)
    else:
        with explained(path), open_archive(path) as archive:
            content = _read_inert(archive, str(path))
            names = () if _has_network(content) else _names(archive.content, named_tensors)
    if names:
        raise weights_alone(path, names)
    if not isinstance(content, dict):
        raise UnsupportedSource(
            f"{path} holds a {named(content).removeprefix('a ')}, not a checkpoint.", "Give a training .pt."
        )
    return content


def _read_trusted(path: Path) -> Any:
    torch = require("torch", "convert")
    ultralytics_import.tasks()
    try:
        return torch.load(str(path), map_location="cpu", weights_only=False)
    except (ImportError, AttributeError) as error:
        missing = f"the module '{error.name}'" if isinstance(error, ImportError) and error.name else str(error)
        raise UnsupportedSource(
            f"{path} needs code that is not here: {missing}.",
            "Install the package that defines it in the same version, or put its folder on PYTHONPATH; or export the network to "
            ".onnx where that code is.",
        ) from error
    except Exception as error:  # the code in it may raise anything
        raise UnsupportedSource(
            f"{path} cannot be read as a checkpoint: {first_line(error)}", "Give the .pt that training wrote."
        ) from error


def _read_inert(archive: Archive, origin: str) -> Any:
    content = archive.content
    check_calls(content)
    if not isinstance(content, dict):
        return content
    for key in _NETWORKS:
        record = module_record(content.get(key))
        if record is not None:
            return {**_plain_items(content), key: yolo_network(archive, record, origin)}
        if key in content and not is_plain(content[key]):
            raise UnknownNetwork(f"its {key!r} is {named(content[key])}, which is no network")
    return _plain_items(content)


def _plain_items(content: Mapping[Any, Any]) -> dict[Any, Any]:
    items: dict[Any, Any] = plain({key: value for key, value in content.items() if isinstance(key, str)}, depth=13)
    return items


def _has_network(content: Any) -> bool:
    module = require("torch", "convert").nn.Module
    return isinstance(content, dict) and any(isinstance(content.get(key), module) for key in _NETWORKS)


def _names(content: Any, tensors: Callable[[Any], Mapping[str, Any]]) -> tuple[str, ...]:
    """Names of tensors where weights alone were read."""
    return next((tuple(found) for value in holders(content, tensors) if (found := tensors(value))), ())


def _torch_tensors(value: Any) -> dict[str, Any]:
    tensor = require("torch", "convert").Tensor
    items = value.items() if isinstance(value, Mapping) else ()
    return {name: item for name, item in items if isinstance(name, str) and isinstance(item, tensor)}
