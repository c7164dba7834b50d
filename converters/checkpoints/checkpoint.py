"""Read checkpoints (``.pt``, ``.pth``, ``.ckpt``) without running what is in them.

A checkpoint is a pickle: reading it as one runs whatever its author put there, and no list of permitted classes makes that safe
(docs/adr/0003). So it is read as inert data. Networks are built by our own calls from what it says, and its tensors are made by our
own code; every other object stays a record and is left out.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgecv._internal.extras import require
from edgecv._internal.foreign import first_line
from edgecv.converters.checkpoints.archive import Archive, StoredTensor, is_archive, open_archive, stored_tensor
from edgecv.converters.checkpoints.inert_pickle import DamagedPickle
from edgecv.converters.checkpoints.module_records import (
    check_calls,
    is_plain,
    loaded_tensors,
    module_record,
    named,
    plain,
    tensors_of,
)
from edgecv.converters.families import ultralytics_import
from edgecv.converters.families.weight_names import COUNTER, matched
from edgecv.converters.families.yolo_networks import ForeignNetwork, UnknownNetwork, check_shapes, yolo_network
from edgecv.errors import UnsupportedSource

_NETWORKS = ("ema", "model")  # Ultralytics keeps the averaged weights beside the last ones, and uses them
# Under which key training programs keep the weights: Lightning and timm, SAM and Ultralytics, plain PyTorch examples, BasicSR.
_WEIGHTS = ("state_dict", "model", "model_state_dict", "model_state", "net", "network", "weights", "params", "module")
_OF_PROGRAMS = re.compile(
    r"(?:^|/)(?:constants\.pkl$|code/|archive_format$|models/.*\.json$)"
)  # members of their archives
_NESTED = 3  # {"model": {"state_dict": {...}}}
_YOLO_NAME = re.compile(r"(?:model\.)*\d+\.(?:conv|cv\d|bn|m|dfl|linear)\b")
_RESNETS: Mapping[tuple[bool, int], str] = (
    MappingProxyType(  # by whether its blocks are bottlenecks, and blocks in the third stage
        {
            (False, 2): "resnet18",
            (False, 6): "resnet34",
            (True, 6): "resnet50",
            (True, 23): "resnet101",
            (True, 36): "resnet152",
        }
    )
)
_BLOCK = re.compile(r"(?:^|\.)layer3\.(\d+)\.conv1\.weight$")


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
        names = _trusted_names(content)
    else:
        with _explained(path), open_archive(path) as archive:
            content = _read_inert(archive, str(path))
            names = () if _has_network(content) else tuple(_found_tensors(archive.content))
    if names:
        raise _weights_alone(path, names)
    if not isinstance(content, dict):
        raise UnsupportedSource(f"{path} holds a {_kind(content)}, not a checkpoint.", "Give a training .pt.")
    return content


def read_weights(path: Path, wanted: Mapping[str, Any], *, whole: bool = True) -> dict[str, Any]:
    """The tensors of a state dict that a network needs.

    Args:
        path: A state dict; a checkpoint that holds one under ``state_dict``, ``model``, ``model_state_dict`` or a similar key; or a
            network. Its names may have the prefixes of the usual wrappers (``weight_names.matched``).
        wanted: The network's own state dict: every name, shape and kind of number must be there; counters of batch
            norms need not.
        whole: Whether tensors that the network does not need are an error.

    Raises:
        UnsupportedSource: missing, damaged, or not the weights of this network.
        MissingDependency: torch is not installed.
    """
    check_is_archive(path)
    with _damage_explained(path), open_archive(path) as archive:
        check_calls(archive.content)
        stored = matched(_state_dict(archive.content), wanted, whole=whole)
        given = stored if whole else {name: item for name, item in stored.items() if name in wanted}
        counters = {name: tensor for name, tensor in wanted.items() if name.endswith(COUNTER) and name not in given}
        check_shapes({name: tensor for name, tensor in wanted.items() if name not in counters}, given)
        return {**counters, **loaded_tensors(archive, given)}


def weight_shape(path: Path, name: str, wanted: Collection[str]) -> tuple[int, ...]:
    """The shape of one tensor of a state dict, by the name that it has in the network with the names ``wanted``.

    Raises:
        UnsupportedSource: missing, damaged, or there is no such tensor.
    """
    check_is_archive(path)
    with _damage_explained(path), open_archive(path) as archive:
        check_calls(archive.content)
        stored = matched(_state_dict(archive.content), wanted)
        if name not in stored:
            check_shapes({**dict.fromkeys(wanted), name: None}, stored)  # names what differs
        return stored[name].size


def check_is_archive(path: Path) -> None:
    """Raise ``UnsupportedSource`` for a file that is missing, empty or no checkpoint at all."""
    if not path.is_file():
        raise UnsupportedSource(f"{path} does not exist.", "Check the path to the checkpoint.")
    try:
        readable = is_archive(path)
    except OSError as error:
        raise UnsupportedSource(f"{path} cannot be read: {error.strerror}.", "Copy or download it again.") from error
    if readable and _is_program(path):
        raise UnsupportedSource(
            f"{path} is a compiled program (TorchScript or torch.export), which holds no network that can be changed.",
            "Give the checkpoint (.pt) that training wrote, or export the network to .onnx.",
        )
    if not readable:
        size = path.stat().st_size
        raise UnsupportedSource(
            f"{path} ({size} bytes) is {'empty' if not size else 'not a PyTorch checkpoint'}.",
            "Copy or download it again.",
        )


def _is_program(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(_OF_PROGRAMS.search(name) for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError):
        return False  # damaged, or of before torch 1.6


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


def _kind(content: Any) -> str:
    return named(content).removeprefix("a ")


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        with _quiet():
            yield
    except ForeignNetwork as error:
        raise _foreign(path, error) from error
    except UnknownNetwork as error:
        raise UnsupportedSource(
            f"{path} cannot be read without running code: {error}.",
            "EdgeCV builds Ultralytics' networks from their description. If you trust whoever made this file: --trust-pickle runs "
            "the code in it.",
        ) from error
    except (DamagedPickle, OSError) as error:
        raise UnsupportedSource(
            f"{path} cannot be read as a checkpoint: {error}.",
            "Give the .pt that training wrote. If you trust whoever made it: --trust-pickle runs the code in it.",
        ) from error


@contextlib.contextmanager
def _damage_explained(path: Path) -> Iterator[None]:
    try:
        with _quiet():
            yield
    except (DamagedPickle, OSError) as error:
        raise UnsupportedSource(
            f"{path} does not hold weights of this network: {error}.",
            "Give a state dict of this network, as torch.save(network.state_dict(), FILE) writes it.",
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Builders of foreign networks warn of things that a reader of weights cannot change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _state_dict(content: Any) -> dict[str, StoredTensor]:
    """The tensors by name, from whatever holds them.

    Raises:
        UnknownNetwork: nothing does.
    """
    for value in _holders(content):
        record = module_record(value)
        if record is not None:
            return tensors_of(record)
        found = _named_tensors(value)
        if found:
            return found
    keys = ", ".join(str(key) for key in content)[:80] if isinstance(content, dict) else _kind(content)
    raise UnknownNetwork(f"it holds no tensors by name, but {keys or 'nothing'}")


def _named_tensors(value: Any) -> dict[str, StoredTensor]:
    items = value.items() if isinstance(value, dict) else ()
    stored = {name: stored_tensor(item) for name, item in items if isinstance(name, str)}
    return {name: item for name, item in stored.items() if item is not None}


def _holders(content: Any, depth: int = _NESTED) -> Iterator[Any]:
    """What may hold the weights, the likeliest first; under a key that nobody knows only where no other holds any."""
    if isinstance(content, dict) and depth:
        for key in _WEIGHTS:
            if key in content:
                yield from _holders(content[key], depth - 1)
    yield content
    if isinstance(content, dict) and depth == _NESTED:
        others = [value for key, value in content.items() if key not in _WEIGHTS and _named_tensors(value)]
        if len(others) == 1:
            yield others[0]


def _has_network(content: Any) -> bool:
    return isinstance(content, dict) and any(_is_network(content.get(key)) for key in _NETWORKS)


def _is_network(value: Any) -> bool:
    return isinstance(value, require("torch", "convert").nn.Module)


def _found_tensors(content: Any) -> dict[str, StoredTensor]:
    for value in _holders(content):
        found = _named_tensors(value)
        if found:
            return found
    return {}


def _trusted_names(content: Any) -> tuple[str, ...]:
    """Names of tensors where weights alone were read."""
    tensor = require("torch", "convert").Tensor
    if _has_network(content):
        return ()
    for value in _holders_of_values(content):
        names = tuple(name for name, item in value.items() if isinstance(name, str) and isinstance(item, tensor))
        if names:
            return names
    return ()


def _holders_of_values(content: Any) -> Iterator[Mapping[Any, Any]]:
    if isinstance(content, Mapping):
        yield from (content[key] for key in _WEIGHTS if isinstance(content.get(key), Mapping))
        yield content


def _weights_alone(path: Path, names: Sequence[str]) -> UnsupportedSource:
    """The refusal of a state dict where a network was asked for, with what it is likely to be of."""
    blocks = [int(found[1]) for name in names if (found := _BLOCK.search(name))]
    deep = any(name.endswith("layer1.0.conv3.weight") for name in names)
    resnet = _RESNETS.get((deep, max(blocks, default=-1) + 1))
    if resnet:
        what, hint = "a ResNet", f"Name the network: edgecv convert {resnet} --weights {path.name}"
    elif any(_YOLO_NAME.match(name) for name in names):
        what = "a YOLO network"
        hint = (
            "Give the checkpoint that training wrote (weights/best.pt holds both); or load them into the network and save that: "
            'model = YOLO("yolov8n.yaml"); model.model.load_state_dict(...); model.save("whole.pt").'
        )
    else:
        what = f"a network ({len(names)} tensors: {names[0]} ...)"
        hint = (
            f"Name the network: edgecv convert mobile_sam --weights {path.name} (or sam_b, sam2.1_t, resnet50 ...); of any other "
            "network export an .onnx."
        )
    return UnsupportedSource(f"{path} holds the weights of {what} without the network itself (a state dict).", hint)


def _is_installed(package: str) -> bool:
    """Whether a package can be imported. A plain folder of that name, which Python takes for an empty package, does not count."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


def _foreign(path: Path, error: ForeignNetwork) -> UnsupportedSource:
    """The refusal of a network of somebody's own class: with the code at hand it may be trusted, else nothing helps here."""
    package = error.module.partition(".")[0]
    if package != "__main__" and _is_installed(package):
        return UnsupportedSource(
            f"{path} cannot be read without running code: {error}.",
            "EdgeCV builds Ultralytics' networks from their description. If you trust whoever made this file: --trust-pickle runs "
            "the code in it.",
        )
    where = (
        "the script that saved it"
        if package == "__main__"
        else f"the Python package '{package}', which is not installed here"
    )
    hint = "Export the network to .onnx where its code is, and convert that."
    if error.module in ("models.yolo", "models.common"):  # as the repositories call them
        hint = f"It is of the YOLOv5 or YOLOv7 repository. {hint} Or train Ultralytics' yolov5nu.pt, which has YOLOv8's head."
    return UnsupportedSource(f"{path} cannot be read: {error}; its code is in {where}.", hint)
