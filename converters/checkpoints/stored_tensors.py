"""Where the tensors of a checkpoint lie, as its pickle says it; nothing is read of them here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from edgecv.converters.checkpoints.records import Call, DamagedPickle, Global, Persistent

_MAX_DIMENSIONS = 16
# By the name of an element's type in torch: its bytes.
ITEM_BYTES: Mapping[str, int] = MappingProxyType(
    {
        "float32": 4,
        "float64": 8,
        "float16": 2,
        "bfloat16": 2,
        "int64": 8,
        "int32": 4,
        "int16": 2,
        "int8": 1,
        "uint8": 1,
        "bool": 1,
    }
)
# torch's names of the classes of storages, before "Storage", in the order of the table above.
_KINDS = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_STORAGE_TYPES: Mapping[str, str] = MappingProxyType(
    {f"{kind}Storage": dtype for kind, dtype in zip(_KINDS, ITEM_BYTES, strict=True)} | {"UntypedStorage": "uint8"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """Where a tensor lies; offset, size and stride are in elements, as torch means them."""

    storage: str  # its key in the archive
    dtype: str  # the name of its elements' type in torch
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.size)

    @property
    def bytes(self) -> int:
        return self.elements * ITEM_BYTES[self.dtype]


def storage_of(reference: Any) -> tuple[str, str]:
    """Key and elements' type of a storage; ``DamagedPickle`` for what is no reference to one."""
    key = reference.key if isinstance(reference, Persistent) else None
    if not isinstance(key, tuple) or len(key) not in (5, 6) or key[0] != "storage" or not isinstance(key[2], str):
        raise DamagedPickle("a tensor refers to no storage")
    name = key[1].name if isinstance(key[1], Global) and key[1].module in ("torch", "torch.storage") else None
    if name not in _STORAGE_TYPES or (len(key) == 6 and key[5] is not None):
        raise DamagedPickle("a tensor has elements of a type that is not read")
    return key[2], _STORAGE_TYPES[str(name)]


def stored_tensor(value: Any) -> StoredTensor | None:
    """What a record says of a tensor; ``None`` where it stands for something else, or for a tensor of another kind than the plain.

    ``DamagedPickle`` says that it claims to be a plain tensor and is none.
    """
    for _ in range(2):  # a parameter holds a tensor, never another parameter
        if not isinstance(value, Call) or not isinstance(value.maker, Global):
            return None
        name = str(value.maker)
        if name in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"):
            value = value.arguments[0] if value.arguments else None
        elif name in _REBUILDS:
            return _REBUILDS[name](*value.arguments)
        else:
            return None
    return None


def _plain_tensor(storage: Any = None, offset: Any = 0, size: Any = (), stride: Any = (), *_more: Any) -> StoredTensor:
    key, dtype = storage_of(storage)
    return _checked_tensor(key, dtype, offset, size, stride)


def _typed_tensor(
    storage: Any = None, offset: Any = 0, size: Any = (), stride: Any = (), _g: Any = None, _h: Any = None, *more: Any
) -> StoredTensor:
    """``_rebuild_tensor_v3`` names the elements' type itself."""
    if not more or not isinstance(more[0], Global):
        raise DamagedPickle("a tensor refers to no storage")
    if more[0].module != "torch" or more[0].name not in ITEM_BYTES:
        raise DamagedPickle("a tensor has elements of a type that is not read")
    return _checked_tensor(storage_of(storage)[0], more[0].name, offset, size, stride)


def _checked_tensor(key: str, dtype: str, offset: Any, size: Any, stride: Any) -> StoredTensor:
    numbers = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= _MAX_DIMENSIONS
    if not numbers or not all(type(n) is int and 0 <= n < 1 << 48 for n in (offset, *size, *stride)):
        raise DamagedPickle("a tensor's size is not made of numbers")
    return StoredTensor(storage=key, dtype=dtype, offset=offset, size=size, stride=stride)


_REBUILDS: Mapping[str, Callable[..., StoredTensor]] = MappingProxyType(
    {
        "torch._utils._rebuild_tensor": _plain_tensor,
        "torch._utils._rebuild_tensor_v2": _plain_tensor,
        "torch._utils._rebuild_tensor_v3": _typed_tensor,
    }
)
