"""Hostile checkpoints: pickles that torch itself would never write, in the container that torch writes."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch


class Call:
    """Pickles as a call of ``function(*arguments)``, then, if given, with a state and items."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None, items: Any = None) -> None:
        self.function, self.arguments, self.state, self.items = function, arguments, state, items

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments, self.state, None, iter(self.items.items()) if self.items else None


def bare(cls: type, state: dict[str, Any]) -> Any:
    """An object of ``cls`` that no constructor made, with ``state`` as its attributes."""
    made = cls.__new__(cls)
    vars(made).update(state)
    return made


def shell(marker: Path) -> Call:
    return Call(os.system, f"touch {marker}")


def global_(module: str, name: str) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode()


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def storage(kind: str, key: str, elements: int) -> bytes:
    """A reference to a storage, as torch writes it."""
    return b"(" + text("storage") + global_("torch", kind) + text(key) + text("cpu") + number(elements) + b"tQ"


def number(value: int) -> bytes:
    raw = pickle.encode_long(value)
    return b"\x8a" + bytes([len(raw)]) + raw


def tensor(
    kind: str, key: str, elements: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0
) -> bytes:
    sizes, strides = (b"(" + b"".join(number(n) for n in values) + b"t" for values in (size, stride))
    hooks = global_("collections", "OrderedDict") + b")R"
    return (
        global_("torch._utils", "_rebuild_tensor_v2")
        + b"("
        + storage(kind, key, elements)
        + number(offset)
        + sizes
        + strides
        + b"\x89"
        + hooks
        + b"tR"
    )


def state_dict(tensors: Mapping[str, bytes]) -> bytes:
    items = b"".join(text(name) + value for name, value in tensors.items())
    return b"\x80\x02}(" + items + b"u."


def write_archive(
    path: Path, pickled: bytes, storages: Mapping[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/byteorder", "little")
        for key, data in (storages or {}).items():
            archive.writestr(f"a/data/{key}", data)
    return path


def edited(path: Path, edit: Callable[[Any], None]) -> Path:
    """A sound checkpoint, with its network edited before it is saved."""
    from edgecv.converters.families.ultralytics_import import tasks

    description = {"nc": 1, "backbone": [[-1, 1, "Conv", [8, 3, 2]]], "head": [[[0], 1, "Detect", ["nc"]]]}
    network = tasks().DetectionModel(description, verbose=False).eval()
    edit(network)
    torch.save({"model": network, "ema": None, "train_args": {"imgsz": 64}}, path)
    return path


def ordered_with_state(marker: Path) -> Any:
    """An ordered dictionary whose state would hide its own methods."""
    return Call(OrderedDict, state={"__setitem__": shell(marker), "update": os.system}, items={"a": 1})
