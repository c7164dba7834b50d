"""The container of a PyTorch checkpoint: an inert pickle, and the bytes of its tensors.

torch has written two containers. Since 1.6 it is a zip archive of stored members; before, five pickles and then the bytes of each
storage. Both are read here by our own code, without torch's reader. Tensors are made from the bytes after their sizes were
checked, and only those that somebody asks for.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from edgecv._internal.extras import require
from edgecv.converters.checkpoints.inert_pickle import (
    MAX_BYTES,
    Call,
    DamagedPickle,
    Global,
    Limited,
    Persistent,
    read_pickle,
)

# The number at the head of the container before 1.6 (torch/serialization.py, MAGIC_NUMBER) and its version.
_OLD_MAGIC, _OLD_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_MAX_DIMENSIONS = 16
# What Python's zip reader raises for damaged archives.
_DAMAGE = (zipfile.BadZipFile, RuntimeError, struct.error, zlib.error, EOFError, ValueError, LookupError)
# torch's name of a storage's class, and the name of its elements' type in torch.
_STORAGE_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "FloatStorage": "float32",
        "DoubleStorage": "float64",
        "HalfStorage": "float16",
        "BFloat16Storage": "bfloat16",
        "LongStorage": "int64",
        "IntStorage": "int32",
        "ShortStorage": "int16",
        "CharStorage": "int8",
        "ByteStorage": "uint8",
        "BoolStorage": "bool",
        "UntypedStorage": "uint8",
    }
)
_ITEM_BYTES: Mapping[str, int] = MappingProxyType(
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


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """Where a tensor lies.

    Attributes:
        storage: Key of its storage in the archive.
        dtype: Name of its elements' type in torch.
        offset, size, stride: In elements, as torch means them.
    """

    storage: str
    dtype: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def elements(self) -> int:
        count = 1
        for length in self.size:
            count *= length
        return count

    @property
    def bytes(self) -> int:
        return self.elements * _ITEM_BYTES[self.dtype]


class Archive:
    """An open checkpoint.

    Attributes:
        content: What its pickle describes, as inert data.
        file_bytes: Size of the file.
    """

    def __init__(
        self,
        content: Any,
        *,
        file_bytes: int,
        sizes: Mapping[str, int],
        read: Callable[[str], bytearray],
        close: Callable[[], None],
    ) -> None:
        self.content = content
        self.file_bytes = file_bytes
        self._sizes = sizes
        self._read = read
        self._close = close
        self._storages: dict[str, bytearray] = {}

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_error: object) -> None:
        self._close()

    def tensor(self, stored: StoredTensor) -> Any:
        """The tensor, on the CPU.

        Raises:
            DamagedPickle: it does not lie inside its storage, or shows an element more than once.
        """
        torch = require("torch", "convert")
        self._check(stored)
        if not stored.elements:
            return torch.zeros(stored.size, dtype=getattr(torch, stored.dtype))
        if stored.storage not in self._storages:
            with _damage():
                self._storages[stored.storage] = self._read(stored.storage)
        flat = torch.frombuffer(self._storages[stored.storage], dtype=torch.uint8)
        item = _ITEM_BYTES[stored.dtype]
        usable = flat[: len(flat) // item * item]
        if stored.dtype == "bool":  # a copy, and so of this tensor's elements alone
            return usable.as_strided(stored.size, stored.stride, stored.offset).ne(0)
        return usable.view(getattr(torch, stored.dtype)).as_strided(stored.size, stored.stride, stored.offset)

    def _check(self, stored: StoredTensor) -> None:
        room = self._sizes.get(stored.storage)
        if room is None:
            raise DamagedPickle("a tensor has no storage in the file")
        if stored.elements and any(
            not step and length > 1 for step, length in zip(stored.stride, stored.size, strict=True)
        ):
            raise DamagedPickle("a tensor repeats its elements (a stride of 0)")
        room //= _ITEM_BYTES[stored.dtype]
        furthest = stored.offset + sum(
            step * (length - 1) for step, length in zip(stored.stride, stored.size, strict=True)
        )
        if stored.elements and (furthest >= room or stored.elements > room):
            raise DamagedPickle("a tensor is larger than its storage")


def open_archive(path: Path) -> Archive:
    """Read the description of a checkpoint; its tensors stay in the file until they are asked for.

    Raises:
        DamagedPickle: it is no checkpoint, or one that torch does not write.
        OSError: the file cannot be read.
    """
    file = path.open("rb")
    try:
        with _damage():
            return _zip_archive(file) if zipfile.is_zipfile(file) else _old_archive(file)
    except BaseException:
        file.close()
        raise


def is_archive(path: Path) -> bool:
    """Whether a file begins like a checkpoint of either container."""
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            return True
        file.seek(0)
        try:
            return bool(read_pickle(io.BytesIO(file.read(64))) == _OLD_MAGIC)
        except DamagedPickle:
            return False


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except DamagedPickle:
        raise
    except _DAMAGE as error:
        raise DamagedPickle(f"its zip archive is damaged ({error})") from error


def _zip_archive(file: BinaryIO) -> Archive:
    archive = zipfile.ZipFile(file)
    members = _checked_members(archive, _size_of(file))
    named = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(named) != 1:
        raise DamagedPickle("it is a zip archive without a checkpoint's data.pkl")
    prefix = named[0].removesuffix("data.pkl")
    order = f"{prefix}byteorder"
    if order in members and archive.read(order) != b"little":
        raise DamagedPickle("it was written on a machine with another order of bytes")
    if members[named[0]].file_size > MAX_BYTES:
        raise DamagedPickle(f"its description is larger than {MAX_BYTES >> 20} MiB")
    content = read_pickle(io.BytesIO(archive.read(named[0])))
    data = f"{prefix}data/"
    sizes = {name.removeprefix(data): info.file_size for name, info in members.items() if name.startswith(data)}

    def read(key: str) -> bytearray:
        with archive.open(f"{data}{key}") as member:
            return _exactly(member, sizes[key])

    def close() -> None:
        archive.close()
        file.close()

    return Archive(content, file_bytes=_size_of(file), sizes=sizes, read=read, close=close)


def _size_of(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _checked_members(archive: zipfile.ZipFile, file_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """By name. torch stores members as they are; a packed one could be a thousand times its size in the file."""
    members: dict[str, zipfile.ZipInfo] = {}
    total = 0
    for info in archive.infolist():
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise DamagedPickle(f"its member {info.filename!r} is compressed, which torch never does")
        if info.filename in members:
            raise DamagedPickle(f"it holds {info.filename!r} twice")
        total += info.file_size
        members[info.filename] = info
    if total > file_bytes:
        raise DamagedPickle("its members claim more bytes than the file has")
    return members


def _exactly(stream: Any, size: int) -> bytearray:
    made = bytearray(size)
    if stream.readinto(made) != size:
        raise DamagedPickle("a storage is cut short")
    return made


def _old_archive(file: BinaryIO) -> Archive:
    """Magic number, version, a description of the machine, the content, the keys of the storages: a pickle each. Then, per key,
    the number of elements in 8 bytes and the elements."""
    file_bytes = _size_of(file)
    file.seek(0)
    magic, protocol = read_pickle(Limited(file)), read_pickle(Limited(file))
    if magic != _OLD_MAGIC or protocol != _OLD_PROTOCOL:
        raise DamagedPickle("it is not a PyTorch checkpoint")
    machine, content, keys = (read_pickle(Limited(file)) for _ in range(3))
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise DamagedPickle("it was written on a machine with another order of bytes")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise DamagedPickle("it has no list of storages")
    items = _old_item_bytes(content)
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        (count,) = struct.unpack("<q", _exactly(file, 8))
        place, length = file.tell(), count * items.get(key, 1)
        if count < 0 or place + length > file_bytes or key in places:
            raise DamagedPickle("a storage is cut short")
        places[key] = (place, length)
        file.seek(length, io.SEEK_CUR)

    def read(key: str) -> bytearray:
        place, length = places[key]
        file.seek(place)
        return _exactly(file, length)

    sizes = {key: length for key, (_place, length) in places.items()}
    return Archive(content, file_bytes=file_bytes, sizes=sizes, read=read, close=file.close)


def _old_item_bytes(content: Any) -> dict[str, int]:
    """Bytes of an element, per storage: the old container counts elements and names their type in the pickle alone."""
    found: dict[str, int] = {}
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Persistent):
            key, dtype = storage_of(value)
            found[key] = _ITEM_BYTES[dtype]
        elif id(value) not in seen:
            seen.add(id(value))
            waiting.extend(inside(value))
    return found


def inside(value: Any) -> list[Any]:
    """The values that an inert value holds."""
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, (Global, str, bytes, int, float)) or value is None:
        return []
    if isinstance(value, Persistent):
        return [value.key]
    function = value.function if isinstance(value, Call) else value.cls
    return [function, value.arguments, value.state, value.items]


def storage_of(reference: Persistent) -> tuple[str, str]:
    """Key and elements' type of a storage.

    Raises:
        DamagedPickle: it is no reference to one.
    """
    key = reference.key
    if not isinstance(key, tuple) or len(key) not in (5, 6) or key[0] != "storage" or not isinstance(key[2], str):
        raise DamagedPickle("a tensor refers to no storage")
    name = key[1].name if isinstance(key[1], Global) and key[1].module in ("torch", "torch.storage") else None
    if name not in _STORAGE_TYPES or (len(key) == 6 and key[5] is not None):
        raise DamagedPickle("a tensor has elements of a type that is not read")
    return key[2], _STORAGE_TYPES[str(name)]


def stored_tensor(value: Any) -> StoredTensor | None:
    """What a record says of a tensor; ``None`` where it stands for something else, or for a tensor of another kind than the plain.

    Raises:
        DamagedPickle: it claims to be a plain tensor and is none.
    """
    for _ in range(2):  # a parameter holds a tensor, never another parameter
        if not isinstance(value, Call) or not isinstance(value.function, Global):
            return None
        name = str(value.function)
        if name in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"):
            value = value.arguments[0] if value.arguments else None
        elif name in _REBUILDS:
            return _REBUILDS[name](*value.arguments)
        else:
            return None
    return None


def _plain_tensor(storage: Any = None, offset: Any = 0, size: Any = (), stride: Any = (), *_more: Any) -> StoredTensor:
    if not isinstance(storage, Persistent):
        raise DamagedPickle("a tensor refers to no storage")
    key, dtype = storage_of(storage)
    return _checked_tensor(key, dtype, offset, size, stride)


def _typed_tensor(
    storage: Any = None, offset: Any = 0, size: Any = (), stride: Any = (), _g: Any = None, _h: Any = None, *more: Any
) -> StoredTensor:
    """``_rebuild_tensor_v3`` names the elements' type itself."""
    if not isinstance(storage, Persistent) or not more or not isinstance(more[0], Global):
        raise DamagedPickle("a tensor refers to no storage")
    if more[0].module != "torch" or more[0].name not in _ITEM_BYTES:
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
