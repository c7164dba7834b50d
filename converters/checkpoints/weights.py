"""Weights without a network: where a file keeps them, and those that a network needs of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgecv._internal.quiet import quiet
from edgecv.converters.checkpoints.archive import Archive, check_is_archive, open_archive
from edgecv.converters.checkpoints.module_records import check_calls, loaded_tensors, module_record, tensors_of
from edgecv.converters.checkpoints.records import DamagedPickle, UnknownNetwork, named
from edgecv.converters.checkpoints.stored_tensors import StoredTensor, stored_tensor
from edgecv.converters.checkpoints.weight_names import COUNTER, matched
from edgecv.errors import UnsupportedSource

# Under which key training programs keep the weights: Lightning and timm, SAM and Ultralytics, plain PyTorch examples, BasicSR.
_WEIGHTS = ("state_dict", "model", "model_state_dict", "model_state", "net", "network", "weights", "params", "module")
_NESTED = 3  # {"model": {"state_dict": {...}}}


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
    with _opened(path) as archive:
        stored = matched(_state_dict(archive.content), wanted, whole=whole)
        given = stored if whole else {name: item for name, item in stored.items() if name in wanted}
        counters = {name: tensor for name, tensor in wanted.items() if name.endswith(COUNTER) and name not in given}
        check_shapes({name: tensor for name, tensor in wanted.items() if name not in counters}, given)
        return {**counters, **loaded_tensors(archive, given)}


def weight_shape(path: Path, name: str, wanted: Collection[str]) -> tuple[int, ...]:
    """The shape of one tensor of a state dict, by the name that it has in the network with the names ``wanted``."""
    with _opened(path) as archive:
        stored = matched(_state_dict(archive.content), wanted)
        if name not in stored:
            check_shapes({**dict.fromkeys(wanted), name: None}, stored)  # names what differs
        return stored[name].size


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Archive]:
    """The checked archive; what is wrong with it inside the block is said in the user's words."""
    check_is_archive(path)
    try:
        with quiet(), open_archive(path) as archive:
            check_calls(archive.content)
            yield archive
    except (DamagedPickle, OSError) as error:
        raise UnsupportedSource(
            f"{path} does not hold weights of this network: {error}.",
            "Give a state dict of this network, as torch.save(network.state_dict(), FILE) writes it.",
        ) from error


def _state_dict(content: Any) -> dict[str, StoredTensor]:
    """The tensors by name, from whatever holds them; ``UnknownNetwork`` where nothing does."""
    for value in holders(content, named_tensors):
        record = module_record(value)
        if record is not None:
            return tensors_of(record)
        found = named_tensors(value)
        if found:
            return found
    keys = (
        ", ".join(str(key) for key in content)[:80] if isinstance(content, dict) else named(content).removeprefix("a ")
    )
    raise UnknownNetwork(f"it holds no tensors by name, but {keys or 'nothing'}")


def named_tensors(value: Any) -> dict[str, StoredTensor]:
    """The tensors of a dictionary that have a name."""
    items = value.items() if isinstance(value, dict) else ()
    stored = {name: stored_tensor(item) for name, item in items if isinstance(name, str)}
    return {name: item for name, item in stored.items() if item is not None}


def holders(content: Any, tensors: Callable[[Any], Any], depth: int = _NESTED) -> Iterator[Any]:
    """What may hold the weights, the likeliest first; under a key that nobody knows only where no other holds any.

    ``tensors`` gives the tensors that a value holds itself.
    """
    if isinstance(content, dict) and depth:
        for key in _WEIGHTS:
            if key in content:
                yield from holders(content[key], tensors, depth - 1)
    yield content
    if isinstance(content, dict) and depth == _NESTED:
        others = [value for key, value in content.items() if key not in _WEIGHTS and tensors(value)]
        if len(others) == 1:
            yield others[0]


def check_shapes(wanted: Mapping[str, Any], given: Mapping[str, StoredTensor]) -> None:
    """Hold the tensors of a file against those of a network, before any is read.

    ``UnknownNetwork`` names the first that is missing, unexpected or of another shape or kind.
    """
    missing = next((name for name in wanted if name not in given), None)
    unexpected = next((name for name in given if name not in wanted), None)
    said = [f"it lacks {missing}"] if missing is not None else []
    if unexpected is not None:
        said.append(f"{'' if said else 'it '}holds {unexpected}, which the network does not have")
    if said:
        raise UnknownNetwork(" and ".join(said))
    for name, stored in given.items():
        tensor = wanted[name]
        if tuple(tensor.shape) != stored.size:
            raise UnknownNetwork(f"{name} is {list(stored.size)}, and the network needs {list(tensor.shape)}")
        if tensor.is_floating_point() != ("float" in stored.dtype):
            raise UnknownNetwork(f"{name} is of type {stored.dtype}, and the network needs {tensor.dtype}")
