"""Read checkpoints (``.pt``, ``.pth``, ``.ckpt``) without running what is in them.

A checkpoint is a pickle: reading it as one runs whatever its author put there, and no list of permitted classes makes that safe
(docs/adr/0003). So it is read as inert data. Networks are built by our own calls from what it says, and its tensors are made by our
own code; every other object stays a record and is left out.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgecv.converters import ultralytics_world
from edgecv.converters.checkpoint_archive import Archive, StoredTensor, is_archive, open_archive, stored_tensor
from edgecv.converters.inert_pickle import DamagedPickle
from edgecv.converters.module_records import (
    check_calls,
    is_plain,
    loaded_tensors,
    module_record,
    named,
    plain,
    tensors_of,
)
from edgecv.converters.yolo_networks import UnknownNetwork, check_shapes, yolo_network
from edgecv.errors import UnsupportedSource
from edgecv.extras import require
from edgecv.foreign import first_line

_NETWORKS = ("ema", "model")  # Ultralytics keeps the averaged weights beside the last ones, and uses them
# Under which key training programs keep the weights: Lightning, SAM and Ultralytics, plain PyTorch examples.
_WEIGHTS = ("state_dict", "model", "model_state_dict")


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
    else:
        with _explained(path), open_archive(path) as archive:
            content = _read_inert(archive, str(path))
    if not isinstance(content, dict):
        raise UnsupportedSource(f"{path} holds a {_kind(content)}, not a checkpoint.", "Give a training .pt.")
    return content


def read_weights(path: Path, wanted: Mapping[str, Any], *, whole: bool = True) -> dict[str, Any]:
    """The tensors of a state dict that a network needs.

    Args:
        path: A state dict; a checkpoint that holds one under ``state_dict``, ``model`` or ``model_state_dict``; or a network.
        wanted: The network's own state dict: every name, shape and kind of number must be there.
        whole: Whether tensors that the network does not need are an error.

    Raises:
        UnsupportedSource: missing, damaged, or not the weights of this network.
        MissingDependency: torch is not installed.
    """
    check_is_archive(path)
    with _damage_explained(path), open_archive(path) as archive:
        check_calls(archive.content)
        stored = _state_dict(archive.content)
        given = stored if whole else {name: item for name, item in stored.items() if name in wanted}
        check_shapes(wanted, given)
        return loaded_tensors(archive, given)


def weight_shape(path: Path, name: str) -> tuple[int, ...]:
    """The shape of one tensor of a state dict.

    Raises:
        UnsupportedSource: missing, damaged, or there is no such tensor.
    """
    check_is_archive(path)
    with _damage_explained(path), open_archive(path) as archive:
        check_calls(archive.content)
        stored = _state_dict(archive.content)
        if name not in stored:
            raise UnknownNetwork(f"it lacks {name}")
        return stored[name].size


def check_is_archive(path: Path) -> None:
    """Raise ``UnsupportedSource`` for a file that is missing, empty or no checkpoint at all."""
    if not path.is_file():
        raise UnsupportedSource(f"{path} does not exist.", "Check the path to the checkpoint.")
    try:
        readable = is_archive(path)
    except OSError as error:
        raise UnsupportedSource(f"{path} cannot be read: {error.strerror}.", "Copy or download it again.") from error
    if not readable:
        size = path.stat().st_size
        raise UnsupportedSource(
            f"{path} ({size} bytes) is {'empty' if not size else 'not a PyTorch checkpoint'}.",
            "Copy or download it again.",
        )


def _read_trusted(path: Path) -> Any:
    torch = require("torch", "convert")
    ultralytics_world.tasks()
    try:
        return torch.load(str(path), map_location="cpu", weights_only=False)
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
        if isinstance(value, dict):
            stored = {name: stored_tensor(item) for name, item in value.items() if isinstance(name, str)}
            found = {name: item for name, item in stored.items() if item is not None}
            if found:
                return found
    raise UnknownNetwork(f"it holds no tensors by name ({_kind(content)})")


def _holders(content: Any) -> Iterator[Any]:
    if isinstance(content, dict):
        yield from (content[key] for key in _WEIGHTS if key in content)
    yield content
