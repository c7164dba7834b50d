"""The container of a PyTorch checkpoint: an inert pickle, and the bytes of its tensors.

torch has written two containers. Since 1.6 it is a zip archive of stored members; before, five pickles and then the bytes of each
storage. Both are read here by our own code, without torch's reader. Tensors are made from the bytes after their sizes were
checked, and only those that somebody asks for.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from edgecv._internal.extras import require
from edgecv.converters.checkpoints.inert_pickle import MAX_BYTES, Limited, read_pickle
from edgecv.converters.checkpoints.records import DamagedPickle, Persistent, everything_in
from edgecv.converters.checkpoints.stored_tensors import ITEM_BYTES, StoredTensor, storage_of
from edgecv.errors import UnsupportedSource

# The number at the head of the container before 1.6 (torch/serialization.py, MAGIC_NUMBER) and its version.
_OLD_MAGIC, _OLD_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
# Members of the archives of compiled programs.
_OF_PROGRAMS = re.compile(r"(?:^|/)(?:constants\.pkl$|code/|archive_format$|models/.*\.json$)")
# What Python's zip reader raises for damaged archives.
_DAMAGE = (zipfile.BadZipFile, RuntimeError, struct.error, zlib.error, EOFError, ValueError, LookupError)


@dataclass(slots=True, kw_only=True, eq=False)
class Archive:
    """An open checkpoint: what its pickle describes, as inert data, and its tensors as they are asked for."""

    content: Any
    file_bytes: int
    sizes: Mapping[str, int]  # of the storages, in bytes
    read: Callable[[str], bytearray]  # a storage
    close: Callable[[], None]
    _storages: dict[str, bytearray] = field(default_factory=dict, init=False)

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def tensor(self, stored: StoredTensor) -> Any:
        """The tensor, on the CPU; ``DamagedPickle`` where it lies outside its storage, or shows an element more than once."""
        torch = require("torch", "convert")
        self._check(stored)
        if not stored.elements:
            return torch.zeros(stored.size, dtype=getattr(torch, stored.dtype))
        if stored.storage not in self._storages:
            with _damage():
                self._storages[stored.storage] = self.read(stored.storage)
        flat = torch.frombuffer(self._storages[stored.storage], dtype=torch.uint8)
        item = ITEM_BYTES[stored.dtype]
        usable = flat[: len(flat) // item * item]
        if stored.dtype == "bool":  # a copy, and so of this tensor's elements alone
            return usable.as_strided(stored.size, stored.stride, stored.offset).ne(0)
        return usable.view(getattr(torch, stored.dtype)).as_strided(stored.size, stored.stride, stored.offset)

    def _check(self, stored: StoredTensor) -> None:
        room = self.sizes.get(stored.storage)
        if room is None:
            raise DamagedPickle("a tensor has no storage in the file")
        if stored.elements and any(
            not step and length > 1 for step, length in zip(stored.stride, stored.size, strict=True)
        ):
            raise DamagedPickle("a tensor repeats its elements (a stride of 0)")
        room //= ITEM_BYTES[stored.dtype]
        furthest = stored.offset + sum(
            step * (length - 1) for step, length in zip(stored.stride, stored.size, strict=True)
        )
        if stored.elements and (furthest >= room or stored.elements > room):
            raise DamagedPickle("a tensor is larger than its storage")


def open_archive(path: Path) -> Archive:
    """Read the description of a checkpoint; its tensors stay in the file until they are asked for.

    ``DamagedPickle`` says that it is no checkpoint, or one that torch does not write.
    """
    file = path.open("rb")
    try:
        with _damage():
            return _zip_archive(file) if zipfile.is_zipfile(file) else _old_archive(file)
    except BaseException:
        file.close()
        raise


def check_is_archive(path: Path) -> None:
    """Raise ``UnsupportedSource`` for a file that is missing, empty or no checkpoint at all."""
    if not path.is_file():
        raise UnsupportedSource(f"{path} does not exist.", "Check the path to the checkpoint.")
    try:
        readable = _is_archive(path)
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


def _is_archive(path: Path) -> bool:
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            return True
        file.seek(0)
        try:
            return bool(read_pickle(io.BytesIO(file.read(64))) == _OLD_MAGIC)
        except DamagedPickle:
            return False


def _is_program(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(_OF_PROGRAMS.search(name) for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError):
        return False  # damaged, or of before torch 1.6


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

    return Archive(content=content, file_bytes=_size_of(file), sizes=sizes, read=read, close=close)


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
    return Archive(content=content, file_bytes=file_bytes, sizes=sizes, read=read, close=file.close)


def _old_item_bytes(content: Any) -> dict[str, int]:
    """Bytes of an element, per storage: the old container counts elements and names their type in the pickle alone."""
    references = (value for value in everything_in(content) if isinstance(value, Persistent))
    return {key: ITEM_BYTES[dtype] for key, dtype in map(storage_of, references)}
